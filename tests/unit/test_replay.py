"""Replaying page by page: what is read, what is remembered, and when others get on."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

import pytest
from typing_extensions import override

from licet.app.audit_ports import AuditFilter, AuditPosition, AuditWalk
from licet.app.policy_ports import StoredPolicySet
from licet.app.ports import Deadline
from licet.app.replay import MAX_WINDOW, ReplayCommand, ReplayPolicies, Step
from licet.domain.audit_event import RecordedEvent, Result, event_id, event_id_text
from licet.domain.caller import Identity, Scope
from licet.domain.canonical_json import JsonObject
from licet.domain.capability import Capability
from licet.domain.errors import ForbiddenError, InvalidRequestError
from licet.domain.instant import Instant
from licet.domain.names import CapabilityId
from licet.policies.reading import Documents
from licet.server.replays import Breath
from tests.unit.builders import CALLER, NOW, PATIENT, StillClock, admin, capability, event, terms
from tests.unit.policies import document
from tests.unit.stores import Stored

SECOND = 1_000_000
MFA = "name: mfa, require: {mfa: true}"
DENY = "name: stop, deny: nothing goes"
WIDE = "name: wide, when: 'capability.resource == \"doc:**\"', deny: too wide"
ONE = capability(1, terms(resource="doc:**"))
HELD = Stored([ONE])


class Counting(Stored):
    """Counts what is read."""

    found = 0

    @override
    def find(self, capability_id: CapabilityId, _: Deadline) -> Capability | None:
        self.found += 1
        return super().find(capability_id, _)


class Log:
    """An audit log whose walks end short after so many events, newest first."""

    def __init__(self, events: Sequence[RecordedEvent], short: int = 0) -> None:
        self.events = events
        self.short = short
        self.walks: list[tuple[AuditFilter, int]] = []

    def page(
        self, wanted: AuditFilter, before: AuditPosition | None, limit: int, _deadline: Deadline
    ) -> AuditWalk:
        self.walks.append((wanted, limit))
        start = 0 if before is None else before.pace or 0
        if before is not None and before.pace is None:
            ids = [recorded.event_id for recorded in self.events]
            start = ids.index(before.event_id) + 1
        count = min(limit, self.short or limit)
        found = self.events[start : start + count]
        at = start + len(found)
        if count == limit or at == len(self.events):
            return AuditWalk(found, None)
        return AuditWalk(found, AuditPosition(found[-1].event.occurred_at, found[-1].event_id, at))


class Versions:
    """Stored policy sets."""

    def __init__(self, sources: dict[int, str] | None = None) -> None:
        self.sources = sources or {}
        self.put_at = Instant(NOW - 3600 * SECOND)
        self.asked: list[int | None] = []

    def find(self, version: int | None, _deadline: Deadline) -> StoredPolicySet | None:
        self.asked.append(version)
        number = max(self.sources, default=0) if version is None else version
        source = self.sources.get(number)
        return (
            None
            if source is None
            else StoredPolicySet(number, source, "", None, self.put_at, CALLER, 1)
        )

    def page(self, *_: object) -> Sequence[StoredPolicySet]:
        raise NotImplementedError


def decisions(count: int, **fields: Any) -> list[RecordedEvent]:  # noqa: ANN401 - any field
    """Return decisions of an agent, a second apart, newest first."""
    return [
        RecordedEvent(
            event_id_text(event_id(1, count - n)),
            event(occurred_at=Instant(NOW - (n + 1) * SECOND), **fields),
        )
        for n in range(count)
    ]


def command(*policies: str, **fields: Any) -> ReplayCommand:  # noqa: ANN401 - any field
    """Return a command about these policies, of the last day, with everything listed."""
    plain = ReplayCommand(document(*policies), None, None, None, 10_000, 10_000, lists_unknown=True)
    return plain._replace(**fields)


def replayed(
    log: Log,
    asked: ReplayCommand,
    versions: Versions | None = None,
    held: Stored | None = None,
    breaths: list[None] | None = None,
) -> list[Step]:
    use = ReplayPolicies(log, versions or Versions(), Documents(), held or HELD, StillClock())
    taken = [] if breaths is None else breaths
    return list(use(asked, admin(), PATIENT, lambda: taken.append(None)))


@pytest.mark.parametrize("short", [0, 1, 499])
def test_every_decision_is_looked_at_once_however_pages_end(short: int) -> None:
    log = Log(decisions(1001), short)

    steps = replayed(log, command(DENY))

    listed = [flip.event.event_id for step in steps for flip in step.flips]
    assert listed == [recorded.event_id for recorded in log.events]
    assert steps[-1].counts.now_denied == 1001
    assert [step.is_last for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1].is_complete
    reached = [step.reached for step in steps]
    assert reached == sorted(reached, reverse=True)
    assert reached[-1] == steps[-1].since


def test_only_the_decisions_of_the_window_are_asked_for() -> None:
    log = Log([])

    [step] = replayed(log, command(until=Instant(NOW + 5)))

    wanted, limit = log.walks[0]
    assert (wanted.event_types, wanted.since, wanted.until) == (
        ("decision",),
        NOW - 86_400 * SECOND,
        NOW,
    )
    assert (limit, step.counts.looked_at, step.is_complete) == (500, 0, True)


def test_no_more_are_looked_at_than_were_wanted() -> None:
    log = Log(decisions(700))

    steps = replayed(log, command(DENY, at_most=600, listed=10))

    last = steps[-1]
    assert [limit for _, limit in log.walks] == [500, 100]
    assert (last.counts.looked_at, last.counts.unlisted, last.is_complete) == (600, 590, False)
    assert sum(len(step.flips) for step in steps) == 10
    assert last.reached == log.events[599].event.occurred_at


def test_others_get_on_every_twenty_decisions() -> None:
    breaths: list[None] = []

    replayed(Log(decisions(100)), command(DENY), breaths=breaths)

    assert len(breaths) == 5


def test_a_rest_is_as_long_as_the_work_but_never_long() -> None:
    for work, least, most in ((0.002, 0.002, 0.5), (0.3, 0.004, 0.25)):
        breath = Breath()
        end = monotonic() + work
        while monotonic() < end:
            pass
        begin = monotonic()
        breath()
        assert least * 0.9 <= monotonic() - begin < most


def test_sets_and_capabilities_are_read_once() -> None:
    metadata = JsonObject('{"policy_set": 3}')
    versions, held = Versions({3: document(MFA)}), Counting([ONE])

    steps = replayed(Log(decisions(5, metadata=metadata)), command(MFA, WIDE), versions, held)

    assert versions.asked == [3]
    assert held.found == 1
    assert steps[-1].counts.now_denied == 5


def test_a_set_that_was_put_after_the_decision_is_another_of_that_number() -> None:
    log = Log(decisions(3, metadata=JsonObject('{"policy_set": 3}')))
    versions = Versions({3: document(MFA)})
    versions.put_at = log.events[1].event.occurred_at

    last = replayed(log, command(MFA), versions)[-1]

    assert (last.counts.same, last.counts.not_known) == (2, 1)


@pytest.mark.parametrize("sources", [{}, {3: "version: 99"}])
def test_a_set_that_cannot_be_read_tells_nothing(sources: dict[int, str]) -> None:
    metadata = JsonObject('{"policy_set": 3}')

    steps = replayed(Log(decisions(2, metadata=metadata)), command(MFA), Versions(sources))

    assert (steps[-1].counts.not_known, steps[-1].counts.needs) == (2, {"context.mfa": 2})


def test_a_capability_that_is_not_stored_is_not_guessed() -> None:
    steps = replayed(Log(decisions(1)), command(WIDE), held=Stored([]))

    assert steps[-1].counts.needs == {"capability": 1}


def test_many_sets_and_needs_do_not_pile_up() -> None:
    events = [
        RecordedEvent(
            one.event_id, one.event._replace(metadata=JsonObject(f'{{"policy_set": {n}}}'))
        )
        for n, one in enumerate(decisions(40), 1)
    ]
    versions = Versions(dict.fromkeys(range(1, 41), document(DENY)))
    many = [f"name: p{n}, when: context.m{n} == 1, deny: x" for n in range(150)]

    steps = replayed(Log(events), command(*many), versions)

    assert versions.asked == list(range(1, 41))
    needs = steps[-1].counts.needs
    assert len(needs) == 101
    assert needs["others"] == 50 * 40


def test_without_a_document_it_is_the_set_that_holds() -> None:
    log = Log(decisions(2))

    assert (
        replayed(log, command(source=""), Versions({2: document(DENY)}))[-1].counts.now_denied == 2
    )
    assert replayed(log, command(source=""))[-1].counts.same == 2


def test_a_denial_for_want_of_a_capability_stays() -> None:
    log = Log(decisions(3, result=Result.DENY, reason="NO_CAPABILITY", capability_id=""))

    assert replayed(log, command())[-1].counts.same == 3


@pytest.mark.parametrize(
    ("since", "until"),
    [(NOW, None), (NOW - 5, NOW - 5), (NOW - MAX_WINDOW - 1, None), (NOW + 5, NOW + 9)],
)
def test_a_window_has_two_ends_and_a_bound(since: int, until: int | None) -> None:
    asked = command(since=Instant(since), until=None if until is None else Instant(until))

    with pytest.raises(InvalidRequestError, match="from must be"):
        replayed(Log([]), asked)


def test_the_longest_window_is_allowed() -> None:
    assert replayed(Log([]), command(since=Instant(NOW - MAX_WINDOW)))[-1].is_complete


def test_who_may_not_read_the_log_sees_nothing_of_it() -> None:
    log = Log(decisions(1))
    use = ReplayPolicies(log, Versions(), Documents(), HELD, StillClock())

    with pytest.raises(ForbiddenError, match="audit"):
        next(use(command(DENY), Identity.of(CALLER, {Scope.POLICY}), PATIENT, lambda: None))
    assert log.walks == []
