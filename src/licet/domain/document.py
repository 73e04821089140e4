"""A document somebody wrote: a tree of texts, lists and mappings that knows its lines and columns.

And how a reader takes values out of it. Nothing in a document is silently left aside: an unknown
field is a fault, as a wrong value is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self, TypeAlias, TypeVar

from licet.domain.errors import InvalidRequestError

MAX_FAULTS: Final = 20
"""How many faults of a document are told at once."""
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MICROS: Final = 1_000_000
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}")
# What YAML readers make something else of than a text: null, booleans, numbers.
_NO_TEXT: Final = re.compile(
    r"|~|null|true|false|yes|no|on|off|[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([e][-+]?[0-9]+)?"
    r"|0[xo][0-9a-f_]+|[-+]?\.inf|\.nan",
    re.IGNORECASE,
)


class Place(NamedTuple):
    """Where something is, counted from one."""

    line: int
    column: int


class Fault(NamedTuple):
    """What is wrong, and where; `path` is such as `policies[2].require.mfa`, or empty."""

    place: Place
    path: str
    rule: str

    @property
    def message(self) -> str:
        """What is wrong with what."""
        return f"{self.path} {self.rule}" if self.path else f"it {self.rule}"

    def describe(self) -> str:
        """Say it in one line."""
        return f"line {self.place.line}, column {self.place.column}: {self.message}"


class DocumentError(Exception):
    """A document that cannot be used; between its reader and a use case only."""

    def __init__(self, *faults: Fault) -> None:
        """Keep the faults, at least one, in the order of the document."""
        super().__init__("; ".join(fault.describe() for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text; `is_plain`: without quotes, so that it can be a number or a boolean."""

    place: Place
    path: str
    text: str
    is_plain: bool

    def fault(self, rule: str) -> DocumentError:
        """Return the error that a rule is broken here."""
        return DocumentError(Fault(self.place, self.path, rule))


@dataclass(frozen=True, slots=True)
class Sequenced:
    """A list."""

    place: Place
    path: str
    items: tuple[Node, ...]

    def fault(self, rule: str) -> DocumentError:
        """See `Scalar.fault`."""
        return DocumentError(Fault(self.place, self.path, rule))


@dataclass(frozen=True, slots=True)
class Mapped:
    """A mapping, its keys with the places where they stand."""

    place: Place
    path: str
    items: tuple[tuple[Scalar, Node], ...]

    def fault(self, rule: str) -> DocumentError:
        """See `Scalar.fault`."""
        return DocumentError(Fault(self.place, self.path, rule))


Node: TypeAlias = Scalar | Sequenced | Mapped
_Value = TypeVar("_Value")


class Fields:
    """The fields of a mapping, all of them known."""

    def __init__(self, node: Node, known: Collection[str], required: Collection[str] = ()) -> None:
        """Take the fields of a node.

        Raises:
            DocumentError: it is no mapping, has an unknown field, or has not a required one.
        """
        if not isinstance(node, Mapped):
            raise node.fault("must be a mapping")
        self.node = node
        self._fields = {key.text: value for key, value in node.items}
        unknown = [key.fault("is no field here") for key, _ in node.items if key.text not in known]
        if unknown:
            fields = ", ".join(known)
            first = unknown[0].faults[0]
            raise DocumentError(first._replace(rule=f"{first.rule}: {fields}"))
        for name in required:
            if name not in self._fields:
                raise node.fault(f"must have {name}")

    def __contains__(self, name: str) -> bool:
        """Say whether a field is there."""
        return name in self._fields

    def __getitem__(self, name: str) -> Node:
        """Return a field that is there."""
        return self._fields[name]

    def get(self, name: str, read: Callable[[Node], _Value], default: _Value) -> _Value:
        """Return what a reader makes of a field, or the default if it is not there."""
        node = self._fields.get(name)
        return default if node is None else read(node)


class Faults:
    """Gathers the faults of several parts: `with faults:` notes why one cannot be read."""

    def __init__(self) -> None:
        """Have none yet."""
        self._faults: list[Fault] = []

    def __enter__(self) -> Self:
        """Read a part."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> bool:
        """Note its faults; when there are so many that no more are wanted, raise them."""
        if not isinstance(error, DocumentError):
            return False
        self._faults.extend(error.faults)
        if len(self._faults) >= MAX_FAULTS:
            self.check()
        return True

    def check(self) -> None:
        """Raise DocumentError if there were any."""
        if self._faults:
            raise DocumentError(*sorted(self._faults)[:MAX_FAULTS])


def text(node: Node, limit: int) -> str:
    """Return a text of at most so many bytes that is not empty."""
    found = _scalar(node, "a text")
    if found.is_plain and _NO_TEXT.fullmatch(found.text) is not None:
        raise found.fault("must be a text: put it into quotes")
    if not found.text.strip():
        raise found.fault("must not be empty")
    if len(found.text.encode("utf-8", "surrogatepass")) > limit:
        raise found.fault(f"must have at most {limit} bytes of UTF-8")
    if not all(c.isprintable() or c in "\n\t" for c in found.text):
        raise found.fault("must hold printable characters only")
    return found.text


def choice(node: Node, values: Collection[str]) -> str:
    """Return one of some words."""
    found = _scalar(node, "one of " + ", ".join(values))
    if found.text not in values:
        raise found.fault("must be one of " + ", ".join(values))
    return found.text


def integer(node: Node, least: int, most: int) -> int:
    """Return an integer of a range."""
    rule = f"must be an integer from {least} to {most}"
    found = _scalar(node, "an integer")
    if not found.is_plain or _INTEGER.fullmatch(found.text) is None:
        raise found.fault(rule)
    value = int(found.text)
    if not least <= value <= most:
        raise found.fault(rule)
    return value


def is_true(node: Node) -> bool:
    """Return True; that is the only value, so that nothing can be switched off by mistake."""
    found = _scalar(node, "true")
    if not found.is_plain or found.text != "true":
        raise found.fault("must be true, or not be there")
    return True


def duration(node: Node, most_seconds: int) -> int:
    """Return microseconds of a text such as `90s`, `15m`, `12h` or `30d`."""
    rule = "must be a duration like 90s, 15m, 12h or 30d"
    found = _scalar(node, "a duration")
    match = _DURATION.fullmatch(found.text)
    if match is None:
        raise found.fault(rule)
    seconds = int(match[1]) * _SECONDS[match[2]]
    if not 1 <= seconds <= most_seconds:
        raise found.fault(f"must be from 1s to {most_seconds}s")
    return seconds * _MICROS


def items(node: Node, least: int, most: int) -> Sequence[Node]:
    """Return the items of a list."""
    if not isinstance(node, Sequenced):
        raise node.fault("must be a list")
    if not least <= len(node.items) <= most:
        raise node.fault(f"must have {least} to {most} items, not {len(node.items)}")
    return node.items


def checked(node: Node, check: Callable[[str, str], _Value]) -> _Value:
    """Return what a check of the core makes of a text."""
    found = _scalar(node, "a text")
    try:
        return check(found.text, "it")
    except InvalidRequestError as exc:
        raise DocumentError(
            *(Fault(found.place, found.path, violation.rule) for violation in exc.violations)
        ) from None


def _scalar(node: Node, what: str) -> Scalar:
    if not isinstance(node, Scalar):
        raise node.fault(f"must be {what}")
    return node
