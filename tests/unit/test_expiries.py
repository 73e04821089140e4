"""Expiries: who is late is called back, once, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from queue import SimpleQueue

import pytest

from licet.writer.expiries import Expiries
from tests.fakes.postgres import eventually

_SECONDS = 10.0


@pytest.fixture
def late() -> SimpleQueue[str]:
    return SimpleQueue()


@pytest.fixture
def expiries(late: SimpleQueue[str]) -> Iterator[Expiries[str]]:
    watched = Expiries(late.put)
    watched.start()
    yield watched
    watched.stop()


def test_what_is_late_is_called_back_in_the_order_of_its_ends(
    expiries: Expiries[str], late: SimpleQueue[str]
) -> None:
    expiries.add("never", inf)
    expiries.add("last", 0.2)
    # Each is earlier than what the thread sleeps for.
    expiries.add("second", 0.1)
    expiries.add("first", 0.0)
    assert [late.get(timeout=_SECONDS) for _ in range(3)] == ["first", "second", "last"]
    assert late.empty()


def test_what_is_discarded_is_not_called_back_and_the_next_one_is(
    expiries: Expiries[str], late: SimpleQueue[str]
) -> None:
    expiries.add("discarded", 0.05)
    expiries.add("kept", 0.1)
    expiries.discard("discarded")
    expiries.discard("unknown")
    assert late.get(timeout=_SECONDS) == "kept"
    expiries.add("later", 0.01)  # after a time in which there was none
    assert late.get(timeout=_SECONDS) == "later"
    assert late.empty()


def test_what_was_added_before_the_start_is_called_back_and_nothing_after_the_end(
    late: SimpleQueue[str],
) -> None:
    watched = Expiries(late.put)
    watched.add("early", 0.0)
    watched.start()
    assert late.get(timeout=_SECONDS) == "early"
    watched.stop()
    watched.add("after", 0.0)
    assert not eventually(lambda: not late.empty(), 0.1)
