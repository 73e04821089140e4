"""What it costs to take an event on record: the spool, without a server or a database around it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Barrier, Thread
from time import perf_counter, thread_time_ns
from typing import Final, TypeVar

from benchmarks.figures import Bound, Figure, Target, spread
from benchmarks.report import Progress
from licet.domain.audit_event import AuditEvent, EventType, Result, leaf_body
from licet.domain.instant import Instant
from licet.spool.folder import SpoolFolder
from licet.spool.reader import SpoolReader
from licet.spool.writer import Durability, SpoolWriter

T = TypeVar("T")

SECTION: Final = "Taking events on record, in the spool"
TARGET: Final = Target(Bound.AT_MOST, 10.0)

_EVENTS: Final = 20_000
_BATCH: Final = 100
_THREADS: Final = 64
_EACH: Final = 100
"""Events a thread, of those that wait for the disk."""
_MAX_BYTES: Final = 1 << 30
_SECONDS: Final = 30.0
_START: Final = 1_800_000_000_000_000


def measure(rounds: int, progress: Progress) -> list[Figure]:
    """Append one by one and in batches, read back, and have many threads wait for the disk."""
    progress.step("taking events on record in a spool")
    events = [_event(number) for number in range(_EVENTS)]
    encode = leaf_body
    bodies = [encode(event) for event in events]
    batches = [bodies[first : first + _BATCH] for first in range(0, _EVENTS, _BATCH)]
    with _spool(Durability.NONE) as writer:
        append, append_all = writer.append, writer.append_all
        found = _alternately(
            writer,
            {
                "encode and append": lambda: _each(lambda event: append(encode(event)), events),
                "append": lambda: _each(append, bodies),
                "append_all": lambda: _each(append_all, batches),
            },
            rounds,
        )
    return [
        Figure(SECTION, "encode and append", spread(found["encode and append"]), "us", TARGET),
        Figure(SECTION, "append", spread(found["append"]), "us", TARGET),
        Figure(SECTION, f"append, {_BATCH} at once, each", spread(found["append_all"]), "us"),
        Figure(SECTION, "read back", spread(found["read back"]), "us"),
        *_durable(bodies, rounds),
    ]


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


def _durable(bodies: Sequence[bytes], rounds: int) -> list[Figure]:
    """Let many threads append, each waiting until its event is on disk."""
    rates: list[float] = []
    waits: list[float] = []
    for _ in range(rounds):
        with _spool(Durability.GROUP) as writer:
            seconds, each = _together(writer, bodies)
        rates.append(_THREADS * _EACH / seconds)
        waits.append(median(each) * 1000)
    name = f"durable, {_THREADS} threads that wait"
    return [
        Figure(SECTION, name, spread(rates), "events/s"),
        Figure(SECTION, f"{name}, median of a wait", spread(waits), "ms"),
    ]


def _together(writer: SpoolWriter, bodies: Sequence[bytes]) -> tuple[float, list[float]]:
    begin = Barrier(_THREADS + 1)
    waits: list[float] = []

    def append() -> None:
        begin.wait(_SECONDS)
        mine = []
        for body in bodies[:_EACH]:
            before = perf_counter()
            writer.wait(writer.append(body), _SECONDS)
            mine.append(perf_counter() - before)
        waits.extend(mine)

    threads = [Thread(target=append) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    begin.wait(_SECONDS)
    before = perf_counter()
    for thread in threads:
        thread.join()
    return perf_counter() - before, waits


@contextmanager
def _spool(durability: Durability) -> Iterator[SpoolWriter]:
    # Not the system's folder for temporary files, which may be in memory.
    with tempfile.TemporaryDirectory(prefix="licet-spool-", dir=Path.cwd()) as root:
        folder = SpoolFolder.create(Path(root), 1)
        writer = SpoolWriter(folder, durability, max_bytes=_MAX_BYTES)
        try:
            yield writer
        finally:
            writer.close()
            folder.remove()


def _microseconds(run: Callable[[], None]) -> float:
    """Return the microseconds of one event, without those that others took."""
    begin = thread_time_ns()
    run()
    return (thread_time_ns() - begin) / 1000 / _EVENTS


def _event(number: int) -> AuditEvent:
    """Return the event of an ordinary decision; a hundred agents ask about a thousand documents."""
    return AuditEvent(
        Instant(_START + number),
        EventType.DECISION,
        "service:benchmark",
        f"agent:worker-{number % 100}",
        "read",
        f"doc:reports/2026/q3/{number % 1000}",
        "0199c5f0-6a5e-7cc3-98c4-000000000001",
        Result.ALLOW,
        "",
        "",
        "",
        "",
        number,
    )
