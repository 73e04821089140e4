"""What the use cases need from the outside.

The adapters that provide it are named in `bootstrap` only.

Rules for every port: no exception but those of `domain/errors.py` leaves it, and each method says
what state the system is in when it raises. A method that may block takes a `Deadline` and is
bounded by it; given `AT_ONCE`, it does not block.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, Self, TypeAlias, TypeVar
from uuid import UUID

from licet.domain.audit_event import AuditEvent
from licet.domain.canonical_json import JsonObject
from licet.domain.capability import Capability, Terms
from licet.domain.capability_set import CapabilitySet
from licet.domain.instant import Instant
from licet.domain.names import Caller, CapabilityId, Principal
from licet.domain.pattern import ResourcePattern

_Result = TypeVar("_Result")


class Deadline:
    """How long the caller still waits.

    Read only by what may block, because reading it costs time.
    """

    __slots__ = ("_remaining",)

    def __init__(self, remaining: Callable[[], float | None]) -> None:
        """Take a function that returns the seconds left.

        Or None for a caller who set no deadline.
        """
        self._remaining = remaining

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float]) -> Self:
        """Return the deadline in so many seconds, by a clock of seconds that never steps."""
        end = clock() + seconds
        return cls(lambda: end - clock())

    def remaining(self, at_most: float) -> float:
        """Return the seconds left, never more than `at_most` and never less than 0."""
        left = self._remaining()
        return at_most if left is None else min(max(left, 0.0), at_most)


class NotAtOnceError(Exception):
    """An answer that was wanted `AT_ONCE` has to wait for something.

    Nothing has happened, and nothing was counted: the same may be asked again with a deadline. It
    is no `LicetError`, because no caller is ever told.
    """

    def __init__(self, later: Later | None = None) -> None:
        """Say how to be told when it is worth asking `AT_ONCE` again, if there is a way."""
        super().__init__()
        self.later = later


Later: TypeAlias = Callable[[Callable[[], None]], bool]
"""Has something called, once and from another thread, when what was missing is in memory or will
not come. False: it will not be called. Neither this nor what is called may block or raise."""


AT_ONCE: Final = Deadline(lambda: 0.0)
"""The deadline of a thread that must never wait. A port with this one answers from memory, or
raises `NotAtOnceError`."""


class Reading(NamedTuple):
    """What a clock says: the present instant is at most `latest`, and at least `earliest`."""

    earliest: Instant
    latest: Instant


class Clock(Protocol):
    """The database's clock, which decides what has expired."""

    def now(self) -> Instant:
        """Return the latest that the present instant can be."""
        ...

    def reading(self) -> Reading:
        """Return the bounds of the present instant."""
        ...


class Ids(Protocol):
    """Makes ids."""

    def capability_id(self) -> CapabilityId:
        """Return a fresh id, later than those before it."""
        ...

    def request_id(self) -> str:
        """Return a fresh idempotency key for a caller who sent none."""
        ...


