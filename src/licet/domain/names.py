"""What a valid name is: principals, actions, resources, and the plain texts around them.

Invariants of every name that passed:

- It is printable (no control, format or unassigned character, no separator but the space) and in
  Unicode normalisation form C, so that two names that look the same because of invisible characters
  or of composed and decomposed letters cannot both exist. Names are compared byte for byte; letters
  of different scripts that look alike are different names.
- It has no U+0000 and no surrogate, so PostgreSQL stores it as it is.
- Each pattern below is linear: character classes without nesting.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NewType
from unicodedata import is_normalized
from uuid import UUID

from licet.domain.errors import InvalidRequestError

Principal = NewType("Principal", str)
Action = NewType("Action", str)
Resource = NewType("Resource", str)
CapabilityId = NewType("CapabilityId", str)
ApprovalId = NewType("ApprovalId", str)
EventId = NewType("EventId", str)
Caller = NewType("Caller", str)
"""An authenticated client of licet's own API, written like a principal."""

ANY_ACTION: Final = Action("*")

PRINCIPAL_BYTES: Final = 256
RESOURCE_BYTES: Final = 1024
LABEL_BYTES: Final = 128
"""The longest session, trace, correlation or request id."""
REASON_BYTES: Final = 1024
JSON_BYTES: Final = 16 * 1024
"""The largest metadata or context, as canonical JSON text."""

# The same names come again and again, and are checked once; only those that pass are remembered.
_REMEMBERED: Final = 8192

# What nearly every name is, checked in one go: printable ASCII and, for a resource, segments that
# need no second look. What does not match is checked step by step, and may be valid all the same.
_PLAIN_PRINCIPAL = re.compile(r"[a-z][a-z0-9_-]{0,31}:[ -~]{1,223}")
_PLAIN_RESOURCE = re.compile(
    r"[a-z][a-z0-9_-]{0,31}:(?:/?[ -)+-\-0-~][ -)+-.0-~]*)(?:/[ -)+-\-0-~][ -)+-.0-~]*)*"
)
_TYPED = re.compile(r"[a-z][a-z0-9_-]{0,31}:.", re.DOTALL)
_ACTION = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
_UUID_LENGTH = 36
# Printable to Python, and seen by nobody: joiners, fillers and variation selectors (Unicode's
# Default_Ignorable_Code_Point, as far as `str.isprintable` lets it pass).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


@lru_cache(_REMEMBERED)
def principal(text: str, field: str = "principal") -> Principal:
    """Check a principal.

    Raises:
        InvalidRequestError: `field` breaks a rule.
    """
    if _PLAIN_PRINCIPAL.fullmatch(text) is None:
        check_typed(text, field, PRINCIPAL_BYTES)
    return Principal(text)


def is_principal(name: str) -> bool:
    """Say whether what a change touched is a principal; names of others begin with `/`."""
    return not name.startswith("/")


@lru_cache(_REMEMBERED)
def action(text: str, field: str = "action") -> Action:
    """Check an action.

    Raises:
        InvalidRequestError: `field` breaks a rule.
    """
    if not text:
        raise InvalidRequestError.of(field, "is required")
    if _ACTION.fullmatch(text) is None:
        raise InvalidRequestError.of(field, "must be an action: [a-z][a-z0-9_.-]{0,63}")
    return Action(text)


@lru_cache(_REMEMBERED)
def resource(text: str, field: str = "resource") -> Resource:
    """Check a resource, which is no pattern.

    Raises:
        InvalidRequestError: `field` breaks a rule.
    """
    if _PLAIN_RESOURCE.fullmatch(text) is not None and len(text) <= RESOURCE_BYTES:
        return Resource(text)
    check_typed(text, field, RESOURCE_BYTES)
    if "*" in text:
        raise InvalidRequestError.of(
            field, "must be a resource without `*`; patterns belong to capabilities"
        )
    check_segments(text, field)
    return Resource(text)


def check_segments(text: str, field: str) -> None:
    """Refuse a path that a file system or a proxy would read as another one.

    With `doc:a/**` granted, `doc:a/../b` must not be allowed, nor may `fs:/etc//passwd` slip past a
    rule about `fs:/etc/passwd`: what enforces the decision may normalise the path after asking.

    Raises:
        InvalidRequestError: a segment is `.`, `..` or empty (but for the first one, as in
            `fs:/etc`).
    """
    path = text.partition(":")[2]
    if path == "/":
        return
    for position, segment in enumerate(path.split("/")):
        if segment in {".", ".."}:
            raise InvalidRequestError.of(field, "must be normalised: no `.` or `..` segment")
        if not segment and position:
            raise InvalidRequestError.of(
                field, "must be normalised: no empty segment, no final `/`"
            )


def label(text: str, field: str, limit: int = LABEL_BYTES) -> str:
    """Check an optional text: a session, trace, correlation or request id, or a reason.

    Raises:
        InvalidRequestError: it is not printable, not in form C, or has more than `limit` bytes.
    """
    if text:
        _check_text(text, field, limit)
    return text


def capability_id(text: str, field: str = "capability_id") -> CapabilityId:
    """Check a capability's id and bring it to its canonical, lower-case form.

    Raises:
        InvalidRequestError: it is not a UUID in the 8-4-4-4-12 form.
    """
    if len(text) == _UUID_LENGTH and text.isascii():
        try:
            canonical = str(UUID(text))
        except ValueError:
            canonical = ""
        if canonical == text.lower():
            return CapabilityId(canonical)
    raise InvalidRequestError.of(field, "must be a UUID, like 0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f")


def check_typed(text: str, field: str, limit: int) -> None:
    """Check that a text has the form `type:rest`, is printable and not too long.

    Raises:
        InvalidRequestError: `field` breaks a rule.
    """
    if _TYPED.match(text) is None:
        if not text:
            raise InvalidRequestError.of(field, "is required")
        raise InvalidRequestError.of(
            field, "must be `type:id` with a type of [a-z][a-z0-9_-]{0,31}"
        )
    _check_text(text, field, limit)


def _check_text(text: str, field: str, limit: int) -> None:
    if text.isascii():
        size = len(text)
    else:
        size = _utf8_length(text, field)
        if not is_normalized("NFC", text):
            raise InvalidRequestError.of(field, "must be in Unicode normalisation form C")
        if _INVISIBLE.search(text) is not None:
            raise InvalidRequestError.of(field, "must hold visible characters only")
    if size > limit:
        raise InvalidRequestError.of(field, f"must have at most {limit} bytes of UTF-8, not {size}")
    if not text.isprintable():
        raise InvalidRequestError.of(field, "must hold printable characters only")


def _utf8_length(text: str, field: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError.of(field, "must be valid UTF-8") from None
