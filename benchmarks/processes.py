"""Processes as the kernel sees them: who started whom, what they used, on which cores they run."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Event
from time import clock_gettime
from typing import Final

_PROC: Final = Path("/proc")
_LIBC: Final = ctypes.CDLL(None)
_LEAST: Final = 19
"""Of the kernel's priorities."""
_GROUP_SECONDS: Final = 0.11
"""How often a user may change that of a group (sched_autogroup_write in the kernel)."""
_GROUP_TRIES: Final = 5


def parent(pid: int) -> int:
    """Return who started a process."""
    text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    # After the name in parentheses, which may hold anything: its state, and then this.
    return int(text.rpartition(")")[2].split()[1])


def family(pid: int) -> list[int]:
    """Return a process and all that it and its descendants started."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it has ended meanwhile
                children.setdefault(parent(int(entry.name)), []).append(int(entry.name))
    found = [pid]
    for member in found:  # which grows
        found += children.get(member, [])
    return found


def processor_seconds(pids: Iterable[int]) -> float:
    """Return how much of a core's time running processes have used, all together.

    Not from /proc, which tells it in hundredths of a second: a burst does not have many.
    """
    clock, seconds = ctypes.c_int(), 0.0
    for pid in pids:
        if _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)):
            raise ProcessLookupError(f"process {pid} has ended")
        seconds += clock_gettime(clock.value)
    return seconds


def thread_seconds(pid: int) -> dict[int, float]:
    """Return how much of a core's time each thread of a process has used, by the thread's id."""
    found = {}
    for thread in (_PROC / str(pid) / "task").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            nanoseconds = (thread / "schedstat").read_text(encoding="ascii").split()[0]
            found[int(thread.name)] = int(nanoseconds) / 1e9
    return found


def resident_bytes(pid: int) -> int:
    """Return how much memory a running process takes, the files that it has mapped included."""
    return _memory(pid, "VmRSS")


def private_bytes(pid: int) -> int:
    """Return how much memory a running process takes, without files: those of a spool are."""
    return _memory(pid, "RssAnon")


def _memory(pid: int, wanted: str) -> int:
    for line in (_PROC / str(pid) / "status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == wanted:
            return int(value.removesuffix("kB")) * 1024
    raise ProcessLookupError(f"process {pid} has ended")


def confine(pids: Iterable[int], cores: Collection[int]) -> None:
    """Let processes run on these cores only, and what they start from now on as well."""
    for pid in pids:
        with suppress(OSError):  # it has ended meanwhile
            for thread in (_PROC / str(pid) / "task").iterdir():
                with suppress(OSError):
                    os.sched_setaffinity(int(thread.name), cores)


def give_way(pids: Iterable[int]) -> None:
    """Let processes run, on cores that they share with this one, when that has nothing to do.

    The kernel may share a core among sessions, however many processes each has, and then looks at
    the priority of a process only beside others of its session (autogroup, sched(7)): PostgreSQL's
    each have a session of their own.
    """
    for pid in pids:
        with suppress(OSError):  # it has ended meanwhile
            for thread in (_PROC / str(pid) / "task").iterdir():
                with suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), _LEAST)
            if os.getsid(pid) != os.getsid(0):
                _let_group_give_way(_PROC / str(pid) / "autogroup")


def _let_group_give_way(group: Path) -> None:
    for _ in range(_GROUP_TRIES):
        with suppress(BlockingIOError):
            group.write_text(str(_LEAST), encoding="ascii")
            return
        Event().wait(_GROUP_SECONDS)
