"""A worker under load as a flame graph, and where the microseconds of a call go: `make profile`.

`python -m benchmarks.profile FOLDER [SECONDS]` writes `profile.svg` (a flame graph),
`profile.speedscope.json` (for speedscope) and `profile.md` (a table). By py-spy, which looks at the
worker from outside and needs the right to: that of root, or of whoever may trace.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import customs, seed
from benchmarks.figures import BenchmarkError
from benchmarks.processes import thread_seconds
from benchmarks.seed import FEW, Match
from benchmarks.server import Variant
from benchmarks.stand import Cores, Stand, preparing, standing
from benchmarks.throughput import Kind, authorize, burst

SECONDS: Final = 10.0
_HZ: Final = 500
_WARM_UP_SECONDS: Final = 1.0
_LEAD_SECONDS: Final = 2.0
"""By how much the load is longer than a recording, which takes a moment to begin."""
_HOLDER: Final = seed.principals("profiled", 1)[0]
_THREAD = re.compile(r"^thread \((?P<id>\d+)\)(?:: (?P<name>.*))?$")
_FRAME = re.compile(r"^(?P<function>.+) \((?P<file>.+?)(?::\d+)?\)$")
_ANSWERING: Final = "(_serve)"
"""In the name of gRPC's thread."""
_GRPC: Final = "the answering thread: gRPC, its core, and the kernel's sockets"
_PARTS: Final = (
    ("grpc/", _GRPC),
    ("licet/server/hybrid.py", _GRPC),  # which calls gRPC's core, in C, by itself
    ("licet/server/", "the answering thread: the call: caller, limits, checking, the answer"),
    ("licet/policies/", "the answering thread: conditions of policies"),
    ("licet/spool/", "the answering thread: the record"),
    ("licet/", "the answering thread: the decision"),
)
_OTHERS: Final = {
    "licet-audit": "events are stored",
    "licet-spool": "segments are made",
    "licet-replica": "the lease is renewed",
}
_SHOWN: Final = 0.005
"""The least part of a call's time that is a row of the table."""


class Place(NamedTuple):
    """Where time goes: a thread by its name, a file, and a function in it."""

    thread: str
    file: str
    function: str


def places(raw: str, used: Mapping[int, float]) -> dict[Place, float]:
    """Share the processor time of each thread among the places where py-spy has seen it.

    The time is that of the innermost frame; if that is in C, of the function in Python that called
    it. py-spy takes some waiting for work, so that it alone could not tell one thread from another.

    Args:
        raw: what py-spy calls its raw format. A line is a stack, the thread first, and how often it
            was seen.
        used: the processor time of each thread meanwhile.
    """
    seen: dict[int, Counter[Place]] = {}
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        outermost, *frames = stack.split(";")
        thread, inner = _THREAD.match(outermost), _FRAME.match(frames[-1]) if frames else None
        if thread is not None and inner is not None:
            place = Place(thread["name"] or "", _short(inner["file"]), inner["function"])
            seen.setdefault(int(thread["id"]), Counter())[place] += int(count)
    found: dict[Place, float] = {}
    for thread_id, counts in seen.items():
        total = counts.total()
        for place, times in counts.items():
            part = used.get(thread_id, 0.0) * times / total
            found[place] = found.get(place, 0.0) + part
    return found


def parts(found: Mapping[Place, float]) -> dict[str, float]:
    """Sum the times of places up by what is done there, the most expensive first."""
    summed: dict[str, float] = {}
    for place, time in found.items():
        summed[_part(place)] = summed.get(_part(place), 0.0) + time
    return dict(sorted(summed.items(), key=lambda item: -item[1]))


def _part(place: Place) -> str:
    if _ANSWERING not in place.thread:
        return f"other threads: {_OTHERS.get(place.thread, 'the rest')}"
    for beginning, part in _PARTS:
        if place.file.startswith(beginning):
            return part
    return "the answering thread: Python's own modules"


