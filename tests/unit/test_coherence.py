"""The replica's steps, one at a time, on a database that fails before or after it did something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

import pytest

from licet.app.replication import Change, Registration
from licet.domain.errors import UnavailableError
from licet.domain.names import Principal
from licet.replica.coherence import Replica
from licet.replica.lease import Lease
from tests.fakes.manual import ManualClock

ALICE = Principal("user:alice")
EPOCH, OTHER_EPOCH = UUID(int=7), UUID(int=8)
LEASE = 1.0


class Database:
    """One register, one table of changes, and a fault: before a call does anything, or after."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.revision = 5
        self.epoch = EPOCH
        self.changes: list[Change] = []
        self.entries: dict[UUID, list[int]] = {}
        self.calls: list[str] = []
        self.seconds = 0.0
        """How long each call takes."""
        self.fails_before = self.fails_after = ""
        """The call that fails, once."""
        self.cut_behind = ""
        """The call behind which the next question for changes fails."""
        self.during: dict[str, list[Change]] = {}
        """Changes that are committed when a call has done its work."""

    def commit(self, change: Change) -> None:
        self.changes.append(change)
        self.revision = change.revision

    def _begins(self, call: str) -> None:
        self.calls.append(call)
        self.clock.now += self.seconds
        if self.fails_before == call:
            self.fails_before = ""
            raise UnavailableError("it did not arrive")

    def _ends(self, call: str) -> None:
        for change in self.during.pop(call, []):
            self.commit(change)
        if self.cut_behind == call:
            self.fails_before = "changes"
        if self.fails_after == call:
            self.fails_after = ""
            raise UnavailableError("the answer was lost")

    def register(self, incarnation: UUID) -> Registration:
        self._begins("register")
        assert incarnation not in self.entries
        self.entries[incarnation] = [0, self.revision]
        registration = Registration(self.revision, self.epoch)
        self._ends("register")
        return registration

    def changes_after(self, revision: int) -> Sequence[Change]:
        self._begins("changes")
        found = [change for change in self.changes if change.revision > revision]
        self._ends("changes")
        return found

    def renew(self, incarnation: UUID, applied: int) -> UUID | None:
        self._begins("renew")
        entry = self.entries.get(incarnation)
        if entry is not None:
            entry[:] = entry[0] + 1, applied
        self._ends("renew")
        return None if entry is None else self.epoch

    def wait(self, seconds: float) -> bool:
        raise NotImplementedError

    def deregister(self, incarnation: UUID) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Everything:
    """Memory and a follower in one, to see in which order the two are told, and by which lease."""

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database = database
        self._lease = lease
        self.was_valid: list[bool] = []

    def reset(self, revision: int, epoch: UUID | None = None) -> None:
        self.was_valid.append(self._lease.is_valid())
        who = "memory" if epoch is None else "follower"
        self._database.calls.append(f"{who} reset {revision}")

    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        who = "all" if principals is None else " ".join(principals)
        self._database.calls.append(f"evict {who} {revision}")

    def append(self, changes: Sequence[Change]) -> None:
        if changes:
            self._database.calls.append(f"follower {[change.revision for change in changes]}")


