"""The fields of a record, taken one by one; every rule that is broken is noted, not only the first.

A field that is `null` is as one that is not there, and so is an empty text. A field that nobody
takes is refused: what it restricted in the old system must not get lost unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final, TypeVar

from licet.cli.importing import instants
from licet.domain import names
from licet.domain.canonical_json import (
    EMPTY,
    MAX_DEPTH,
    JsonObject,
    JsonValue,
    NotCanonicalError,
    canonical,
)
from licet.domain.errors import InvalidRequestError, Violation
from licet.domain.instant import Instant

MAX_VIOLATIONS: Final = 20
"""How many reasons are given for one record."""
_SHOWN: Final = 64
_EXACT_INTEGERS: Final = 1 << 53

_Checked = TypeVar("_Checked")


class Fields:
    """The fields of one record. Takers return a value that must not be used after a violation."""

    def __init__(self, record: Mapping[str, Any], zone: tzinfo | None) -> None:
        """Take a record, and the zone of its instants that have no offset."""
        self._rest = dict(record)
        self._zone = zone
        self.violations: list[Violation] = []

    def note(self, field: str, rule: str) -> None:
        """Note that a field breaks a rule."""
        self.violations.append(Violation(field, rule))

    def has(self, field: str) -> bool:
        """Say whether a field has a value; it is not taken."""
        value = self._rest.get(field)
        return value is not None and value != ""

    def default(self, field: str, value: str) -> None:
        """Let a field have a value that it has not."""
        self._rest[field] = value

    def text(
        self, field: str, check: Callable[[str, str], _Checked], *, required: bool = False
    ) -> _Checked | None:
        """Take a text that a rule of licet is for; None: there is none."""
        value = self._rest.pop(field, None)
        if value is None or value == "":
            if required:
                self.note(field, "is required")
            return None
        if not isinstance(value, str):
            self.note(field, "must be a text")
            return None
        return self._checked(lambda: check(value, field))

    def label(self, field: str, limit: int, *, required: bool = False) -> str:
        """Take a printable text of at most so many bytes."""
        return self.text(field, lambda t, f: names.label(t, f, limit), required=required) or ""

    def instant(self, field: str, *, required: bool = False, up: bool = False) -> Instant | None:
        """Take an instant; None: there is none."""
        value = self._rest.pop(field, None)
        if value is None or value == "":
            if required:
                self.note(field, "is required")
            return None
        return self._checked(lambda: instants.instant(value, field, self._zone, up=up))

    def flag(self, field: str) -> bool:
        """Take a bool; false if there is none."""
        value = self._rest.pop(field, None)
        if value is not None and not isinstance(value, bool):
            self.note(field, "must be true or false")
        return value is True

    def integer(self, field: str, least: int, most: int) -> int:
        """Take a whole number; the least if there is none."""
        value = self._rest.pop(field, None)
        if value is None:
            return least
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.note(field, f"must be a whole number from {least} to {most}")
            return least
        return value

    def texts(self, field: str, check: Callable[[Sequence[str], str], _Checked]) -> _Checked | None:
        """Take a list of texts that a rule of licet is for; it is required."""
        value = self._rest.pop(field, None)
        if value is None:
            self.note(field, "is required")
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.note(field, "must be a list of texts")
            return None
        return self._checked(lambda: check(value, field))

    def json_object(self, field: str) -> JsonObject:
        """Take a JSON object that licet can store; empty if there is none."""
        value = self._rest.pop(field, None)
        if value is None:
            return EMPTY
        if not isinstance(value, dict):
            self.note(field, "must be a JSON object")
            return EMPTY
        return self._checked(lambda: stored_object(value, field)) or EMPTY

    def end(self) -> None:
        """Check that nothing is left, and raise what was noted.

        Raises:
            InvalidRequestError: some rule was broken.
        """
        for field in sorted(self._rest)[:MAX_VIOLATIONS]:
            self.note(_shown(field), "is no field of this type of record")
        if self.violations:
            raise InvalidRequestError(*self.violations[:MAX_VIOLATIONS])

    def _checked(self, check: Callable[[], _Checked]) -> _Checked | None:
        try:
            return check()
        except InvalidRequestError as exc:
            self.violations.extend(exc.violations)
            return None


def stored_object(value: Mapping[str, JsonValue], field: str) -> JsonObject:
    """Check that licet can store a JSON object, exactly, and return its canonical text.

    Raises:
        InvalidRequestError: it is too large or too deep, or has a number that is none of JSON's.
    """
    try:
        text = canonical(value)
    except (NotCanonicalError, RecursionError) as exc:
        raise InvalidRequestError.of(field, str(exc) or "is nested too deeply") from None
    if len(text.encode()) > names.JSON_BYTES:
        raise InvalidRequestError.of(field, f"must have at most {names.JSON_BYTES} bytes as JSON")
    if _levels(value) > MAX_DEPTH - 1:  # it stands within the facts of an event
        raise InvalidRequestError.of(field, f"must have at most {MAX_DEPTH - 1} levels")
    if not _is_exact(value):
        raise InvalidRequestError.of(
            field, "must have whole numbers up to 2**53 only: write a larger one as text"
        )
    return text


def _levels(value: JsonValue) -> int:
    match value:
        case Mapping():
            return 1 + max(map(_levels, value.values()), default=0)
        case list():
            return 1 + max(map(_levels, value), default=0)
        case _:
            return 0


def _is_exact(value: JsonValue) -> bool:
    match value:
        case Mapping():
            return all(map(_is_exact, value.values()))
        case list():
            return all(map(_is_exact, value))
        case int():
            return abs(value) <= _EXACT_INTEGERS
        case _:
            return True


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