def _short(file: str) -> str:
    return file.rpartition("site-packages/")[2].rpartition("src/")[2]


def table(found: Mapping[Place, float], microseconds: float) -> str:
    """Lay out where the microseconds of a call go, the most expensive place first.

    Args:
        found: the time of each place.
        microseconds: the worker's processor time for a call, all of its threads.
    """
    total = sum(found.values())
    lines = ["| part | us a call | of all |", "|---|---|---|"]
    lines += [
        f"| {part} | {time / total * microseconds:.1f} | {time / total:.1%} |"
        for part, time in parts(found).items()
    ]
    lines.append(f"| **together** | {microseconds:.1f} | 100% |")
    lines += ["", "| thread | where | us a call | of all |", "|---|---|---|---|"]
    rest = 0.0
    for place, time in sorted(found.items(), key=lambda item: -item[1]):
        part = time / total
        if part < _SHOWN:
            rest += part
            continue
        where = f"`{place.file}` `{place.function}`"
        lines.append(f"| {place.thread} | {where} | {part * microseconds:.2f} | {part:.1%} |")
    lines.append(f"| | everything else | {rest * microseconds:.2f} | {rest:.1%} |")
    lines.append(f"| | **together** | {microseconds:.2f} | 100% |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Record, and write what was found into a folder."""
    folder = Path(arguments[0])
    seconds = float(arguments[1]) if len(arguments) > 1 else SECONDS
    folder.mkdir(parents=True, exist_ok=True)
    with (
        preparing(Cores.of_this_machine(), {_HOLDER: FEW}) as site,
        # In memory, so that all of a call is on the thread that answers it.
        standing(site, Variant.UNSYNCED) as (stand,),
    ):
        customs.put_policies(stand.channel)
        kind = authorize(stand, _HOLDER, Match.EXACT, customs.key(stand.channel))
        burst(stand, kind, _WARM_UP_SECONDS)
        for name, form in (
            ("profile.svg", "flamegraph"),
            ("profile.speedscope.json", "speedscope"),
        ):
            _record(stand, kind, seconds, form, folder / name)
        (pid,), raw = stand.server.pids, site.folder / "profile.raw"
        before = thread_seconds(pid)
        _record(stand, kind, seconds, "raw", raw)
        after = thread_seconds(pid)
        used = {thread: after[thread] - before.get(thread, 0.0) for thread in after}
        found = places(raw.read_text(encoding="utf-8"), used)
        # What a call costs when nobody looks.
        burst(stand, kind, seconds)
    if not found:
        raise BenchmarkError("py-spy saw nothing that it can name")
    (folder / "profile.md").write_text(table(found, 1e6 / kind.rates[-1]), encoding="utf-8")
    print(f"written to {folder}: profile.svg, profile.speedscope.json, profile.md")
    return 0


def _record(stand: Stand, kind: Kind, seconds: float, form: str, path: Path) -> None:
    """Have py-spy look at the worker while it is under load.

    Raises:
        BenchmarkError: it may not, or cannot.
    """
    (pid,) = stand.server.pids
    command = [
        _program(),
        *("record", "--pid", str(pid), "--rate", str(_HZ), "--duration", str(round(seconds))),
        *("--format", form, "--output", str(path), "--threads", "--function", "--nonblocking"),
    ]
    with ExitStack() as stack:
        thread = stack.enter_context(ThreadPoolExecutor(1))
        loaded = thread.submit(burst, stand, kind, seconds + _LEAD_SECONDS)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        loaded.result()
    if done.returncode:
        raise BenchmarkError(f"py-spy: {done.stderr.strip() or done.stdout.strip()}")


def _program() -> str:
    """Return where py-spy is: beside this Python, if it is not on the path.

    Raises:
        BenchmarkError: it is not installed.
    """
    found = shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy")
    if found is None:
        raise BenchmarkError("py-spy is missing: `make profile` installs it")
    return found


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchmarkError as exc:
        sys.exit(str(exc))
