"""The cores of a host, and the workers that are kept to them.

Threads of one interpreter hand its lock to each other at less cost on one core than from core to
core.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_THREADS: Final = Path("/proc/self/task")


class CoresError(Exception):
    """A worker cannot be kept to the core that was named for it; the message names the setting."""


def check_cores(cores: Sequence[int]) -> None:
    """Check that this process, and so its workers, may use the cores that were named.

    Raises:
        CoresError: there is no such core, or it is not in the affinity mask (taskset, a cpuset).
    """
    usable = os.sched_getaffinity(0)
    refused = [core for core in cores if core not in usable]
    if refused:
        raise CoresError(
            f"LICET_WORKER_CORES names {_listed(refused)}, and this process may use"
            f" {_listed(sorted(usable))} only"
        )


def core_of(slot: int, count: int, cores: Sequence[int]) -> int | None:
    """Return the core for the worker of a slot: the one that was named for it.

    Without names, one of its own, if there are as many workers as usable cores; None otherwise:
    with fewer, several servers on one host would all choose the first cores.
    """
    if cores:
        return cores[slot]
    usable = sorted(os.sched_getaffinity(0))
    return usable[slot] if 1 < count == len(usable) else None


def keep_to(core: int) -> None:
    """Keep every thread of this process to a core, and those that they start.

    Processes that it has started go on as they are: the embedded database is not to share the core.
    A core that went away since it was checked is no reason not to serve.
    """
    kept: set[int] = set()
    while new := {int(task.name) for task in _THREADS.iterdir()} - kept:
        # One that is started meanwhile by a thread that is not kept yet is seen the next time.
        for thread in new:
            with suppress(OSError):
                os.sched_setaffinity(thread, {core})
        kept |= new


def _listed(cores: Sequence[int]) -> str:
    return ", ".join(map(str, cores))
