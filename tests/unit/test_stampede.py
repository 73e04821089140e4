"""Concurrent misses of one principal: one read for all, and never a read older than the request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest

from licet.app.ports import Deadline
from licet.domain.capability_set import ALWAYS, NEVER, CapabilitySet, HeldCapability
from licet.domain.errors import UnavailableError
from licet.domain.names import Action, CapabilityId, Principal
from licet.domain.pattern import ResourcePattern
from licet.replica.capability_sets import CachedCapabilitySets
from licet.replica.lease import Lease

ALICE = Principal("user:alice")
PATIENT = Deadline(lambda: 10.0)
_SECONDS = 10.0


def held(revision: int) -> CapabilitySet:
    capability = HeldCapability(
        CapabilityId("0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"),
        ResourcePattern("doc:a"),
        (Action("read"),),
        ALWAYS,
        NEVER,
    )
    return CapabilitySet(ALICE, revision, [capability])


class PausedLoader:
    """A database whose reads end when the test says what they saw."""

    def __init__(self) -> None:
        self.reads: list[Future[CapabilitySet]] = []
        self.begun = Event()

    def __call__(
        self,
        principals: Collection[Principal],
        deadline: Deadline,  # noqa: ARG002 - the port's
    ) -> Mapping[Principal, CapabilitySet]:
        answer: Future[CapabilitySet] = Future()
        self.reads.append(answer)
        self.begun.set()
        return dict.fromkeys(principals, answer.result(_SECONDS))

    def await_read(self) -> None:
        assert self.begun.wait(_SECONDS)
        self.begun.clear()


def registered(load: PausedLoader, *, lease_is_valid: bool = True) -> CachedCapabilitySets:
    lease = Lease(lambda: 0.0)
    if lease_is_valid:
        lease.extend(1.0)
    sets = CachedCapabilitySets(load, lease, 1 << 20, 10)
    sets.reset(0)
    return sets


def await_joined(sets: CachedCapabilitySets, requests: int) -> None:
    pause = Event()
    for _ in range(1000):
        if sets.joined >= requests:
            return
        pause.wait(0.01)
    pytest.fail(f"{sets.joined} requests joined, not {requests}")


def test_concurrent_misses_of_one_principal_make_one_read() -> None:
    load = PausedLoader()
    sets = registered(load)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(sets.get, ALICE, PATIENT) for _ in range(8)]
        await_joined(sets, 7)
        load.reads[0].set_result(held(1))
        assert {answer.result(_SECONDS).revision for answer in answers} == {1}
    assert len(load.reads) == 1


@pytest.mark.parametrize("lease_is_valid", [True, False])
def test_a_read_sent_before_the_request_is_not_used_past_an_eviction_or_without_a_lease(
    lease_is_valid: bool,
) -> None:
    load = PausedLoader()
    sets = registered(load, lease_is_valid=lease_is_valid)
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(sets.get, ALICE, PATIENT)
        load.await_read()
        if lease_is_valid:
            # A revocation at revision 2 returns here; whoever asks from now on must know of it.
            sets.evict([ALICE], 2)
        late = pool.submit(sets.get, ALICE, PATIENT)
        await_joined(sets, 1)
        load.reads[0].set_result(held(1))
        assert early.result(_SECONDS).revision == 1
        load.await_read()
        load.reads[1].set_result(held(2))
        assert late.result(_SECONDS).revision == 2


def test_a_read_that_does_not_land_in_time_is_not_waited_for_twice() -> None:
    load = PausedLoader()
    sets = registered(load)
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(sets.get, ALICE, PATIENT)
        load.await_read()
        late = pool.submit(sets.get, ALICE, Deadline(lambda: 0.01))
        load.await_read()
        load.reads[1].set_result(held(2))
        assert late.result(_SECONDS).revision == 2
        load.reads[0].set_result(held(1))
        assert early.result(_SECONDS).revision == 1


def test_when_the_shared_read_fails_the_next_request_reads_for_itself() -> None:
    load = PausedLoader()
    sets = registered(load)
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(sets.get, ALICE, PATIENT)
        load.await_read()
        late = pool.submit(sets.get, ALICE, PATIENT)
        await_joined(sets, 1)
        load.reads[0].set_exception(UnavailableError("the database cannot be reached"))
        with pytest.raises(UnavailableError):
            early.result(_SECONDS)
        load.await_read()
        load.reads[1].set_result(held(3))
        assert late.result(_SECONDS).revision == 3