class Rig:
    """A replica and what surrounds it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.lease = Lease(self.clock)
        self.database = Database(self.clock)
        self.memory = Everything(self.database, self.lease)
        self._ids = iter(UUID(int=number) for number in range(1, 100))
        self.replica = Replica(
            lambda: self.database,
            self.memory,
            self.lease,
            lambda: next(self._ids),
            LEASE,
            [self.memory],
        )

    def advance(self) -> list[str]:
        """Take one step and return what happened."""
        self.database.calls.clear()
        self.replica.advance(self.database)
        return list(self.database.calls)

    def acknowledge(self) -> list[str]:
        """Answer a notification and return what happened."""
        self.database.calls.clear()
        self.replica.acknowledge(self.database)
        return list(self.database.calls)

    def fail(self) -> None:
        with pytest.raises(UnavailableError):
            self.advance()

    def lasts_until(self) -> float:
        return self.clock.now + self.lease.remaining()


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def registered(rig: Rig) -> Rig:
    rig.advance()
    return rig


def test_it_registers_first_then_forgets_and_only_then_has_a_lease(rig: Rig) -> None:
    assert rig.advance() == ["register", "memory reset 5", "follower reset 5"]
    assert rig.memory.was_valid == [False, False]
    assert rig.replica.applied == 5
    assert rig.lease.is_valid()


def test_the_lease_counts_from_before_the_registration_was_sent(rig: Rig) -> None:
    rig.database.seconds = 0.25
    rig.advance()
    assert rig.lasts_until() == 101.0


def test_a_registration_slower_than_the_lease_gives_none(rig: Rig) -> None:
    rig.database.seconds = 1.5
    rig.advance()
    assert not rig.lease.is_valid()


@pytest.mark.parametrize("arrived", [False, True])
def test_a_registration_that_failed_is_made_anew_under_another_name(
    rig: Rig, arrived: bool
) -> None:
    if arrived:
        rig.database.fails_after = "register"
    else:
        rig.database.fails_before = "register"
    rig.fail()
    assert not rig.lease.is_valid()
    assert len(rig.database.entries) == arrived
    rig.advance()
    # The first entry, if there is one, is nobody's: it is silent and will be fenced.
    assert list(rig.database.entries)[-1] == UUID(int=2)
    assert rig.lease.is_valid()


def test_a_change_is_evicted_then_told_then_acknowledged(registered: Rig) -> None:
    registered.database.commit(Change(6, (ALICE,)))
    registered.database.commit(Change(7, None))
    assert registered.advance() == [
        "changes",
        "evict user:alice 6",
        "evict all 7",
        "follower [6, 7]",
        "renew",
        "changes",
    ]
    assert registered.database.entries[UUID(int=1)] == [1, 7]
    assert registered.replica.applied == 7


def test_what_changed_during_a_renewal_is_evicted_before_the_lease_and_acknowledged_at_once(
    registered: Rig,
) -> None:
    registered.database.during["renew"] = [Change(6, (ALICE,))]
    assert registered.advance() == [
        "changes",
        "renew",
        "changes",
        "evict user:alice 6",
        "follower [6]",
        "renew",
        "changes",
    ]
    assert registered.database.entries[UUID(int=1)] == [2, 6]


def test_the_lease_counts_from_before_the_renewal_was_sent(registered: Rig) -> None:
    registered.clock.now = 100.5
    registered.database.seconds = 0.125
    registered.advance()
    assert registered.clock.now == 100.875
    assert registered.lasts_until() == 101.625


@pytest.mark.parametrize("call", ["changes", "renew"])
@pytest.mark.parametrize("arrived", [False, True])
def test_a_step_that_failed_extends_nothing_and_is_taken_again(
    registered: Rig, call: str, arrived: bool
) -> None:
    registered.database.commit(Change(6, (ALICE,)))
    registered.clock.now = 100.5
    if arrived:
        registered.database.fails_after = call
    else:
        registered.database.fails_before = call
    registered.fail()
    assert registered.lasts_until() == 101.0
    registered.advance()
    assert registered.database.entries == {UUID(int=1): [1 + (call == "renew" and arrived), 6]}
    assert registered.replica.applied == 6
    assert registered.lasts_until() == 101.5


def test_without_the_changes_after_a_renewal_there_is_no_longer_lease(registered: Rig) -> None:
    registered.clock.now = 100.5
    # The renewal arrives, and what changed meanwhile is not known.
    registered.database.during["renew"] = [Change(6, (ALICE,))]
    registered.database.cut_behind = "renew"
    registered.fail()
    assert registered.database.calls == ["changes", "renew", "changes"]
    assert registered.lasts_until() == 101.0


def test_one_who_was_fenced_has_no_lease_and_begins_anew(registered: Rig) -> None:
    registered.database.entries.clear()
    assert registered.advance() == ["changes", "renew"]
    assert not registered.lease.is_valid()
    registered.database.commit(Change(6, (ALICE,)))
    assert registered.advance() == ["register", "memory reset 6", "follower reset 6"]
    assert list(registered.database.entries) == [UUID(int=2)]
    assert registered.lease.is_valid()


def test_in_another_history_nothing_counts_that_is_remembered(registered: Rig) -> None:
    registered.database.epoch = OTHER_EPOCH
    registered.database.revision = 3
    registered.advance()
    assert not registered.lease.is_valid()
    assert registered.advance() == ["register", "memory reset 3", "follower reset 3"]
    assert registered.replica.applied == 3
    assert registered.lease.is_valid()


def test_a_notified_change_is_evicted_then_told_then_acknowledged_and_the_lease_is_what_it_was(
    registered: Rig,
) -> None:
    registered.clock.now = 100.25
    registered.database.commit(Change(6, (ALICE,)))
    assert registered.acknowledge() == ["changes", "evict user:alice 6", "follower [6]", "renew"]
    assert registered.database.entries[UUID(int=1)] == [1, 6]
    assert registered.lasts_until() == 101.0


def test_a_notification_of_what_is_applied_already_renews_nothing(registered: Rig) -> None:
    assert registered.acknowledge() == ["changes"]
    assert registered.database.entries[UUID(int=1)] == [0, 5]


def test_what_was_not_read_when_a_notification_was_acknowledged_is_read_before_the_lease_is_longer(
    registered: Rig,
) -> None:
    registered.clock.now = 100.25
    registered.database.commit(Change(6, (ALICE,)))
    registered.database.during["renew"] = [Change(7, None)]
    registered.acknowledge()
    assert registered.replica.applied == 6
    assert registered.lasts_until() == 101.0
    assert registered.advance()[:3] == ["changes", "evict all 7", "follower [7]"]
    assert registered.lasts_until() == 101.25


def test_one_who_was_fenced_finds_it_out_when_it_acknowledges(registered: Rig) -> None:
    registered.database.entries.clear()
    registered.database.commit(Change(6, (ALICE,)))
    registered.acknowledge()
    assert not registered.lease.is_valid()
    assert registered.advance() == ["register", "memory reset 6", "follower reset 6"]
