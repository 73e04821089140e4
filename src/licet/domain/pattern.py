"""Resource patterns.

Which resources a capability is for, and whether one pattern lies inside another.

A pattern is `type:` and segments separated by `/`. A segment is a literal, `*` (exactly one
segment, not empty), or, as the last one, `**` (one or more segments of any kind). `*` and `**`
stand alone in their segment.

Containment is decidable by one walk over both patterns; it is sound and complete because the
alphabet of segments is
unbounded: a literal never covers `*`, and nothing of fixed length covers `**`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NewType

from licet.domain.errors import InvalidRequestError
from licet.domain.names import RESOURCE_BYTES, check_segments, check_typed

ResourcePattern = NewType("ResourcePattern", str)
"""The text of a checked pattern; every resource is one too."""

ONE: Final = "*"
REST: Final = "**"

MAX_WILDCARDS: Final = 4
"""How many `*` a pattern may have: with the next limit it bounds the cost of a match, whatever was
granted."""
MAX_WILDCARD_SEGMENT: Final = 16
"""The last segment, counted from one, that may be `*`."""


def resource_pattern(text: str, field: str = "resource") -> ResourcePattern:
    """Check a resource pattern.

    Raises:
        InvalidRequestError: `field` breaks a rule.
    """
    check_typed(text, field, RESOURCE_BYTES)
    check_segments(text, field)
    if "*" not in text:
        return ResourcePattern(text)
    segments = text.partition(":")[2].split("/")
    if REST in segments[:-1]:
        raise InvalidRequestError.of(field, "must have `**` as its last segment only")
    if any("*" in segment for segment in segments if segment not in {ONE, REST}):
        raise InvalidRequestError.of(field, "must have `*` and `**` as whole segments only")
    if segments.count(ONE) > MAX_WILDCARDS or ONE in segments[MAX_WILDCARD_SEGMENT:]:
        where = f"within the first {MAX_WILDCARD_SEGMENT} segments"
        raise InvalidRequestError.of(field, f"must have at most {MAX_WILDCARDS} `*`, {where}")
    return ResourcePattern(text)


@dataclass(frozen=True, slots=True)
class Shape:
    """A pattern taken apart.

    Attributes:
        type: the resource's type.
        fixed: the segments before a final `**`; all of them without one.
        is_open: whether a final `**` follows.
    """

    type: str
    fixed: tuple[str, ...]
    is_open: bool


def shape(pattern: ResourcePattern) -> Shape:
    """Take a checked pattern apart."""
    kind, _, path = pattern.partition(":")
    segments = tuple(path.split("/"))
    if segments[-1] == REST:
        return Shape(kind, segments[:-1], is_open=True)
    return Shape(kind, segments, is_open=False)


def contains(outer: ResourcePattern, inner: ResourcePattern) -> bool:
    """Say whether every resource that `inner` matches is matched by `outer`.

    A resource is a pattern, too.
    """
    if outer == inner:
        return True
    a, b = shape(outer), shape(inner)
    if a.type != b.type:
        return False
    if a.is_open:
        if len(b.fixed) + b.is_open <= len(a.fixed):
            return False
    elif b.is_open or len(a.fixed) != len(b.fixed):
        return False
    # `b.fixed` has no fewer segments than `a.fixed` here; what `**` covers needs no comparison.
    return all(x == y or (x == ONE and y != "") for x, y in zip(a.fixed, b.fixed, strict=False))


def containment_regex(outer: ResourcePattern) -> str:
    """Return a regular expression that matches exactly the patterns inside `outer`.

    PostgreSQL and Python read it alike: it uses no more than look-ahead and classes. It starts with
    `^` and the literal beginning of the pattern, so that PostgreSQL can use an index on the text.
    """
    parts = shape(outer)
    segments = [
        r"(?!\*\*$)[^/]+" if segment == ONE else _literal(segment) for segment in parts.fixed
    ]
    if parts.is_open:
        # Not `.+`: in `fs:/`, what `fs:/**` covers after the `/` is one empty segment.
        segments.append(".*")
    return f"^{_literal(parts.type)}:" + "/".join(segments) + "$"


def _literal(text: str) -> str:
    # re.escape also escapes the space and `#`, which PostgreSQL reads as it should; a letter or
    # digit never is escaped, so no class shorthand such as \d can arise.
    return re.escape(text)
