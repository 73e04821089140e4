"""The lease: who may use memory, and until when."""

from __future__ import annotations

import pytest

from licet.replica.lease import Lease, boottime
from tests.fakes.manual import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def lease(clock: ManualClock) -> Lease:
    return Lease(clock)


def test_at_first_there_is_none(lease: Lease) -> None:
    assert not lease.is_valid()
    assert lease.remaining() == 0.0


def test_it_lasts_until_its_deadline_and_not_at_it(lease: Lease, clock: ManualClock) -> None:
    lease.extend(101.0)
    assert lease.is_valid()
    clock.now = 100.75
    assert (lease.is_valid(), lease.remaining()) == (True, 0.25)
    clock.now = 101.0
    assert (lease.is_valid(), lease.remaining()) == (False, 0.0)
    clock.now = 200.0
    assert (lease.is_valid(), lease.remaining()) == (False, 0.0)


def test_it_ends_at_once_when_it_is_ended_and_can_begin_again(lease: Lease) -> None:
    lease.extend(101.0)
    lease.end()
    assert (lease.is_valid(), lease.remaining()) == (False, 0.0)
    lease.extend(101.0)
    assert lease.is_valid()


def test_a_renewal_that_took_longer_than_the_lease_gives_none(
    lease: Lease, clock: ManualClock
) -> None:
    sent = lease.now()
    clock.now += 1.5
    lease.extend(sent + 1.0)
    assert not lease.is_valid()


def test_the_host_s_clock_does_not_go_back() -> None:
    readings = [boottime() for _ in range(100)]
    assert readings == sorted(readings)