class CapabilitySets(Protocol):
    """What principals hold, from memory or from the database."""

    def get(self, principal: Principal, deadline: Deadline) -> CapabilitySet:
        """Return what the principal holds now.

        Raises:
            UnavailableError: it can be known neither from memory nor from the database.
            DeadlineError: the deadline passed first.
            NotAtOnceError: it was `AT_ONCE`, and memory cannot tell.
        """
        ...

    def get_many(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        """Return what each principal holds, all in one snapshot of state. Raises as `get` does."""
        ...


class Grant(NamedTuple):
    """A grant that passed its checks; a delegation when it has a parent.

    `facts` go into the audit event.
    """

    request_id: str
    digest: bytes
    capability_id: CapabilityId
    terms: Terms
    parent_id: CapabilityId | None
    actor: Caller
    trace_id: str
    facts: JsonObject


class RevokeTarget(NamedTuple):
    """What to revoke: one capability by id, or all that match every field that is set."""

    capability_id: CapabilityId | None = None
    principal: Principal | None = None
    resource: ResourcePattern | None = None
    granted_by: Caller | None = None
    session_id: str | None = None


class Revoke(NamedTuple):
    """A revocation that passed its checks. `facts` go into the audit events."""

    request_id: str
    digest: bytes
    target: RevokeTarget
    reason: str
    actor: Caller
    trace_id: str
    facts: JsonObject


class Confirmation(NamedTuple):
    """How many replicas have applied a revision, and how many were fenced for it."""

    confirmed: int
    fenced: int


class Applied(NamedTuple):
    """What a mutation did.

    Attributes:
        status: `done`, `already_ended` or `already`, or the code of a refusal.
        revision: the revision that replicas must have applied.
        outcome: facts by kind of mutation; `replayed` when the same request came before.
        history: in which that revision is meant; None where there is only one.
        confirmation: of the replicas, or None when they were not waited for yet.
    """

    status: str
    revision: int
    outcome: dict[str, Any]
    history: UUID | None = None
    confirmation: Confirmation | None = None


class Granted(NamedTuple):
    """What a grant did, now or when the same request came first."""

    capability: Capability
    revision: int


class Revoked(NamedTuple):
    """What a revocation did, now or when the same request came first.

    Attributes:
        ended: how many capabilities ended.
        ids: the first 1,000 of them.
        revision: the revision of the change; of the earlier one when `already_ended`.
        confirmed: how many replicas no longer use them.
        fenced: how many replicas were shut out instead.
        already_ended: the capability named had ended before.
    """

    ended: int
    ids: tuple[CapabilityId, ...]
    revision: int
    confirmed: int
    fenced: int
    already_ended: bool


class Ended(NamedTuple, Generic[_Result]):
    """How a change ended that nobody waited for.

    Attributes:
        result: returns what it did, or raises what it failed with; called once.
        waits: whether that may block: the same request came before, and what it did has to be
            waited for, or read.
    """

    result: Callable[[], _Result]
    waits: bool


class Mutations(Protocol):
    """The only way to change authorization state.

    When a method returns, the change holds on every replica.
    """

    def granted_before(self, request_id: str, digest: bytes, deadline: Deadline) -> Granted | None:
        """Return what the grant with this request id did, or None when there was none.

        Raises as `grant` does.
        """
        ...

    def grant(self, grant: Grant, deadline: Deadline) -> Granted:
        """Grant a capability and record it in the audit log, in one transaction.

        Raises:
            PreconditionError: the parent has ended; the attempt is on record.
            InvalidRequestError: the terms have expired already; the attempt is on record.
            NotFoundError: there is no such parent; the attempt is on record.
            RequestIdReusedError: the request id was used with another digest; nothing happened.
            UnavailableError: nothing happened.
            OutcomeUnknownError: it happened whole or not at all; the same request id tells.
        """
        ...

    def begin_grant(
        self, grant: Grant, deadline: Deadline, tell: Callable[[Ended[Granted]], None]
    ) -> None:
        """Do as `grant` does without waiting for it. It does not block.

        `tell` is called once, by any thread, when the change holds, when it has failed, or when the
        deadline has passed. It must return at once: others are told by the same thread.
        """
        ...

    def revoke(self, revoke: Revoke, deadline: Deadline) -> Revoked:
        """End capabilities and their descendants and record each end, in one transaction.

        Raises:
            NotFoundError: there is no such capability; the attempt is on record.
            RequestIdReusedError: the request id was used with another digest; nothing happened.
            UnavailableError: nothing happened.
            OutcomeUnknownError: it happened whole or not at all; the same request id tells.
        """
        ...

    def begin_revoke(
        self, revoke: Revoke, deadline: Deadline, tell: Callable[[Ended[Revoked]], None]
    ) -> None:
        """Do as `revoke` does without waiting for it: see `begin_grant`."""
        ...

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """Record an attempt that the rules do not allow.

        Raises:
            UnavailableError: the attempt may not be on record.
            NotAtOnceError: it was `AT_ONCE`; the attempt is not on record.
        """
        ...


class Tree(NamedTuple):
    """The delegations around one capability."""

    ancestors: tuple[Capability, ...]
    descendants: tuple[Capability, ...]
    truncated: bool


class CapabilityFilter(NamedTuple):
    """Which capabilities to list: those that match every field that is set."""

    principal: Principal | None = None
    resource: ResourcePattern | None = None
    granted_by: Caller | None = None
    session_id: str | None = None
    parent_id: CapabilityId | None = None
    include_ended: bool = False


class WouldEnd(NamedTuple):
    """What a revocation would end at a revision."""

    ended: int
    ids: tuple[CapabilityId, ...]
    revision: int


class Capabilities(Protocol):
    """Capabilities as stored.

    Every method raises UnavailableError or DeadlineError, and changes nothing.
    """

    def find(self, capability_id: CapabilityId, deadline: Deadline) -> Capability | None:
        """Return a capability, or None when there is none with this id."""
        ...

    def tree(self, capability_id: CapabilityId, limit: int, deadline: Deadline) -> Tree:
        """Return the ancestors of a capability and at most `limit` of its descendants.

        Parents first.
        """
        ...

    def page(
        self,
        wanted: CapabilityFilter,
        after: CapabilityId | None,
        limit: int,
        now: Instant,
        deadline: Deadline,
    ) -> Sequence[Capability]:
        """Return the first `limit` capabilities after an id, in the order of ids.

        `now` tells what has expired.
        """
        ...

    def would_end(self, target: RevokeTarget, limit: int, deadline: Deadline) -> WouldEnd:
        """Return what a revocation would end, with the first `limit` ids."""
        ...


class PageTokens(Protocol):
    """Makes page tokens that a client cannot alter, nor use with another filter."""

    def seal(self, filter_digest: bytes, position: str) -> str:
        """Return the token of a position in the list that a filter selects."""
        ...

    def open(self, filter_digest: bytes, token: str) -> str:
        """Return the position.

        Raises:
            InvalidRequestError: it is not a token of ours, or belongs to another filter.
        """
        ...
