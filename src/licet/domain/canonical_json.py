"""JSON objects as canonical text: the very text that PostgreSQL gives for a jsonb value.

Frozen format: audit leaves hash this text (audit.md section 4). Keys are unique and sorted by UTF-8
length, then bytes; separators are `, ` and `: `; non-ASCII stands as it is; numbers are plain
decimal without exponent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, NewType, TypeAlias

JsonObject = NewType("JsonObject", str)
"""The canonical text of a JSON object."""


class Embedded:
    """Canonical text that is to stand in another value as it is, without being parsed."""

    __slots__ = ("text",)

    def __init__(self, text: JsonObject) -> None:
        """Take the text."""
        self.text = text


JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)

EMPTY: Final = JsonObject("{}")
MAX_DEPTH: Final = 32
_INT64: Final = 1 << 63

# The C encoder of the standard library escapes exactly what PostgreSQL escapes.
_quote = json.JSONEncoder(ensure_ascii=False).encode


class NotCanonicalError(ValueError):
    """The value has no canonical text; the message says which rule it breaks."""


def canonical(value: Mapping[str, JsonValue | Embedded]) -> JsonObject:
    """Return the canonical text of an object.

    Raises:
        NotCanonicalError: it holds U+0000, a lone surrogate, a number that is not finite, an
            integer outside
            64 bits, or more than 32 levels.
    """
    return JsonObject(_object(value, 0)) if value else EMPTY


def _text(value: JsonValue, depth: int) -> str:
    if depth > MAX_DEPTH:
        message = f"must have at most {MAX_DEPTH} levels"
        raise NotCanonicalError(message)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, Mapping):
        return _object(value, depth)
    return "[" + ", ".join([_text(item, depth + 1) for item in value]) + "]"


def _object(value: Mapping[str, JsonValue | Embedded], depth: int) -> str:
    members = []
    for key in sorted(value, key=_key_order):
        member = value[key]
        text = member.text if isinstance(member, Embedded) else _text(member, depth + 1)
        members.append(f"{_string(key)}: {text}")
    return "{" + ", ".join(members) + "}"


def _key_order(key: str) -> tuple[int, bytes]:
    encoded = key.encode("utf-8", "surrogatepass")
    return len(encoded), encoded


def _string(value: str) -> str:
    if "\0" in value:
        message = "must not hold U+0000"
        raise NotCanonicalError(message)
    try:
        value.encode()
    except UnicodeEncodeError:
        message = "must be valid UTF-8"
        raise NotCanonicalError(message) from None
    return _quote(value)


def _number(value: float) -> str:
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            message = "must hold integers of 64 bits only"
            raise NotCanonicalError(message)
        return str(value)
    if not math.isfinite(value):
        message = "must hold finite numbers only"
        raise NotCanonicalError(message)
    if value == 0:
        return "0.0"  # jsonb numbers have no negative zero
    return format(Decimal(repr(value)), "f")
