"""Waiting for replicas: who is waited for, for how long, and who is shut out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from uuid import UUID

import pytest

from licet.app.ports import Confirmation, Deadline
from licet.app.replication import ReplicaEntry
from licet.domain.errors import UnavailableError, UnconfirmedError
from licet.replica.lease import LEASE_MARGIN
from licet.writer.acknowledgements import Acknowledgements, Observations, Waiter
from tests.fakes.manual import ManualClock

ONE, TWO = UUID(int=1), UUID(int=2)
LEASE = 1.0
_SECONDS = 10.0
PATIENT = Deadline(lambda: None)


class Register:
    """The entries of replicas, and one fault: before a call does anything, or after."""

    def __init__(self) -> None:
        self.rows: dict[UUID, ReplicaEntry] = {}
        self.fails_before = self.fails_after = ""
        self.sessions = 0
        self.refused = 0
        """How many sessions more cannot be opened."""
        self.wakes: UUID | None = None
        """Who renews just before it would be fenced."""
        self.looked = Event()

    def put(self, name: UUID, beat: int, applied: int, lease: float = LEASE) -> None:
        self.rows[name] = ReplicaEntry(name, beat, applied, lease)

    def connect(self) -> Register:
        if self.refused:
            self.refused -= 1
            raise UnavailableError("the database cannot be reached")
        self.sessions += 1
        return self

    def entries(self) -> Sequence[ReplicaEntry]:
        self._fault("entries", self.fails_before)
        found = list(self.rows.values())
        self.looked.set()
        self._fault("entries", self.fails_after)
        return found

    def fence(self, incarnation: UUID, beat: int) -> bool:
        self._fault("fence", self.fails_before)
        row = self.rows[incarnation]
        if self.wakes == incarnation:
            row = self.rows[incarnation] = row._replace(beat=row.beat + 1)
        hit = row.beat == beat
        if hit:
            del self.rows[incarnation]
        self._fault("fence", self.fails_after)
        return hit

    def close(self) -> None:
        pass

    def _fault(self, call: str, fault: str) -> None:
        if call == fault:
            self.fails_before = self.fails_after = ""
            raise UnavailableError("cut")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def register() -> Register:
    return Register()


@pytest.fixture
def observations(register: Register, clock: ManualClock) -> Observations:
    return Observations(register, clock, LEASE_MARGIN)


def test_with_no_replica_there_is_nobody_to_wait_for(observations: Observations) -> None:
    waiter = Waiter(9)
    assert observations.settle([waiter]) == 0
    assert (waiter.done.is_set(), waiter.confirmed, waiter.fenced) == (True, 0, 0)


def test_every_replica_must_have_applied_it(register: Register, observations: Observations) -> None:
    register.put(ONE, 1, 9)
    register.put(TWO, 1, 8)
    early, waiter = Waiter(8), Waiter(9)
    observations.settle([early, waiter])
    assert (early.done.is_set(), early.confirmed) == (True, 2)
    assert not waiter.done.is_set()
    register.put(TWO, 2, 9)
    observations.settle([waiter])
    assert (waiter.done.is_set(), waiter.confirmed, waiter.fenced) == (True, 2, 0)


def test_one_who_lags_in_silence_is_fenced_when_its_lease_must_be_over(
    register: Register, observations: Observations, clock: ManualClock
) -> None:
    register.put(ONE, 1, 9)
    register.put(TWO, 1, 8)
    waiter = Waiter(9)
    for seconds in (0.0, 0.5, 0.6):
        clock.now += seconds
        assert observations.settle([waiter]) == 0
        assert not waiter.done.is_set()
    clock.now += 0.1
    assert observations.settle([waiter]) == 1
    assert (waiter.done.is_set(), waiter.confirmed, waiter.fenced) == (True, 1, 1)
    assert list(register.rows) == [ONE]


def test_it_is_the_replica_s_own_lease_that_counts(
    register: Register, observations: Observations, clock: ManualClock
) -> None:
    register.put(ONE, 1, 8, lease=4.0)
    waiter = Waiter(9)
    observations.settle([waiter])
    clock.now += 4.5
    assert observations.settle([waiter]) == 0
    clock.now += 0.2
    assert observations.settle([waiter]) == 1


def test_one_who_lags_and_beats_is_waited_for(
    register: Register, observations: Observations, clock: ManualClock
) -> None:
    waiter = Waiter(9)
    for beat in range(10):
        register.put(ONE, beat, 8)
        assert observations.settle([waiter]) == 0
        clock.now += 1.1
    assert not waiter.done.is_set()


def test_one_who_is_silent_and_does_not_lag_is_left_alone(
    register: Register, observations: Observations, clock: ManualClock
) -> None:
    register.put(ONE, 1, 9)
    for _ in range(2):
        waiter = Waiter(9)
        assert observations.settle([waiter]) == 0
        assert waiter.done.is_set()
        clock.now += 5.0


def test_one_who_wakes_before_it_is_fenced_lives_and_is_waited_for(
    register: Register, observations: Observations, clock: ManualClock
) -> None:
    register.put(ONE, 1, 8)
    waiter = Waiter(9)
    observations.settle([waiter])
    clock.now += 2.0
    register.wakes = ONE
    assert observations.settle([waiter]) == 0
    assert not waiter.done.is_set()
    # It was seen alive: from there on it has its whole time again.
    register.wakes = None
    assert observations.settle([waiter]) == 0
    clock.now += 1.0
    assert observations.settle([waiter]) == 0
    clock.now += 0.2
    assert observations.settle([waiter]) == 1


def test_a_new_session_begins_its_observations_anew(
    register: Register, observations: Observations, clock: ManualClock
) -> None:
    register.put(ONE, 1, 8)
    waiter = Waiter(9)
    observations.settle([waiter])
    clock.now += 5.0
    anew = Observations(register, clock, LEASE_MARGIN)
    assert anew.settle([waiter]) == 0
    assert not waiter.done.is_set()
    clock.now += 1.2
    assert anew.settle([waiter]) == 1


def test_one_who_comes_back_under_its_name_is_not_silent_since_before(
    register: Register, observations: Observations, clock: ManualClock
) -> None:
    waiter = Waiter(9)
    register.put(ONE, 1, 8)
    register.put(TWO, 1, 8)
    observations.settle([waiter])
    del register.rows[ONE]
    observations.settle([waiter])
    clock.now += 1.1
    register.put(ONE, 1, 8)
    clock.now += 0.1
    assert observations.settle([waiter]) == 1
    assert list(register.rows) == [ONE]


@pytest.mark.parametrize("happened", [False, True])
def test_a_fencing_that_failed_releases_nobody(
    register: Register, observations: Observations, clock: ManualClock, happened: bool
) -> None:
    register.put(ONE, 1, 8)
    waiter = Waiter(9)
    observations.settle([waiter])
    clock.now += 1.2
    if happened:
        register.fails_after = "fence"
    else:
        register.fails_before = "fence"
    with pytest.raises(UnavailableError):
        observations.settle([waiter])
    assert not waiter.done.is_set()
    # The next session: the entry is gone, or it is observed from now on.
    anew = Observations(register, clock, LEASE_MARGIN)
    anew.settle([waiter])
    assert waiter.done.is_set() == happened
    clock.now += 1.2
    anew.settle([waiter])
    assert waiter.done.is_set()
    assert not register.rows


@contextmanager
def watching(register: Register, clock: ManualClock) -> Iterator[Acknowledgements]:
    acknowledgements = Acknowledgements(register.connect, clock, LEASE_MARGIN)
    acknowledgements.start()
    try:
        yield acknowledgements
    finally:
        acknowledgements.stop()


def test_who_waits_is_told_how_many_confirmed(register: Register, clock: ManualClock) -> None:
    register.put(ONE, 1, 9)
    with watching(register, clock) as acknowledgements:
        assert acknowledgements.wait(9, PATIENT, _SECONDS) == Confirmation(1, 0)
        assert acknowledgements.wait(8, PATIENT, _SECONDS) == Confirmation(1, 0)
    assert acknowledgements.fenced == 0


def test_a_wait_ends_when_the_last_replica_confirms(register: Register, clock: ManualClock) -> None:
    register.put(ONE, 1, 8)
    with watching(register, clock) as acknowledgements, ThreadPoolExecutor(1) as pool:
        waits = pool.submit(acknowledgements.wait, 9, PATIENT, _SECONDS)
        assert register.looked.wait(_SECONDS)
        assert not waits.done()
        register.put(ONE, 2, 9)
        assert waits.result(_SECONDS) == Confirmation(1, 0)


def test_a_silent_replica_costs_its_lease_and_the_margin(
    register: Register, clock: ManualClock
) -> None:
    register.put(ONE, 1, 8)
    with watching(register, clock) as acknowledgements, ThreadPoolExecutor(1) as pool:
        waits = pool.submit(acknowledgements.wait, 9, PATIENT, _SECONDS)
        for _ in range(2):  # the second look began after the first was remembered
            register.looked.clear()
            assert register.looked.wait(_SECONDS)
        clock.now += LEASE * LEASE_MARGIN + 0.01
        assert waits.result(_SECONDS) == Confirmation(0, 1)
    assert acknowledgements.fenced == 1


def test_the_deadline_ends_a_wait_and_says_that_the_change_is_committed(
    register: Register, clock: ManualClock
) -> None:
    register.put(ONE, 1, 8)
    with watching(register, clock) as acknowledgements:
        with pytest.raises(UnconfirmedError, match="committed at revision 9"):
            acknowledgements.wait(9, Deadline(lambda: 0.02), _SECONDS)
        register.put(ONE, 1, 9)
        # Who asks again waits for the same revision, and nobody waits in vain.
        assert acknowledgements.wait(9, PATIENT, _SECONDS) == Confirmation(1, 0)


@pytest.mark.parametrize("happened", [False, True])
def test_a_lost_session_is_opened_again_and_releases_nobody(
    register: Register, clock: ManualClock, happened: bool
) -> None:
    register.put(ONE, 1, 9)
    register.refused = 1
    if happened:
        register.fails_after = "entries"
    else:
        register.fails_before = "entries"
    with watching(register, clock) as acknowledgements:
        assert acknowledgements.wait(9, PATIENT, _SECONDS) == Confirmation(1, 0)
    assert register.sessions == 2
    assert not register.refused


def test_without_a_session_nobody_is_told_that_all_confirmed(
    register: Register, clock: ManualClock
) -> None:
    register.refused = 1000
    with watching(register, clock) as acknowledgements, pytest.raises(UnconfirmedError):
        acknowledgements.wait(9, Deadline(lambda: 0.05), _SECONDS)
