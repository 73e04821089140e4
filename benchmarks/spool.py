"""What it costs to take a decision on record: the spool, without a server or a database."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Barrier, Thread
from time import perf_counter, thread_time_ns
from typing import Final, TypeVar

from benchmarks.figures import Bound, Figure, Target, spread, tail
from benchmarks.report import Progress
from licet.domain.capability_set import ALWAYS, NEVER, HeldCapability
from licet.domain.decision import Decision, Reason, Request
from licet.domain.decision_event import decision_body
from licet.domain.instant import Instant
from licet.domain.names import Action, Caller, CapabilityId, Principal, Resource
from licet.domain.pattern import ResourcePattern
from licet.spool.folder import SpoolFolder
from licet.spool.log import SpoolAuditLog
from licet.spool.reader import SpoolReader
from licet.spool.writer import Durability, SpoolWriter

T = TypeVar("T")

SECTION: Final = "Taking events on record, in the spool"
TARGET: Final = Target(Bound.AT_MOST, 10.0)
ALONE_TARGET: Final = Target(Bound.AT_MOST, 5.0)

_EVENTS: Final = 20_000
_BATCH: Final = 100
_THREADS: Final = 64
_EACH: Final = 100
"""Events a thread, of those that wait for the disk."""
_MAX_BYTES: Final = 1 << 30
_SECONDS: Final = 30.0
_NOW: Final = Instant(1_800_000_000_000_000)
_CALLER: Final = Caller("service:benchmark")
_CAPABILITY: Final = HeldCapability(
    CapabilityId("0199c5f0-6a5e-7cc3-98c4-000000000001"),
    ResourcePattern("doc:reports/**"),
    (Action("read"),),
    ALWAYS,
    NEVER,
)


def measure(rounds: int, progress: Progress) -> list[Figure]:
    """Append one by one and in batches, read back, and have many threads wait for the disk."""
    progress.step("taking events on record in a spool")
    encoded = bodies(_EVENTS, _NOW)
    decided = [_decided(number) for number in range(_EVENTS)]
    batches = [
        tuple(zip(*decided[first : first + _BATCH], strict=True))
        for first in range(0, _EVENTS, _BATCH)
    ]
    with _temporary(Durability.NONE) as writer:
        log = SpoolAuditLog(writer, lambda: _NOW)
        record, record_all = log.record, log.record_all
        found = _alternately(
            writer,
            {
                "one": lambda: _each(lambda one: record(_CALLER, _NOW, *one), decided),
                "many": lambda: _each(lambda many: record_all(_CALLER, _NOW, *many), batches),
                "append": lambda: _each(writer.append, encoded),
            },
            rounds,
        )
    return [
        Figure(SECTION, "a decision: encoded and appended", spread(found["one"]), "us", TARGET),
        Figure(SECTION, f"{_BATCH} decisions at once, each", spread(found["many"]), "us", TARGET),
        Figure(SECTION, "of one, the append", spread(found["append"]), "us"),
        Figure(SECTION, "read back", spread(found["read back"]), "us"),
        *_durable(encoded, rounds),
    ]


def bodies(count: int, now: Instant) -> list[bytes]:
    """Return what goes on record of so many ordinary decisions, taken from an instant on."""
    return [decision_body(_CALLER, Instant(now + n), *_decided(n)) for n in range(count)]


@contextmanager
def spool(root: Path, durability: Durability, writer_id: int) -> Iterator[SpoolWriter]:
    """Provide a writer, whose spool is removed at the end."""
    folder = SpoolFolder.create(root, writer_id)
    writer = SpoolWriter(folder, durability, max_bytes=_MAX_BYTES)
    try:
        yield writer
    finally:
        writer.close()
        folder.remove()


def _alternately(
    writer: SpoolWriter, runs: Mapping[str, Callable[[], None]], rounds: int
) -> dict[str, list[float]]:
    """Append in turn in each way, and read what was appended after each."""
    reader = SpoolReader(writer.folder, 0, lambda: writer.appended)

    def read() -> None:
        while reader.read(1000) is not None:
            writer.folder.discard(reader.position)

    found: dict[str, list[float]] = {name: [] for name in (*runs, "read back")}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(_microseconds(run))
            found["read back"].append(_microseconds(read))
    reader.close()
    return found


def _each(do: Callable[[T], object], items: Iterable[T]) -> None:
    for item in items:
        do(item)


def _durable(encoded: Sequence[bytes], rounds: int) -> list[Figure]:
    """Let one thread and many append, each waiting until its event is on disk."""
    rates: list[float] = []
    waits: list[float] = []
    alone: list[float] = []
    for _ in range(rounds):
        with _temporary(Durability.GROUP) as writer:
            alone += _one_by_one(writer, encoded)
            seconds, each = _together(writer, encoded)
        rates.append(_THREADS * _EACH / seconds)
        waits.append(median(each))
    name = f"durable, {_THREADS} threads that wait"
    return [
        Figure(SECTION, "durable, alone: p95, p50 and longest", tail(alone), "ms", ALONE_TARGET),
        Figure(SECTION, name, spread(rates), "events/s"),
        Figure(SECTION, f"{name}, median of a wait", spread(waits), "ms"),
    ]


def _one_by_one(writer: SpoolWriter, encoded: Sequence[bytes]) -> list[float]:
    """Append some events, and return the milliseconds of each until it was on disk."""
    waits = []
    for body in encoded[:_EACH]:
        before = perf_counter()
        writer.wait(writer.append(body), _SECONDS)
        waits.append(1000 * (perf_counter() - before))
    return waits


def _together(writer: SpoolWriter, encoded: Sequence[bytes]) -> tuple[float, list[float]]:
    begin = Barrier(_THREADS + 1)
    waits: list[float] = []

    def append() -> None:
        begin.wait(_SECONDS)
        waits.extend(_one_by_one(writer, encoded))

    threads = [Thread(target=append) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    begin.wait(_SECONDS)
    before = perf_counter()
    for thread in threads:
        thread.join()
    return perf_counter() - before, waits


@contextmanager
def _temporary(durability: Durability) -> Iterator[SpoolWriter]:
    # Not the system's folder for temporary files, which may be in memory.
    with (
        tempfile.TemporaryDirectory(prefix="licet-spool-", dir=Path.cwd()) as root,
        spool(Path(root), durability, 1) as writer,
    ):
        yield writer


def _microseconds(run: Callable[[], None]) -> float:
    """Return the microseconds of one event, without those that others took."""
    begin = thread_time_ns()
    run()
    return (thread_time_ns() - begin) / 1000 / _EVENTS


def _decided(number: int) -> tuple[Request, Decision]:
    """Return an ordinary decision; a hundred agents ask about a thousand documents."""
    resource = Resource(f"doc:reports/2026/q3/{number % 1000}")
    request = Request(Principal(f"agent:worker-{number % 100}"), Action("read"), resource)
    return request, Decision(True, Reason.GRANTED, _CAPABILITY, None, number)  # noqa: FBT003 - allowed
