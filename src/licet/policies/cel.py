"""Conditions in CEL, the Common Expression Language: the one place that knows its engine.

What keeps a condition cheap and what keeps it from allowing what it should not:

- The macros (`all`, `exists`, `map`, ...) are off: without loops, what an expression costs is
  bounded by its length and by the size of what it is told.
- `matches` is for a literal pattern with few repetitions, a few times only: patterns cost most.
- The result must be a bool by type; a value of another type is never taken for one.
- An error of an evaluation is a value of the engine whose `value()` is a text, and so true to
  Python. Only `is True` and `is False` count; anything else is an ExpressionError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from math import prod
from typing import Any, Final

from licet.domain.condition import EXPRESSION_BYTES, Condition, ExpressionError
from licet.domain.document import Place
from licet.domain.policy_facts import VARIABLES, Facts, Kind

MAX_MATCHES: Final = 4
"""How often an expression may say `matches`."""
MAX_PATTERN: Final = 256
"""How long a pattern may be."""
MAX_REPETITIONS: Final = 100
"""What the counts of a pattern, as in `{1,16}`, may multiply to."""

_CONFIG: Final = "name: licet\nstdlib:\n  disable_macros: true\n"
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<text>
        [bB]?[rR][bB]?(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n\r]*"|'[^'\n\r]*')
        |[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
            |"(?:\\.|[^"\\\n\r])*"|'(?:\\.|[^'\\\n\r])*'))
    |(?P<name>[_a-zA-Z][_a-zA-Z0-9]*)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_COUNT: Final = re.compile(r"\{(\d*),?(\d*)\}")
_ERROR: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): ([^\n]*)")


def compile_condition(text: str) -> Condition:
    """Compile an expression.

    Raises:
        ExpressionError: it is none, it is no bool, or it could cost too much; the message has the
            line and the column within the text.
    """
    if len(text.encode("utf-8", "surrogatepass")) > EXPRESSION_BYTES:
        raise ExpressionError(f"more than {EXPRESSION_BYTES} bytes")
    tokens = [token for token in _TOKEN.finditer(text) if token.lastgroup != "space"]
    _check_matches(tokens, text)
    try:
        compiled = _environment().compile(text)
        is_bool = compiled.return_type() == _engine().Type.BOOL
    except Exception as exc:  # noqa: BLE001 - the engine does not say what it raises
        raise ExpressionError(_reason(exc)) from None
    if not is_bool:
        kind = compiled.return_type().name()
        raise ExpressionError(
            f"must be a bool, and this is {kind}: compare it, as in `context.x == true`"
        )
    return _Compiled(compiled, tuple(sorted(set(_variables(tokens)))))


class _Compiled:
    __slots__ = ("_expression", "_variables")

    def __init__(self, expression: Any, variables: tuple[str, ...]) -> None:  # noqa: ANN401
        self._expression = expression
        self._variables = tuple((name, VARIABLES[name].of) for name in variables)

    def __call__(self, facts: Facts) -> bool:
        data = {name: of(facts) for name, of in self._variables}
        try:
            value = self._expression.eval(data=data).value()
        except Exception as exc:  # noqa: BLE001 - as above
            raise ExpressionError(_reason(exc)) from None
        if value is True:
            return True
        if value is False:
            return False
        raise ExpressionError(str(value)[:200])


@cache
def _engine() -> Any:  # noqa: ANN401 - it has no types
    # Loaded when the first condition is compiled: most processes never need its 11 MB.
    from cel_expr_python import cel  # noqa: PLC0415

    return cel


@cache
def _environment() -> Any:  # noqa: ANN401
    cel = _engine()
    kinds = {
        Kind.TEXT: cel.Type.STRING,
        Kind.TEXTS: cel.Type.List(cel.Type.STRING),
        Kind.TIME: cel.Type.TIMESTAMP,
        Kind.ANYTHING: cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    }
    variables = {name: kinds[variable.kind] for name, variable in VARIABLES.items()}
    return cel.NewEnv(config=cel.NewEnvConfigFromYaml(_CONFIG), variables=variables)


def _variables(tokens: list[re.Match[str]]) -> Iterator[str]:
    """Yield the variables that are named: too many rather than too few."""
    for path in _paths(tokens):
        for length in range(len(path), 0, -1):
            name = ".".join(path[:length])
            if name in VARIABLES:
                yield name
                break


def _paths(tokens: list[re.Match[str]]) -> list[list[str]]:
    """Return the names, those with a dot between them together."""
    paths: list[list[str]] = []
    before = ""
    for token in tokens:
        if token.lastgroup == "name":
            if before == "." and paths:
                paths[-1].append(token.group())
            else:
                paths.append([token.group()])
        before = token.group()
    return paths


def _check_matches(tokens: list[re.Match[str]], text: str) -> None:
    found = [number for number, token in enumerate(tokens) if token.group() == "matches"]
    if len(found) > MAX_MATCHES:
        raise ExpressionError(f"says `matches` more than {MAX_MATCHES} times")
    if "`" in text:
        raise ExpressionError("must not have a backtick")
    for number in found:
        before, after = tokens[max(number - 1, 0)], tokens[number + 1 : number + 4]
        is_call = [token.group() for token in after[::2]] == ["(", ")"]
        if before.group() != "." or not is_call or after[1].lastgroup != "text":
            at = _at(text, tokens[number].start())
            raise ExpressionError(f'{at}: `matches` must be called as .matches("a literal")')
        _check_pattern(after[1].group(), _at(text, after[1].start()))


def _check_pattern(literal: str, at: str) -> None:
    if len(literal) > MAX_PATTERN:
        raise ExpressionError(f"{at}: the pattern has more than {MAX_PATTERN} characters")
    if "\\x" in literal.lower() or "\\u" in literal.lower() or re.search(r"\\[0-7]", literal):
        raise ExpressionError(f"{at}: the pattern must not have escaped character codes")
    counts = (max(int(low or 1), int(high or 1), 1) for low, high in _COUNT.findall(literal))
    if prod(counts) > MAX_REPETITIONS:
        raise ExpressionError(
            f"{at}: the counts of the pattern multiply to {MAX_REPETITIONS} or more"
        )


def _at(text: str, position: int) -> str:
    before = text[:position]
    place = Place(before.count("\n") + 1, position - before.rfind("\n"))
    return f"line {place.line}, column {place.column} of the expression"


def _reason(error: Exception) -> str:
    """Return what an error of the engine says first, without its drawing of the place."""
    match = _ERROR.search(str(error))
    if match is None:
        return str(error).splitlines()[0][:200] if str(error) else "it cannot be evaluated"
    line, column, message = match.groups()
    message = message.split(" expecting {")[0][:200]
    if int(line) < 1:
        return message
    return f"line {line}, column {column} of the expression: {message}"
