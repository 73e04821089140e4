"""Calls a second under full load: bursts of each kind, shuffled anew in every round.

A figure compares two kinds round by round. The server has a core, and the load is never the
bottleneck; a second is one that the server really had, so that whoever else uses the machine takes
time and not calls from it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from time import perf_counter
from typing import Final, NamedTuple

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from benchmarks import customs, seed
from benchmarks.figures import BenchmarkError, Bound, Figure, Target, ratios, spread
from benchmarks.h2load import FULL, Traffic
from benchmarks.report import Progress
from benchmarks.seed import FEW, MANY, Match
from benchmarks.server import NO_OP_METHOD
from benchmarks.stand import Stand
from licet.domain.names import Principal
from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_ALLOW

SECTION: Final = "Calls a second, under full load"
AUTHORIZE_TARGET: Final = Target(Bound.AT_LEAST, 0.75)
UNSYNCED_TARGET: Final = Target(Bound.AT_LEAST, 0.85)
UNSYNCED_STOCK_TARGET: Final = Target(Bound.AT_LEAST, 1.4)
STOCK_TARGET: Final = Target(Bound.AT_LEAST, 1.1)
STREAM_TARGET: Final = Target(Bound.AT_LEAST, 4.0)
BATCH_STOCK_TARGET: Final = Target(Bound.AT_LEAST, 20.0)
NO_OP_OF_STOCK: Final = "no-op RPC of stock gRPC"
BATCH_TARGET: Final = Target(Bound.AT_LEAST, 15.0)
MATCH_TARGET: Final = Target(Bound.AT_MOST, 2.0)
BATCH: Final = 100
MESSAGES: Final = 1_000
"""How many a stream has, which is then closed, and another one opened: streams are to last."""

AUTHORIZE: Final = "/licet.v1.AuthorizationService/Authorize"
_STREAM_AUTHORIZE: Final = "/licet.v1.AuthorizationService/StreamAuthorize"
_BATCH_AUTHORIZE: Final = "/licet.v1.AuthorizationService/BatchAuthorize"
_WARM_UP_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Rounds:
    """How many, and for how many seconds each kind of call is made in one."""

    count: int
    seconds: float


@dataclass(slots=True)
class Kind:
    """A kind of call, and what was measured of it, round by round.

    Attributes:
        method: what is called.
        request: with what.
        response_bytes: the size of each answer.
        decisions: how many one message takes, each an audit event.
        messages: how often the request is sent in a call.
        credential: sent with each call; empty: none is.
        rates: messages in a second of the server's core, while the load lasted.
        costs: seconds of the server's core for one message, until its audit events were stored.
        shares: the part of its core that the server had.
    """

    method: str
    request: Message
    response_bytes: int
    decisions: int
    messages: int = 1
    credential: str = ""
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    @property
    def clocked(self) -> list[float]:
        """Messages in a second of the clock."""
        return [rate * share for rate, share in zip(self.rates, self.shares, strict=True)]


class Stands(NamedTuple):
    """What is compared.

    Attributes:
        group: its decisions are on the disk when they are answered.
        unsynced: its decisions are on record in memory.
        stock: it has nothing but the call that does nothing.
    """

    group: Stand
    unsynced: Stand
    stock: Stand


def measure(
    stands: Stands, fleet: Sequence[Principal], rounds: Rounds, progress: Progress
) -> list[Figure]:
    """Compare an Authorize with a call that does nothing, and a batch with an Authorize.

    From here on, policies hold in the database.

    Args:
        stands: the servers.
        fleet: principals, each of whom holds FEW capabilities.
        rounds: of all kinds of calls.
        progress: told what is being measured.
    """
    stand, unsynced, stock = stands
    customs.put_policies(stand.channel)
    key = customs.key(stand.channel)
    nothing, plain = no_op(), no_op()
    unary = authorize(stand, fleet[0], Match.EXACT, key)
    in_memory = authorize(unsynced, fleet[0], Match.EXACT, key)
    batch, stream = _batch(stand, fleet), _stream(unsynced, fleet[0])
    batch.credential = stream.credential = key
    on_stands = [
        *((stand, nothing), (stand, unary), (unsynced, in_memory), (stand, batch)),
        *((stock, plain), (unsynced, stream)),
    ]
    _run(on_stands, rounds, progress)
    return [
        *_against_stock(plain, unary, in_memory, batch, stream),
        Figure(
            SECTION,
            "cached Authorize, audited, durability `none` / no-op RPC",
            ratios(in_memory.rates, nothing.rates),
            target=UNSYNCED_TARGET,
        ),
        Figure(
            SECTION,
            "cached Authorize, audited, durability `group` / no-op RPC",
            ratios(unary.rates, nothing.rates),
            target=AUTHORIZE_TARGET,
        ),
        Figure(
            SECTION,
            "the same by the clock, `none`",
            ratios(in_memory.clocked, nothing.clocked),
        ),
        Figure(
            SECTION,
            "the same by the clock, `group`",
            ratios(unary.clocked, nothing.clocked),
        ),
        Figure(
            SECTION,
            f"decisions of BatchAuthorize of {BATCH} / of Authorize",
            ratios([BATCH * rate for rate in batch.rates], unary.rates),
            target=BATCH_TARGET,
        ),
        Figure(
            SECTION,
            "cached Authorize / no-op RPC, until its event is stored",
            ratios(nothing.costs, unary.costs),
        ),
        Figure(
            SECTION,
            "decisions of BatchAuthorize / of Authorize, until stored",
            ratios([BATCH * cost for cost in unary.costs], batch.costs),
        ),
        Figure(SECTION, "no-op RPC", spread(nothing.rates), "calls/s"),
        Figure(SECTION, "Authorize, `none`", spread(in_memory.rates), "decisions/s"),
        Figure(SECTION, "Authorize, `group`", spread(unary.rates), "decisions/s"),
        Figure(
            SECTION,
            f"BatchAuthorize of {BATCH}",
            spread([BATCH * rate for rate in batch.rates]),
            "decisions/s",
        ),
        Figure(
            SECTION,
            "the server's part of its core",
            spread([part for _, kind in on_stands for part in kind.shares]),
        ),
    ]


def _against_stock(
    plain: Kind, unary: Kind, in_memory: Kind, batch: Kind, stream: Kind
) -> list[Figure]:
    """Compare decisions with calls that do nothing on gRPC's server as it comes."""
    compared = (
        ("cached Authorize", in_memory, UNSYNCED_STOCK_TARGET, customs.NONE),
        ("cached Authorize", unary, STOCK_TARGET, customs.GROUP),
        ("messages of StreamAuthorize, a decision each,", stream, STREAM_TARGET, customs.NONE),
        (f"decisions of BatchAuthorize of {BATCH}", batch, BATCH_STOCK_TARGET, customs.GROUP),
    )
    return [
        Figure(
            SECTION,
            f"{name} / {NO_OP_OF_STOCK}",
            ratios([kind.decisions * rate for rate in kind.rates], plain.rates),
            target=target,
            settings=settings,
        )
        for name, kind, target, settings in compared
    ]


