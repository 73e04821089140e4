"""The gate: what a decision from memory costs must not grow unnoticed.

Measured in ratio to what is on record in `gate.json`:

- bytecodes that gRPC's serving thread executes for a call, and functions that it calls, in Python
  or C: the same on every machine and under any load, so their margin is small;
- the processor time of a decision in a batch, in ratio to a reference loop in the same process, for
  what these do not see: a function in C that has become slow. In a batch, because a thread that is
  woken for each call finds its caches cold on a busy machine. Its margin is large all the same.

`python -m benchmarks.gate` says whether all are within their margins; with `--record`, after a
change that is meant to cost that, or that has made something cheaper, it puts them on record.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from math import inf
from pathlib import Path
from time import clock_gettime, pthread_getcpuclockid, thread_time
from types import FrameType
from typing import Any, Final, NamedTuple, TypeAlias

from benchmarks.server import ENVIRONMENT

os.environ.update(ENVIRONMENT)  # read when gRPC is imported

import grpc

from benchmarks import customs
from benchmarks.figures import BenchmarkError
from licet import config
from licet.bootstrap.process import Licet
from licet.storage.embedded import EmbeddedPostgres
from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from licet.v1.decision_pb2 import DECISION_ALLOW

RECORD: Final = Path(__file__).parent / "gate.json"
COUNT_MARGIN: Final = 1.02
TIME_MARGIN: Final = 1.35

WITHIN: Final = 0
GROWN: Final = 1
"""Something costs more than is on record, and its margin."""

_SERVING: Final = ("grpc._server", "_serve")
"""The function that gRPC's serving thread runs."""
_DECIDING: Final = "licet-rpc"
"""What the names of the threads that decide batches begin with."""
_WARM_UPS: Final = 100
_COUNTED: Final = 300
_ROUNDS: Final = 30
_MOST_ROUNDS: Final = 400
_LESS: Final = 0.995
_BATCH: Final = 1000
_LOOPS: Final = 20_000
_SECONDS: Final = 30.0
_REQUEST: Final = pb.AuthorizeRequest(
    principal="agent:gate", action="read", resource="doc:reports/2026/000001"
)
_BYTECODES: Final = "bytecodes"
_CALLS: Final = "calls"
_TIME: Final = "time"

Costs: TypeAlias = Mapping[str, Mapping[str, float]]
"""By the kind of call, and by what is measured."""


class _Counter:
    """Counts what gRPC's serving thread does, from its start until `stop`.

    Only that thread writes; it is read while it waits for the next call.
    """

    def __init__(self) -> None:
        self.bytecodes = 0
        self.calls = 0
        self.ident = 0
        self._is_over = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have it in threads that are started meanwhile."""
        threading.settrace(self._begin)
        threading.setprofile(self._profile)
        try:
            yield
        finally:
            # The type stubs do not know that None takes it away.
            take_away: Any = None
            threading.settrace(take_away)
            threading.setprofile(take_away)

    def stop(self) -> None:
        """Have the thread forget it with its next event."""
        self._is_over = True

    def _begin(self, frame: FrameType, _event: str, _argument: object) -> Any:  # noqa: ANN401 - a trace function, or None
        if self._is_over:
            sys.settrace(None)
            return None
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == _SERVING:
            self.ident = threading.get_ident()
        if self.ident == threading.get_ident():
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            return self._trace
        return None

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401 - as `_begin`
        if self._is_over:
            sys.settrace(None)
            frame.f_trace_opcodes = False
            return None
        if event == "opcode":
            self.bytecodes += 1
        return self._trace

    def _profile(self, _frame: FrameType, event: str, _argument: object) -> None:
        if self._is_over:
            sys.setprofile(None)
        elif event in {"call", "c_call"} and self.ident == threading.get_ident():
            self.calls += 1


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of call: does so many of them, one after the other."""

    name: str
    call: Callable[[int], None]


class Growth(NamedTuple):
    """What is measured of a kind of call, beside what is on record."""

    kind: str
    what: str
    measured: float
    recorded: float

    @property
    def ratio(self) -> float:
        """How many times as much it is."""
        return self.measured / self.recorded

    @property
    def margin(self) -> float:
        """What the ratio may be."""
        return TIME_MARGIN if self.what == _TIME else COUNT_MARGIN

    @property
    def is_too_much(self) -> bool:
        """Whether it is more than its margin allows."""
        return self.ratio > self.margin


def measure(url: str, state: Path) -> Costs:
    """Serve a database with licet's schema from this process, and measure what calls cost.

    Raises:
        BenchmarkError: a call was not answered as expected.
    """
    counter = _Counter()
    settings = config.load(
        database_url=url,
        listen="127.0.0.1:0",
        state_dir=state,
        audit_durability="none",  # all of a call is on one thread then
        audit_verify_share=0.0,
        log_level="ERROR",
    )
    with counter.installed():
        licet = Licet(settings).start()
    try:
        address = f"127.0.0.1:{licet.server.port}"
        with grpc.insecure_channel(address) as channel:
            kinds = _kinds(channel)
            costs: dict[str, dict[str, float]] = {}
            for kind in kinds:
                kind.call(_WARM_UPS)
                bytecodes, calls = counter.bytecodes, counter.calls
                kind.call(_COUNTED)
                costs[kind.name] = {
                    _BYTECODES: (counter.bytecodes - bytecodes) / _COUNTED,
                    _CALLS: (counter.calls - calls) / _COUNTED,
                }
            counter.stop()
            kinds[0].call(1)  # with which it stops
            costs["BatchAuthorize"] = {_TIME: _time(channel)}
    finally:
        licet.stop()
    return costs


