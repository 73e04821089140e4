"""Many clients of many workers, all busy with the same capabilities, and a record of every call."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic
from typing import Final, NamedTuple

import grpc

from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from licet.v1.decision_pb2 import DECISION_ALLOW
from tests.chaos.fleet import Server
from tests.chaos.history import Answer, Call, Operation

_RECENT: Final = 60
"""How many capabilities are asked about; the oldest drop out."""
_SHARED: Final = 6
"""How many capabilities of each client share a principal."""
_DEPTH: Final = 3
_ATTEMPTS: Final = 3
_MUTATION_SECONDS: Final = 5.0
# A request that waits in the socket of a worker that is stopped is answered when it goes on.
_PATIENCE: Final = (0.3, 1.0, 3.0)
_REFUSED_SECONDS: Final = 0.03
_JOIN_SECONDS: Final = 60.0


class _Known(NamedTuple):
    """A capability that was granted, perhaps ended since. The name tells what it descends from."""

    name: str
    parent: str
    id: str
    principal: str
    depth: int


class Load:
    """Clients in threads; the history grows in `calls`."""

    def __init__(self, workers: Sequence[Server], seed: int, changers: int, askers: int) -> None:
        """Prepare clients.

        Args:
            workers: on which each call goes to one at random.
            seed: of every choice that a client makes; what the others do meanwhile is not its own.
            changers: clients that grant, delegate, revoke, and ask every worker after each change.
            askers: clients that ask, so that every memory is warm.
        """
        self.calls: list[Call] = []
        self._workers = workers
        self._seed = seed
        self._recent: deque[_Known] = deque(maxlen=_RECENT)
        self._stopping = Event()
        self._threads = [
            Thread(target=target, args=(number,), name=f"client-{number}", daemon=True)
            for number, target in enumerate([self._change] * changers + [self._ask] * askers)
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the clients."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join(_JOIN_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads), "a call does not return"

    def _change(self, number: int) -> None:
        rng = random.Random(f"{self._seed} {number}")
        count = 0
        while not self._stopping.is_set():
            count += 1
            # All clients are about as far, and change what the same principals hold.
            holder = f"agent:{count // _SHARED}"
            made = self._grant(rng, _Known("", "", "", "", _DEPTH), f"{number}-{count}", holder)
            if made is None:
                continue
            family = [made]
            for child in range(rng.choice((0, 0, 1, 2))):
                delegated = self._delegate(rng, family[-1], child, f"{holder}-{child}")
                if delegated is not None:
                    family.append(delegated)
            self._pause(rng)
            self._revoke(rng, rng.choice(family), family)

    def _delegate(self, rng: random.Random, parent: _Known, child: int, to: str) -> _Known | None:
        # Now and then from what another client is about to end.
        others = list(self._recent)
        if others and rng.random() < 0.3:
            parent = rng.choice(others)
        if not parent.depth:
            return None
        return self._grant(rng, parent, f"{parent.name}/{rng.randrange(1 << 32):08x}{child}", to)

    def _grant(self, rng: random.Random, parent: _Known, name: str, to: str) -> _Known | None:
        request = pb.GrantRequest(
            principal=to,
            actions=["read"],
            resource="doc:x",
            parent_capability_id=parent.id,
            delegation_depth=parent.depth - 1,
            request_id=name,
        )
        granted: list[str] = []

        def call(stub: AuthorizationServiceStub) -> Answer:
            granted.append(stub.Grant(request, timeout=_MUTATION_SECONDS).capability.id)
            return Answer.OK

        if not self._insist(rng, Operation.GRANT, name, parent.name, call):
            return None
        known = _Known(name, parent.name, granted[0], to, parent.depth - 1)
        self._recent.append(known)
        self._ask_all(rng, [known])
        return known

    def _revoke(self, rng: random.Random, target: _Known, family: list[_Known]) -> None:
        request = pb.RevokeRequest(capability_id=target.id)

        def call(stub: AuthorizationServiceStub) -> Answer:
            stub.Revoke(request, timeout=_MUTATION_SECONDS)
            return Answer.OK

        second = None
        if rng.random() < 0.2:  # somebody else ends it at the same time, and is promised no less
            other = random.Random(rng.random())
            second = Thread(
                target=self._insist, args=(other, Operation.REVOKE, target.name, "", call)
            )
            second.start()
        self._insist(rng, Operation.REVOKE, target.name, "", call)
        self._ask_all(rng, family)
        if second is not None:
            second.join(_JOIN_SECONDS)

    def _ask(self, number: int) -> None:
        rng = random.Random(f"{self._seed} {number}")
        while not self._stopping.is_set():
            recent = list(self._recent)
            if not recent:
                self._stopping.wait(0.01)
                continue
            # Those in the news more often than the others.
            known = recent[-1 - min(int(rng.expovariate(0.1)), len(recent) - 1)]
            self._authorize(known, rng.randrange(len(self._workers)), rng.choice(_PATIENCE))

    def _ask_all(self, rng: random.Random, family: Sequence[_Known]) -> None:
        order = list(range(len(self._workers)))
        rng.shuffle(order)
        for worker in order:
            for known in family:
                self._authorize(known, worker, _PATIENCE[0])

    def _authorize(self, known: _Known, worker: int, patience: float) -> None:
        request = pb.AuthorizeRequest(
            principal=known.principal, action="read", resource="doc:x", capability_id=known.id
        )

        def call(stub: AuthorizationServiceStub) -> Answer:
            decision = stub.Authorize(request, timeout=patience).decision
            return Answer.ALLOW if decision == DECISION_ALLOW else Answer.DENY

        self._record(Operation.AUTHORIZE, known.name, "", worker, call)

    def _insist(
        self,
        rng: random.Random,
        operation: Operation,
        name: str,
        parent: str,
        call: Callable[[AuthorizationServiceStub], Answer],
    ) -> bool:
        """Call once more, elsewhere, after a failure; a repetition has no second effect."""
        for _ in range(_ATTEMPTS):
            worker = rng.randrange(len(self._workers))
            if self._record(operation, name, parent, worker, call) is not Answer.FAILED:
                return True
            if self._stopping.wait(0.05):
                return False
        return False

    def _record(
        self,
        operation: Operation,
        name: str,
        parent: str,
        worker: int,
        call: Callable[[AuthorizationServiceStub], Answer],
    ) -> Answer:
        stub = self._workers[worker].stub
        start = monotonic()
        try:
            answer = call(stub)
        except (grpc.RpcError, ValueError):  # ValueError: the channel was closed, the worker killed
            answer = Answer.FAILED
        self.calls.append(Call(operation, name, start, monotonic(), answer, parent, worker))
        if answer is Answer.FAILED:
            # A worker that is not there refuses at once: to ask it all the time would be all that
            # the clients do, and all that the machine has time for.
            self._stopping.wait(_REFUSED_SECONDS)
        return answer

    def _pause(self, rng: random.Random) -> None:
        self._stopping.wait(rng.random() * rng.choice((0.0, 0.05, 0.3)))
