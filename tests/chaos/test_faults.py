"""Faults happen alone first, and at the same time after that."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from threading import Barrier, BrokenBarrierError, Event

import pytest

from tests.chaos.faults import Fault, Faults, Happened, Lane, Time, summary


def test_each_fault_happens_alone_and_then_lanes_fail_together() -> None:
    together, met = Barrier(2), Event()

    def breaks(_rng: Random, _time: Time) -> None:
        if faults.happened_alone.is_set() and not met.is_set():
            try:
                together.wait(10)
            except BrokenBarrierError:  # the other has met already
                return
            met.set()
            together.abort()

    def lane(name: str, *names: str) -> Lane:
        known: dict[str, Fault] = dict.fromkeys(names, breaks)
        return Lane(name, known)

    lanes = [lane("first", "a", "b"), lane("second", "b", "c")]
    faults = Faults(lanes, lease_seconds=0.01, seed=1, names=None)
    with faults.happening():
        assert met.wait(30)
    alone = faults.happened[:3]
    assert sorted(one.fault for one in alone) == ["a", "b", "c"]
    assert all(one.end <= other.start for one, other in pairwise(alone))


def test_a_fault_that_is_not_mended_fails_the_run() -> None:
    def breaks(_rng: Random, _time: Time) -> None:
        raise AssertionError("it does not come back")

    faults = Faults([Lane("one", {"a": breaks})], lease_seconds=0.01, seed=1, names=None)
    with pytest.raises(AssertionError, match="does not come back"), faults.happening():
        assert faults.happened_alone.wait(30)


def test_only_the_chosen_faults_happen() -> None:
    lanes = [Lane("one", {"a": _nothing, "b": _nothing})]
    faults = Faults(lanes, lease_seconds=0.01, seed=1, names=["b"])
    with faults.happening():
        assert faults.happened_alone.wait(30)
    assert {one.fault for one in faults.happened} == {"b"}


def _nothing(_rng: Random, _time: Time) -> None:
    pass


def test_the_summary_counts_faults_and_those_at_the_same_time() -> None:
    happened = [Happened("a", "x", 0, 1), Happened("b", "y", 2, 4), Happened("a", "z", 3, 5)]
    assert summary(happened) == "3 faults, 2 of them during others (a: 2, b: 1)"
