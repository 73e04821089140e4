"""What policies see of a request, and what conditions call it.

Worked out when it is asked for, because most policies ask for little.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from licet.domain.canonical_json import JsonObject
from licet.domain.capability_set import HeldCapability
from licet.domain.instant import LATEST, Instant, from_datetime, to_datetime

if TYPE_CHECKING:  # a decision reads conditions, and conditions read this
    from licet.domain.decision import Request

NO_ROLES: Final = frozenset[str]()
_SECOND: Final = 1_000_000
_NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)
_MAX_SECONDS: Final = LATEST // _SECOND
NOT_RECORDED: Final = JsonObject("")
"""The context of a request of which it is not known."""


_SHORT: Final = 1024
"""How many characters a context has at most that is remembered as parsed."""
_REMEMBERED: Final = 1024


class NotRecordedError(Exception):
    """A fact was asked for that is not known."""


class Facts:
    """One request, with the capability that would allow it and the time.

    Attributes:
        now: the latest that the present instant can be.
        earliest: the earliest.
        approved: the roles that approved the request.
    """

    __slots__ = ("_context", "approved", "capability", "earliest", "now", "request")

    def __init__(
        self,
        request: Request,
        capability: HeldCapability,
        now: Instant,
        earliest: Instant,
        approved: frozenset[str] = NO_ROLES,
    ) -> None:
        """Take the facts."""
        self.request = request
        self.capability = capability
        self.now = now
        self.earliest = earliest
        self.approved = approved
        self._context: Mapping[str, Any] | None = None

    @property
    def context(self) -> Mapping[str, Any]:
        """The request's context, read when it is needed first. Raises NotRecordedError."""
        context = self._context
        if context is None:
            if self.request.context is NOT_RECORDED:
                raise NotRecordedError
            context = self._context = _parsed(self.request.context)
        return context

    def number(self, name: str) -> float | None:
        """Return a number of the context; None: it has none of that name."""
        value = self.context.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value

    def instant(self, name: str) -> Instant | None:
        """Return an instant of the context: seconds since 1970, or text as in RFC 3339."""
        seconds = self.number(name)
        if seconds is not None:
            if not math.isfinite(seconds) or not 0 <= seconds <= _MAX_SECONDS:
                return None
            return Instant(int(seconds * _SECOND))
        text = self.context.get(name)
        if not isinstance(text, str):
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        return None if moment.tzinfo is None else from_datetime(moment)


def _parsed(context: JsonObject) -> Mapping[str, Any]:
    if len(context) <= _SHORT:
        return _remembered(context)
    found: Mapping[str, Any] = json.loads(context)
    return found


# Of a session, one request after the other has the same. Nobody changes what is returned.
@lru_cache(_REMEMBERED)
def _remembered(context: JsonObject) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(context)
    return found


class Kind(Enum):
    """The type of a variable."""

    TEXT = "string"
    TEXTS = "list(string)"
    TIME = "timestamp"
    ANYTHING = "map(string, dyn)"


class Variable(NamedTuple):
    """What a condition may name."""

    kind: Kind
    of: Callable[[Facts], object]


def _path(facts: Facts) -> str:
    return facts.request.resource.partition(":")[2]


def _expiry(facts: Facts) -> datetime:
    expires_at = facts.capability.expires_at
    return _NEVER if expires_at >= from_datetime(_NEVER) else to_datetime(expires_at)


VARIABLES: Final[Mapping[str, Variable]] = {
    "principal": Variable(Kind.TEXT, lambda f: f.request.principal),
    "principal.type": Variable(Kind.TEXT, lambda f: f.request.principal.partition(":")[0]),
    "principal.id": Variable(Kind.TEXT, lambda f: f.request.principal.partition(":")[2]),
    "action": Variable(Kind.TEXT, lambda f: f.request.action),
    "resource": Variable(Kind.TEXT, lambda f: f.request.resource),
    "resource.type": Variable(Kind.TEXT, lambda f: f.request.resource.partition(":")[0]),
    "resource.path": Variable(Kind.TEXT, _path),
    "resource.segments": Variable(Kind.TEXTS, lambda f: _path(f).split("/")),
    "session_id": Variable(Kind.TEXT, lambda f: f.request.session_id),
    "context": Variable(Kind.ANYTHING, lambda f: f.context),
    "capability.id": Variable(Kind.TEXT, lambda f: f.capability.id),
    "capability.resource": Variable(Kind.TEXT, lambda f: f.capability.resource),
    "capability.actions": Variable(Kind.TEXTS, lambda f: list(f.capability.actions)),
    "capability.expires_at": Variable(Kind.TIME, _expiry),
    "now": Variable(Kind.TIME, lambda f: to_datetime(f.now)),
}
"""By name; `capability.expires_at` of one that never ends is the last day of the year 9999."""
