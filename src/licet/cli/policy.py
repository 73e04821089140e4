"""`licet policy`: what is in files of policies, checked and tested without a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.text import Text

from licet.cli import output
from licet.cli.errors import CommandError
from licet.cli.invocation import Invocation, command
from licet.domain import policy_cases
from licet.domain.decision import PolicyOutcome as Outcome
from licet.domain.document import DocumentError
from licet.domain.policy import Deny, Limit, OpenOnly, Policy, Require
from licet.domain.policy_cases import Cases, Expected, Result
from licet.domain.policy_document import PolicyDocument
from licet.domain.policy_set import PolicySet
from licet.policies.reading import (
    built_in_names,
    built_in_text,
    read_document,
    schema_text,
)
from licet.policies.yaml_tree import MAX_BYTES, parse

FAILED: Final = 1
_EFFECTS: Final = {Deny: "deny", Require: "require", OpenOnly: "time", Limit: "limit"}
_File: TypeAlias = Annotated[Path, typer.Argument(metavar="FILE", help="The document.")]

app = typer.Typer(
    help="Policies: rules that no capability overrides.",
    no_args_is_help=True,
)


@app.command()
@command
def check(invocation: Invocation, file: _File) -> int:
    """Check a policy document: exit status 1 and the place of each fault if it cannot be used."""
    found = read_document_of(file)
    if found is None:
        return FAILED
    if invocation.as_json:
        for policy in found.policies:
            output.print_json({"policy": policy.id, "effect": _effect(policy), "line": policy.line})
    else:
        output.print_table(
            ("line", "policy", "effect", "matches"),
            ((str(p.line), p.id, _effect(p), _matches(p)) for p in found.policies),
        )
    return 0


@app.command("test")
@command
def run(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The cases.")],
    policies: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The policy document, instead of the one they name."),
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Fail, too, if no case reached some policy.")
    ] = False,
) -> int:
    """Put cases to a policy document: exit status 1 if one comes out otherwise than expected."""
    cases = _cases(file)
    if cases is None:
        return FAILED
    if policies is None and not cases.policies:
        raise CommandError(f"{file} does not name the policies: add `policies`, or --policies")
    found = read_document_of(policies or file.parent / cases.policies)
    if found is None:
        return FAILED
    compiled = PolicySet(found.policies)
    results = [policy_cases.run(compiled, case) for case in cases.cases]
    reached = policy_cases.reached(results)
    unreached = [policy for policy in found.policies if policy.id not in reached]
    failed = [result for result in results if not result.is_expected]
    if invocation.as_json:
        for result in results:
            output.print_json(_as_json(result))
        output.print_json(
            {
                "cases": len(results),
                "failed": len(failed),
                "policies": len(found.policies),
                "not_reached": [policy.id for policy in unreached],
            }
        )
    else:
        _print(file, results, unreached, len(found.policies))
    return FAILED if failed or (complete and unreached) else 0


@app.command("built-in")
@command
def built_in(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(help="Print the document of this one.")] = "",
) -> int:
    """List the built-in sets, or print one."""
    if name:
        source = built_in_text(name)
        if source is None:
            raise CommandError(f"there is no built-in set {name}: {', '.join(built_in_names())}")
        sys.stdout.write(source)
        return 0
    sets = [(each, read_document(built_in_text(each) or "")) for each in built_in_names()]
    if invocation.as_json:
        for each, found in sets:
            output.print_json({"name": each, "description": found.description})
    else:
        output.print_table(
            ("name", "what it says"), ((each, found.description) for each, found in sets)
        )
    return 0


@app.command()
def schema() -> int:
    """Print the JSON Schema of policy documents, for editors."""
    sys.stdout.write(schema_text())
    return 0


def read_file(file: Path) -> str:
    """Return the text of a file.

    Raises:
        CommandError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        return content.decode()
    except OSError as exc:
        raise CommandError(f"{file}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise CommandError(f"{file} is not UTF-8") from exc


def read_document_of(file: Path) -> PolicyDocument | None:
    """Return a policy document; None: it cannot be used, and why was said. Raises CommandError."""
    source = read_file(file)
    try:
        return read_document(source)
    except DocumentError as exc:
        _complain(file, exc)
        return None


def _cases(file: Path) -> Cases | None:
    source = read_file(file)
    try:
        return policy_cases.read(parse(source))
    except DocumentError as exc:
        _complain(file, exc)
        return None


def _complain(file: Path, error: DocumentError) -> None:
    for fault in error.faults:
        place = f"{file}:{fault.place.line}:{fault.place.column}"
        message = " ".join(output.text(fault.message).plain.split())
        sys.stderr.write(f"{place}: {message}\n")


def _print(file: Path, results: list[Result], unreached: list[Policy], count: int) -> None:
    console = output.console()
    failed = 0
    for result in results:
        if result.is_expected:
            console.print(Text.assemble(("ok    ", "green"), output.text(result.case.name)))
            continue
        failed += 1
        where = f"  ({file}:{result.case.line})"
        console.print(
            Text.assemble(("FAIL  ", "bold red"), output.text(result.case.name), (where, "dim"))
        )
        console.print(output.text(f"        expected  {_line(result.case.expected)}"))
        console.print(output.text(f"        found     {_line(result.actual)}"))
        if result.detail:
            console.print(output.text(f"                  {result.detail}"))
        for considered in result.considered:
            if considered.outcome is not Outcome.NOT_MATCHED:
                detail = f"{considered.policy.id}: {considered.finding.detail}"
                console.print(output.text(f"          {considered.outcome:15} {detail}", "dim"))
    console.print(f"{len(results)} cases, {failed} failed")
    console.print(f"{count - len(unreached)} of {count} policies were reached")
    for policy in unreached:
        console.print(output.text(f"  no case reached {policy.id}, line {policy.line}", "yellow"))


def _line(expected: Expected) -> str:
    return " ".join(part for part in expected if part)


def _as_json(result: Result) -> dict[str, object]:
    return {
        "case": result.case.name,
        "line": result.case.line,
        "passed": result.is_expected,
        "expected": result.case.expected._asdict(),
        "found": result.actual._asdict(),
        "detail": result.detail,
    }


def _effect(policy: Policy) -> str:
    return _EFFECTS[type(policy.effect)]


def _matches(policy: Policy) -> str:
    parts = [" ".join(part) for part in policy.match if part]
    return " / ".join([*parts, *(["when"] if policy.when else [])]) or "everything"
