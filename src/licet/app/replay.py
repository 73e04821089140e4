"""Replay: what a policy set would have said of the decisions on record; nothing is stored.

It reads the audit log in pages, newest first, and is bounded by a window and by a number of
decisions. Whoever calls it takes a breath between a few decisions, so that others get on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from licet.app.audit_ports import AuditEvents, AuditFilter, AuditPosition
from licet.app.policy_ports import PolicySetStore, ReadDocuments
from licet.app.ports import Capabilities, Clock, Deadline
from licet.domain.audit_event import AuditEvent, EventType, RecordedEvent, Result
from licet.domain.caller import SCOPE_MISSING, Identity, Scope
from licet.domain.canonical_json import EMPTY, JsonObject
from licet.domain.capability_set import ALWAYS, NEVER, HeldCapability
from licet.domain.decision import Reason, Request
from licet.domain.document import DocumentError
from licet.domain.errors import ForbiddenError, InvalidRequestError, Violation
from licet.domain.instant import Instant
from licet.domain.names import Action, CapabilityId, Principal, Resource
from licet.domain.policy_facts import NOT_RECORDED
from licet.domain.policy_replay import Outcome, Past, Verdict, needs_capability, replay
from licet.domain.policy_set import PolicySet

MAX_WINDOW: Final = 31 * 86_400 * 1_000_000
"""The longest window, in microseconds."""
DEFAULT_WINDOW: Final = 86_400 * 1_000_000
MAX_DECISIONS: Final = 10_000_000
_PAGE: Final = 500
_BREATH: Final = 20
"""After so many decisions others get on: some hundred microseconds."""
_MAX_VERSIONS: Final = 16
_MAX_CAPABILITIES: Final = 10_000
_MAX_NEEDS: Final = 100
_OTHERS: Final = "others"


class ReplayCommand(NamedTuple):
    """What to replay, and on what.

    Attributes:
        source: the document; empty: the one that holds.
        since: the first instant; None: a day before `until`.
        until: the instant after the last; None: now.
        principal: whose decisions; None: everybody's.
        at_most: look at so many decisions.
        listed: list so many; the others are only counted.
        lists_unknown: list those, too, of which it is not known.
    """

    source: str
    since: Instant | None
    until: Instant | None
    principal: Principal | None
    at_most: int
    listed: int
    lists_unknown: bool


class Flip(NamedTuple):
    """A decision that would come out otherwise, or of which that is not known."""

    event: RecordedEvent
    verdict: Verdict


@dataclass
class Counts:
    """How many decisions. Of one replay, by its own thread.

    Attributes:
        looked_at: all of them.
        same: would come out as they did, those counted that no capability allowed.
        now_denied: ALLOW, and would be DENY.
        now_allowed: DENY, and would be ALLOW.
        not_known: of which it is not known.
        unlisted: not listed, because there are too many.
        needs: of those not known, what would have to be known of how many.
    """

    looked_at: int = 0
    same: int = 0
    now_denied: int = 0
    now_allowed: int = 0
    not_known: int = 0
    unlisted: int = 0
    needs: dict[str, int] = field(default_factory=dict)


class Step(NamedTuple):
    """How far a replay has come.

    Attributes:
        flips: that were found since the step before.
        counts: of all steps so far; it goes on counting.
        since, until: the window.
        reached: back to where the log was looked at.
        is_last: nothing follows.
        is_complete: the whole window was looked at.
    """

    flips: Sequence[Flip]
    counts: Counts
    since: Instant
    until: Instant
    reached: Instant
    is_last: bool
    is_complete: bool


class ReplayPolicies:
    """See the module."""

    def __init__(
        self,
        events: AuditEvents,
        sets: PolicySetStore,
        documents: ReadDocuments,
        capabilities: Capabilities,
        clock: Clock,
    ) -> None:
        """Compose the use case."""
        self._events = events
        self._sets = sets
        self._documents = documents
        self._capabilities = capabilities
        self._clock = clock

    def __call__(
        self,
        command: ReplayCommand,
        caller: Identity,
        deadline: Deadline,
        breathe: Callable[[], None],
    ) -> Iterator[Step]:
        """Replay decisions, newest first; a step for each page, and the last one says so.

        `breathe` is called between a few decisions.

        Raises:
            ForbiddenError: the caller may not read the audit log.
            InvalidRequestError: the document or the window cannot be used.
            UnavailableError, DeadlineError: the log cannot be read, or not in time.
        """
        if not caller.may(Scope.AUDIT):
            raise ForbiddenError(SCOPE_MISSING, "this needs the scope audit, too")
        since, until = _window(command, self._clock.now())
        held = _Versions(self._sets, self._documents)
        draft = self._draft(command.source, deadline)
        run = _Run(draft, held, _Capabilities(self._capabilities), command, deadline, breathe)
        wanted = AuditFilter(
            event_types=(EventType.DECISION,),
            principal=command.principal,
            since=since,
            until=until,
        )
        reached, before, counts = until, None, run.counts
        while True:
            room = min(_PAGE, command.at_most - counts.looked_at)
            if not room:
                yield Step((), counts, since, until, reached, is_last=True, is_complete=False)
                return
            found, rest = self._events.page(wanted, before, room, deadline)
            flips = run.replayed(found)
            if rest is None and len(found) < room:
                yield Step(flips, counts, since, until, since, is_last=True, is_complete=True)
                return
            if rest is None:
                last = found[-1]
                rest = AuditPosition(last.event.occurred_at, last.event_id)
            before, reached = rest, max(since, min(reached, rest.occurred_at))
            yield Step(flips, counts, since, until, reached, is_last=False, is_complete=False)

    def _draft(self, source: str, deadline: Deadline) -> PolicySet:
        if not source:
            stored = self._sets.find(None, deadline)
            # Without a set nothing is denied.
            source = "version: 1" if stored is None else stored.source
        try:
            found = self._documents.policies(source)
        except DocumentError as exc:
            faults = (Violation("document", fault.describe()) for fault in exc.faults)
            raise InvalidRequestError(*faults) from None
        return PolicySet(found.policies)


class _Run:
    """One replay: what was counted so far."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it looks at
        self,
        draft: PolicySet,
        held: _Versions,
        capabilities: _Capabilities,
        command: ReplayCommand,
        deadline: Deadline,
        breathe: Callable[[], None],
    ) -> None:
        self._draft = draft
        self._held = held
        self._capabilities = capabilities
        self._lists_unknown = command.lists_unknown
        self._room = command.listed
        self._deadline = deadline
        self._breathe = breathe
        self.counts = Counts()

    def replayed(self, events: Sequence[RecordedEvent]) -> list[Flip]:
        """Return those of the events that are to be listed."""
        flips = []
        for number, recorded in enumerate(events, 1):
            past = _past(recorded.event)
            verdict = self._verdict(past)
            if self._count(past, verdict):
                flips.append(Flip(recorded, verdict))
            if number % _BREATH == 0:
                self._breathe()
        return flips

    def _verdict(self, past: Past) -> Verdict:
        capability = None
        if needs_capability(self._draft, past):
            capability = self._capabilities.of(past.capability_id, self._deadline)
        held = None
        if past.policy_set:
            held = self._held.of(past.policy_set, past.now, self._deadline)
        return replay(self._draft, past, held, capability)

    def _count(self, past: Past, verdict: Verdict) -> bool:
        """Count a decision; say whether it is to be listed."""
        counts = self.counts
        counts.looked_at += 1
        if verdict.outcome is Outcome.NOT_KNOWN:
            counts.not_known += 1
            self._count_needs(verdict.needs)
            if not self._lists_unknown:
                return False
        elif past.allowed == (verdict.outcome is Outcome.ALLOW):
            counts.same += 1
            return False
        elif past.allowed:
            counts.now_denied += 1
        else:
            counts.now_allowed += 1
        if not self._room:
            counts.unlisted += 1
            return False
        self._room -= 1
        return True

    def _count_needs(self, needs: Sequence[str]) -> None:
        counted = self.counts.needs
        # What conditions name is not ours to bound.
        for need in needs:
            key = need if need in counted or len(counted) < _MAX_NEEDS else _OTHERS
            counted[key] = counted.get(key, 0) + 1