def _kinds(channel: grpc.Channel) -> list[_Kind]:
    customs.put_policies(channel)
    stub = AuthorizationServiceStub(channel)
    stub.Grant(
        pb.GrantRequest(principal=_REQUEST.principal, actions=["read"], resource=_REQUEST.resource)
    )
    header = (("authorization", customs.key(channel)),)

    def authorize(count: int) -> None:
        for _ in range(count):
            _check(stub.Authorize(_REQUEST, timeout=_SECONDS, metadata=header))

    def stream(count: int) -> None:
        message = pb.StreamAuthorizeRequest(requests=[_REQUEST])
        answers = stub.StreamAuthorize(repeat(message, count), timeout=_SECONDS, metadata=header)
        for answer in answers:
            _check(answer.responses[0])

    return [_Kind("Authorize", authorize), _Kind("StreamAuthorize", stream)]


def _check(answer: pb.AuthorizeResponse) -> None:
    if answer.decision != DECISION_ALLOW:
        raise BenchmarkError(f"decided {answer.detail!r}")


def _time(channel: grpc.Channel) -> float:
    """Return the processor time of a decision in a batch, in loops of the reference.

    The least of many short rounds, of which a busy machine leaves a few alone: as many as it takes
    until neither has become less for a while.
    """
    stub = AuthorizationServiceStub(channel)
    batch = pb.BatchAuthorizeRequest(requests=[_REQUEST] * _BATCH)
    stub.BatchAuthorize(batch, timeout=_SECONDS)
    least = least_reference = inf
    rounds = last = 0
    while rounds < last + _ROUNDS and rounds < _MOST_ROUNDS:
        rounds += 1
        reference, before = _reference(), _seconds_of_decisions()
        _check(stub.BatchAuthorize(batch, timeout=_SECONDS).responses[-1])
        seconds = _seconds_of_decisions() - before
        if seconds < _LESS * least or reference < _LESS * least_reference:
            last = rounds
        least, least_reference = min(least, seconds), min(least_reference, reference)
    return least / _BATCH / (least_reference / _LOOPS)


def _seconds_of_decisions() -> float:
    """Return the processor time of the threads that decide."""
    return sum(
        clock_gettime(pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.name.startswith(_DECIDING) and thread.ident is not None
    )


def _reference() -> float:
    """Do what interpreters are measured by: small objects, look-ups, calls; return the seconds."""
    table = {str(number): number for number in range(1000)}
    names = list(table)
    before = thread_time()
    total = 0
    for number in range(_LOOPS):
        total += table[names[number % 1000]] + len((number, total))
    return thread_time() - before


def growths(costs: Costs, recorded: Costs) -> list[Growth]:
    """Compare costs with those on record.

    Raises:
        BenchmarkError: a kind of call, or what is measured of it, is not on record.
    """
    try:
        return [
            Growth(kind, what, measured, recorded[kind][what])
            for kind, found in costs.items()
            for what, measured in found.items()
        ]
    except KeyError as exc:
        raise BenchmarkError(
            f"{exc} is not on record: `python -m benchmarks.gate --record`"
        ) from None


def python_version() -> str:
    """Return what bytecodes depend on."""
    return ".".join(platform.python_version_tuple()[:2])


def _measured() -> Costs:
    from licet.storage import migrate  # noqa: PLC0415 - not for those who only compare

    with (
        tempfile.TemporaryDirectory(prefix="licet-gate-") as name,
        EmbeddedPostgres(_reachable(Path(name)) / "postgres") as database,
    ):
        migrate.up(database.conninfo)
        return measure(database.conninfo, Path(name) / "state")


def _reachable(folder: Path) -> Path:
    """Let other accounts through: started by root, PostgreSQL runs as one."""
    folder.chmod(0o711)
    return folder


def main(arguments: Sequence[str]) -> int:
    """Measure, and compare or record; return the status to exit with."""
    version = python_version()
    record: dict[str, Costs] = json.loads(RECORD.read_text(encoding="utf-8"))
    if arguments == ["--record"]:
        record[version] = _measured()
        RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return WITHIN
    if version not in record:
        print(f"bench-gate: nothing is on record of Python {version}", file=sys.stderr)
        return GROWN if os.environ.get("CI") else WITHIN
    grown = False
    for growth in growths(_measured(), record[version]):
        verdict = f"more than {growth.margin}" if growth.is_too_much else "ok"
        grown = grown or growth.is_too_much
        print(
            f"{growth.kind:16} {growth.what:10} {growth.measured:10,.1f}"
            f" {growth.ratio:6.3f} x  {verdict}"
        )
    if grown:
        print("bench-gate: see benchmarks/gate.py", file=sys.stderr)
    return GROWN if grown else WITHIN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