def measure_matching(
    stand: Stand, few: Principal, many: Principal, rounds: Rounds, progress: Progress
) -> list[Figure]:
    """Compare a principal with FEW capabilities with one with MANY, way of matching by way."""
    kinds = {
        (principal, match): authorize(stand, principal, match)
        for principal, match in product((few, many), Match)
    }
    _run([(stand, kind) for kind in kinds.values()], rounds, progress)
    return [
        Figure(
            SECTION,
            f"Authorize with {FEW} capabilities / with {MANY:,}, {match}",
            ratios(kinds[few, match].rates, kinds[many, match].rates),
            target=MATCH_TARGET,
        )
        for match in Match
    ]


def authorize(stand: Stand, principal: Principal, match: Match, credential: str = "") -> Kind:
    """Return the kind of call that asks for something that a principal holds, or not.

    Asked here once, without the credential.

    Raises:
        BenchmarkError: it is decided otherwise.
    """
    request = pb.AuthorizeRequest(
        principal=principal, action="read", resource=seed.covered(match, 0)
    )
    response = stand.stub.Authorize(request)
    if (response.decision == DECISION_ALLOW) != (match is not Match.MISS):
        raise BenchmarkError(f"{principal}, {match}: decided {response.detail!r}")
    return Kind(AUTHORIZE, request, response.ByteSize(), 1, credential=credential)


def no_op() -> Kind:
    """Return the kind of call that does nothing."""
    return Kind(NO_OP_METHOD, Empty(), 0, 0)


def burst(stand: Stand, kind: Kind, seconds: float, traffic: Traffic = FULL) -> None:
    """Make calls of a kind for some seconds, add what came of it, and wait for the audit log."""
    stored, used, begin = stand.shipped(), stand.server_seconds(), perf_counter()
    shape = traffic._replace(messages=kind.messages, credential=kind.credential)
    calls = stand.load.burst(kind.method, kind.request, kind.response_bytes, seconds, shape)
    taken, spent = perf_counter() - begin, stand.server_seconds() - used
    # The next burst must not pay for this one's audit events; and each answer must have one.
    stand.await_shipped(stored + calls * kind.decisions)
    kind.rates.append(calls / spent)
    kind.shares.append(spent / taken)
    kind.costs.append((stand.server_seconds() - used) / calls)


def _batch(stand: Stand, fleet: Sequence[Principal]) -> Kind:
    request = pb.BatchAuthorizeRequest(
        requests=[
            pb.AuthorizeRequest(
                principal=fleet[i % len(fleet)],
                action="read",
                resource=seed.covered(list(Match)[i % len(Match)], 0),
            )
            for i in range(BATCH)
        ]
    )
    return Kind(_BATCH_AUTHORIZE, request, stand.stub.BatchAuthorize(request).ByteSize(), BATCH)


def _stream(stand: Stand, principal: Principal) -> Kind:
    question = pb.AuthorizeRequest(
        principal=principal, action="read", resource=seed.covered(Match.EXACT, 0)
    )
    request = pb.StreamAuthorizeRequest(requests=[question])
    (response,) = stand.stub.StreamAuthorize(iter([request]))
    return Kind(_STREAM_AUTHORIZE, request, response.ByteSize(), 1, MESSAGES)


def _run(on_stands: Sequence[tuple[Stand, Kind]], rounds: Rounds, progress: Progress) -> None:
    order = random.Random(rounds.count)
    for stand, kind in on_stands:
        burst(stand, kind, _WARM_UP_SECONDS)
        kind.rates.clear()
        kind.costs.clear()
        kind.shares.clear()
    for number in range(1, rounds.count + 1):
        progress.step(f"round {number} of {rounds.count}, {len(on_stands)} kinds of calls")
        for stand, kind in order.sample(on_stands, len(on_stands)):
            burst(stand, kind, rounds.seconds)