class _Versions:
    """The policy sets that held, compiled; those that this release cannot read are not known."""

    def __init__(self, sets: PolicySetStore, documents: ReadDocuments) -> None:
        self._sets = sets
        self._documents = documents
        self._known: dict[int, tuple[Instant, PolicySet] | None] = {}

    def of(self, version: int, at: Instant, deadline: Deadline) -> PolicySet | None:
        """Return the set that held at an instant under a version; None: that is not known."""
        if version not in self._known:
            if len(self._known) == _MAX_VERSIONS:
                # The first one is the latest, and the log is read backwards.
                del self._known[next(iter(self._known))]
            self._known[version] = self._compiled(version, deadline)
        known = self._known[version]
        # One that was put later has the number of another, that a restore of the database lost.
        return None if known is None or known[0] > at else known[1]

    def _compiled(self, version: int, deadline: Deadline) -> tuple[Instant, PolicySet] | None:
        stored = self._sets.find(version, deadline)
        if stored is None:
            return None
        try:
            found = self._documents.policies(stored.source)
        except DocumentError:
            return None
        return stored.put_at, PolicySet(found.policies, version)


class _Capabilities:
    """Capabilities by id: what they allow never changes."""

    def __init__(self, stored: Capabilities) -> None:
        self._stored = stored
        self._known: dict[str, HeldCapability | None] = {}

    def of(self, capability_id: str, deadline: Deadline) -> HeldCapability | None:
        if capability_id not in self._known:
            if len(self._known) == _MAX_CAPABILITIES:
                del self._known[next(iter(self._known))]
            self._known[capability_id] = self._found(CapabilityId(capability_id), deadline)
        return self._known[capability_id]

    def _found(self, capability_id: CapabilityId, deadline: Deadline) -> HeldCapability | None:
        found = self._stored.find(capability_id, deadline)
        if found is not None and found.approved_roles and found.parent_id is not None:
            # Policies see the parent of one for one use: see `domain/approval.py`.
            found = self._stored.find(found.parent_id, deadline)
        if found is None:
            return None
        terms = found.terms
        return HeldCapability(
            capability_id,
            terms.resource,
            terms.actions,
            ALWAYS if terms.not_before is None else terms.not_before,
            NEVER if terms.expires_at is None else terms.expires_at,
        )


def _window(command: ReplayCommand, now: Instant) -> tuple[Instant, Instant]:
    # What is recorded while this runs is left out.
    until = now if command.until is None else min(command.until, now)
    since = Instant(max(until - DEFAULT_WINDOW, 0)) if command.since is None else command.since
    if since >= until:
        raise InvalidRequestError.of("from", "must be before to, and in the past")
    if until - since > MAX_WINDOW:
        raise InvalidRequestError.of("from", "must be at most 31 days before to")
    return since, until


def _past(event: AuditEvent) -> Past:
    request = Request(
        Principal(event.principal),
        Action(event.action),
        Resource(event.resource),
        NOT_RECORDED,
        session_id=event.session_id,
    )
    allowed = event.result is Result.ALLOW
    return Past(
        request,
        event.occurred_at,
        allowed,
        Reason.GRANTED if allowed else event.reason,
        event.policy_id,
        event.capability_id,
        _version(event.metadata),
    )


def _version(metadata: JsonObject) -> int:
    if metadata == EMPTY:
        return 0
    version = json.loads(metadata).get("policy_set", 0)
    return version if isinstance(version, int) else 0
