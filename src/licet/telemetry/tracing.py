"""Trace context: what a caller's `traceparent` says, and what makes spans.

By the W3C's Trace Context. OpenTelemetry is in `otlp.py`, which nobody imports who wants no spans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol, TypeAlias

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_FIRST: Final = "00"
"""The version that has nothing after its flags."""
_NEVER: Final = "ff"
"""What is no version."""
_SAMPLED: Final = 0x01

Attributes: TypeAlias = Mapping[str, str | int]
"""What is said of a span, by OpenTelemetry's names."""


class Parent(NamedTuple):
    """The span of a caller, as its `traceparent` names it."""

    trace_id: int
    span_id: int
    is_sampled: bool


def parent_of(traceparent: str) -> Parent | None:
    """Read a `traceparent`; None: it is malformed, and is as if there was none."""
    found = _FORM.fullmatch(traceparent)
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    trace_id, span_id = int(trace, 16), int(span, 16)
    if version == _NEVER or (version == _FIRST and more) or not trace_id or not span_id:
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


class Span(Protocol):
    """A span that has begun."""

    def end(self, attributes: Attributes, *, is_error: bool) -> None:
        """End it, and say that of it. It waits for nothing."""
        ...


class Tracer(Protocol):
    """Begins spans, and sends those that have ended."""

    @property
    def sent(self) -> int:
        """How many were sent."""
        ...

    @property
    def lost(self) -> int:
        """How many were not, and never will be."""
        ...

    def start(self, name: str, parent: Parent | None, attributes: Attributes) -> Span:
        """Begin the span of a call to this server. It waits for nothing."""
        ...
