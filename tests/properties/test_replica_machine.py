"""The promise under many schedules, and without each rule of the protocol in turn.

Two processes on one database, clocks whose rates differ by nearly the margin; pauses at every
point, cut connections, stopped and killed processes. Nothing is left to luck: the scripts hold
somebody at each point in turn, and a play at random is made from a number.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.properties.replica_host import Host
from tests.properties.replica_plants import PLANTS
from tests.properties.replica_plays import SCENES, RandomPlay, taking_turns
from tests.properties.replica_world import PromiseBrokenError

PLAYS: Final = 300
HAPPENS: Final = {
    *("from memory", "read ahead", "read for oneself"),
    *("old answer during a revocation", "fenced"),
}
"""Without these a search that finds nothing says nothing."""

pytestmark = pytest.mark.timeout(240)


def _play_all(host_class: type[Host]) -> set[str]:
    return set[str]().union(*(scene.play(host_class) for scene in SCENES))


def test_wherever_somebody_is_held_the_promise_holds() -> None:
    with taking_turns():
        seen = _play_all(Host)
    assert seen >= HAPPENS


def test_whatever_happens_at_random_the_promise_holds() -> None:
    with taking_turns():
        seen = set[str]().union(*(RandomPlay(Host, number).play() for number in range(PLAYS)))
    assert seen >= HAPPENS | {"cut"}


@pytest.mark.parametrize("rule", PLANTS)
def test_without_a_rule_the_promise_is_broken(rule: str) -> None:
    with taking_turns(), pytest.raises(PromiseBrokenError):
        _play_all(PLANTS[rule])


def test_the_same_number_is_the_same_play() -> None:
    with taking_turns():
        first, second, other = (RandomPlay(Host, number) for number in (7, 7, 8))
        for play in (first, second, other):
            play.play()
    assert first.stage.trace == second.stage.trace != other.stage.trace
