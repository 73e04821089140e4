"""What is remembered of pending approvals, and what a DENY does when they cannot be stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from licet.app.administration import AdminChange
from licet.app.ports import AT_ONCE, Applied, Deadline, NotAtOnceError
from licet.domain.approval import MAX_PENDING, Approval, Needed
from licet.domain.audit_event import AuditEvent
from licet.domain.canonical_json import JsonValue
from licet.domain.capability_set import OneUse
from licet.domain.errors import (
    ConflictError,
    DeadlineError,
    HistoryUnconfirmedError,
    LicetError,
    OutcomeUnknownError,
    UnavailableError,
)
from licet.domain.names import Action, CapabilityId, Resource
from licet.writer.approvals import REMEMBERED, THREADS, ApprovalWriter
from tests.unit.builders import CALLER, HOLDER, PATIENT, held, identifier
from tests.unit.policies import question

ASKED = question()
NEEDED = Needed(HOLDER, Action("read"), Resource("doc:a/b"), ("sre",), ("p",), 3, identifier(1), 7)
ONE = OneUse(held(2, "doc:a/b"), identifier(1), frozenset({"sre"}))


class Changes:
    """See `app.administration.AdminChanges`: makes what it is told, or fails."""

    def __init__(self) -> None:
        self.made: list[AdminChange] = []
        self.fails: LicetError | None = None
        self.status = "done"
        self.reads = 0
        self.pending = 0
        self.wait = Event()
        self.wait.set()

    def commit(self, change: AdminChange, _: Deadline) -> Applied:
        if self.fails is not None:
            raise self.fails
        self.made.append(change)
        if self.status != "done":
            return Applied(self.status, 1, {})
        return Applied("done", 1, outcome(f"a{len(self.made)}"))

    def make(self, change: AdminChange, _: Callable[[str], None], deadline: Deadline) -> Applied:
        return self.commit(change, deadline)

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        raise AssertionError(event, deadline)

    def standing(self, _: Mapping[str, JsonValue], __: Deadline) -> tuple[Approval | None, int]:
        self.reads += 1
        assert self.wait.wait(10)
        return None, self.pending


class Ids:
    """See `ports.Ids`."""

    def __init__(self) -> None:
        self._last = 100

    def capability_id(self) -> CapabilityId:
        self._last += 1
        return identifier(self._last)

    def request_id(self) -> str:
        self._last += 1
        return f"r{self._last}"


def outcome(approval_id: str) -> dict[str, Any]:
    texts = dict.fromkeys(
        ["purpose", "session_id", "parent_id", "resolved_by", "comment", "capability_id"], ""
    )
    return texts | {
        "id": approval_id,
        "principal": HOLDER,
        "action": "read",
        "resource": "doc:a/b",
        "roles": ["sre"],
        "policies": ["p"],
        "policy_set": 3,
        "asked_by": CALLER,
        "asked_at": 1,
        "expires_at": 2,
        "state": "PENDING",
        "resolved_at": None,
        "used_at": None,
        "consents": [],
    }


class World:
    """A writer with a clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.changes = Changes()
        self.writer = ApprovalWriter(self.changes, self.changes, Ids(), lambda: self.now)

    def ask(self, needed: Needed = NEEDED, deadline: Deadline = PATIENT) -> str:
        return self.writer.pending(needed, ASKED, CALLER, deadline).approval_id


def test_asking_again_costs_nothing_and_is_at_once() -> None:
    world = World()
    with pytest.raises(NotAtOnceError):
        world.ask(deadline=AT_ONCE)
    assert world.ask() == "a1"
    assert world.ask() == world.ask(deadline=AT_ONCE) == "a1"
    assert (world.changes.reads, len(world.changes.made)) == (1, 1)


def test_who_waits_for_no_time_stops_nobody_else() -> None:
    world = World()
    world.changes.fails = DeadlineError("too late")
    assert world.ask(deadline=Deadline.after(0.01, lambda: world.now)) == ""
    world.changes.fails = None
    assert world.ask() == "a1"


@pytest.mark.parametrize(
    "other",
    [
        NEEDED._replace(revision=8),
        NEEDED._replace(roles=("security",)),
        NEEDED._replace(resource=Resource("doc:a/c")),
        NEEDED._replace(action=Action("write")),
    ],
    ids=["revision", "roles", "resource", "action"],
)
def test_what_is_remembered_is_of_one_question_at_one_revision(other: Needed) -> None:
    world = World()
    assert world.ask() == "a1"
    assert world.ask(other) == "a2"


def test_memory_is_short_and_small() -> None:
    world = World()
    world.ask()
    world.now += 61
    assert world.ask() == "a2"
    for number in range(REMEMBERED):
        world.ask(NEEDED._replace(resource=Resource(f"doc:{number}")))
    made = len(world.changes.made)
    world.ask()
    assert len(world.changes.made) == made + 1


def test_no_more_are_asked_for_than_a_principal_may_have() -> None:
    world = World()
    world.changes.pending = MAX_PENDING
    assert world.ask() == world.ask() == ""
    assert (world.changes.reads, world.changes.made) == (1, [])
    world.changes.pending = MAX_PENDING - 1
    assert world.ask() == ""
    world.now += 5.1
    assert world.ask() == "a1"
    world.changes.status = "TOO_MANY_APPROVALS"
    assert world.ask(NEEDED._replace(revision=8)) == ""


def test_after_a_failure_nobody_waits_for_a_second() -> None:
    world = World()
    world.changes.fails = UnavailableError("gone")
    assert world.ask() == ""
    world.changes.fails = None
    assert world.ask(NEEDED._replace(revision=8)) == ""
    assert world.ask(deadline=AT_ONCE) == ""
    assert world.changes.reads == 1
    world.now += 1.1
    assert world.ask() == "a1"


def test_a_few_threads_wait_and_no_more() -> None:
    world = World()
    world.changes.wait.clear()
    with ThreadPoolExecutor(THREADS) as threads:
        waiting = [threads.submit(world.ask, NEEDED._replace(revision=n)) for n in range(THREADS)]
        while world.changes.reads < THREADS:
            pass
        assert world.ask() == ""
        world.changes.wait.set()
        assert all(one.result(10) for one in waiting)
    assert world.ask() != ""


def test_a_use_is_told_by_its_status() -> None:
    world = World()
    assert world.writer.use(ONE, ASKED, CALLER, PATIENT)
    world.changes.status = "APPROVAL_NOT_USABLE"
    assert not world.writer.use(ONE, ASKED, CALLER, PATIENT)
    first, second = world.changes.made
    assert first.request_id != second.request_id
    assert first.digest != second.digest
    assert first.details["not_approved_by"] == CALLER


@pytest.mark.parametrize(
    "error", [OutcomeUnknownError, ConflictError, DeadlineError, HistoryUnconfirmedError]
)
def test_a_use_that_is_not_known_is_unavailable(error: type[LicetError]) -> None:
    world = World()
    world.changes.fails = error("x")
    with pytest.raises(UnavailableError):
        world.writer.use(ONE, ASKED, CALLER, PATIENT)
