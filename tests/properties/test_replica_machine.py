"""The promise, under schedules that hypothesis makes up; and without each safeguard in turn.

A schedule gives turns to the threads of two processes, lets time pass, cuts connections and kills
processes. Clock rates differ by less than the margin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from licet.domain.names import Principal
from licet.replica.capability_sets import CachedCapabilitySets
from licet.replica.lease import Lease
from tests.properties.replica_world import (
    LEASE,
    Actor,
    Host,
    PromiseBrokenError,
    World,
    point,
)

PRINCIPALS = (Principal("agent:a"), Principal("agent:b"))
RATES = (0.95, 1.05)
_ROUNDS = 40
HOSTS = st.integers(0, len(RATES) - 1)


class ReplicaMachine(RuleBasedStateMachine):
    """Two processes on one database."""

    host_class: ClassVar[type[Host]] = Host

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.hosts = [self.host_class(self.world, rate) for rate in RATES]

    @initialize()
    def begin(self) -> None:
        """Both are registered, a capability is granted, and both have it in memory."""
        self.hosts[0].grant(PRINCIPALS[0])
        self._let_everything_run()
        for host in self.hosts:
            host.authorize(PRINCIPALS[0])
        self._let_everything_run()

    @rule(
        host=HOSTS,
        which=st.integers(0, 7),
        turns=st.sampled_from((1, 1, 2, 3, 5, 8, 13)),
    )
    def run(self, host: int, which: int, turns: int) -> None:
        """Give one thread its turns."""
        actors = self._actors(host)
        # The newest last: those that matter most are the two of the protocol and the latest calls.
        actor = actors[which] if which < 2 else actors[-1 - (which % len(actors))]
        for _ in range(turns):
            actor.turn()
        self._ask_everybody()

    @rule()
    def run_everything(self) -> None:
        """Give all threads turns until all calls have returned, if that can be."""
        self._let_everything_run()

    @rule(host=HOSTS, which=st.integers(-1, 5), seconds=st.sampled_from((0.0, 0.3, 1.25, 2.6)))
    def pause(self, host: int, which: int, seconds: float) -> None:
        """Stop one thread, or a whole process, while time passes and all others go on."""
        actors = self._actors(host)
        stopped = actors if which < 0 else [actors[-1 - (which % len(actors))]]
        self._let_everything_run(seconds, set(stopped))
        self._ask_everybody()

    @rule(seconds=st.sampled_from((0.05, 0.3, 0.7, 0.96, 1.1, 1.25)))
    def elapse(self, seconds: float) -> None:
        """Let time pass, as long as everybody pauses."""
        self.world.time += seconds * LEASE

    @rule(host=HOSTS, principal=st.sampled_from(PRINCIPALS), turns=st.integers(0, 3))
    def authorize(self, host: int, principal: Principal, turns: int) -> None:
        """Ask one of them, and leave the request where it is after a few turns."""
        self.hosts[host].authorize(principal)
        for _ in range(turns):
            self.hosts[host].actors[-1].turn()

    @rule(host=HOSTS, principal=st.sampled_from(PRINCIPALS))
    def grant(self, host: int, principal: Principal) -> None:
        """Grant through one of them."""
        self.hosts[host].grant(principal)

    @precondition(lambda self: self.world.capabilities)
    @rule(host=HOSTS, which=st.integers(0, 3))
    def revoke(self, host: int, which: int) -> None:
        """Revoke through one of them, one of the latest, living or not."""
        names = list(self.world.capabilities)
        self.hosts[host].revoke(names[-1 - which % len(names)])

    @rule(host=HOSTS, watcher=st.booleans())
    def cut(self, host: int, watcher: bool) -> None:
        """Cut a connection."""
        process = self.hosts[host]
        (process.watching if watcher else process.following).lost = True

    @rule(host=HOSTS)
    def crash(self, host: int) -> None:
        """Kill a process and start another."""
        self.hosts[host].kill()
        self.hosts[host] = self.host_class(self.world, RATES[host])

    @override
    def teardown(self) -> None:
        for host in self.hosts:
            host.kill()

    def _ask_everybody(self) -> None:
        """Ask for an answer before anybody else does anything."""
        for host in self.hosts:
            for principal in PRINCIPALS:
                host.authorize(principal)
                for _ in range(_ROUNDS):
                    host.actors[-1].turn()

    def _actors(self, host: int) -> list[Actor]:
        process = self.hosts[host]
        process.actors = [actor for actor in process.actors if not actor.finished]
        return process.actors

    def _let_everything_run(self, seconds: float = 0.0, but: Collection[Actor] = ()) -> None:
        for _ in range(_ROUNDS):
            self.world.time += seconds * LEASE / _ROUNDS
            for host in range(len(self.hosts)):
                for actor in self._actors(host):
                    if actor not in but:
                        actor.turn()


def explore(machine: type[ReplicaMachine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            # The same schedules every time, and no time spent on a shorter one.
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(240)
def test_the_promise_holds_under_every_schedule_tried() -> None:
    explore(ReplicaMachine, 60)


class NeverEvicts(CachedCapabilitySets):
    @override
    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        pass


class NeverEnds(Lease):
    __slots__ = ()

    @override
    def is_valid(self) -> bool:
        return True


class NeverWaits(Host):
    @override
    def confirmed(self, revision: int) -> None:
        point()


class NeverWaitsAgain(Host):
    @override
    def confirmed_again(self, revision: int) -> None:
        point()


class WithoutEvicting(Host):
    sets_class = NeverEvicts


class WithoutLease(Host):
    lease_class = NeverEnds


@pytest.mark.timeout(240)
@pytest.mark.parametrize("host", [WithoutEvicting, WithoutLease, NeverWaits, NeverWaitsAgain])
def test_without_a_safeguard_a_schedule_breaks_the_promise(host: type[Host]) -> None:
    class Machine(ReplicaMachine):
        host_class = host

    with pytest.raises(PromiseBrokenError):
        explore(Machine, 200)
