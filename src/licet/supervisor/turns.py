"""Which worker has what only one of them can have at a time: clients find its Unix socket.

The kernel spreads the connections to a TCP port over all that listen on it; a Unix socket has one
listener. So the workers take turns: long enough to cost nothing, and much shorter than a connection
lives, so that in the course of time each has its share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from licet.supervisor.reports import State
from licet.supervisor.worker import Worker

SECONDS: Final = 1.0
"""How long a turn is."""


class Turns:
    """See the module."""

    def __init__(self, give: Callable[[int], None], seconds: float = SECONDS) -> None:
        """Let `give` give it to a process, and take it from the one before; it raises nothing."""
        self._give = give
        self._seconds = seconds
        self._holder = 0
        self._over = 0.0

    def look(self, workers: Sequence[Worker]) -> None:
        """Give it to another one, if it is time, or if its holder has gone or is about to."""
        able = [worker.pid for worker in workers if _is_able(worker)]
        # With none that serves, each says so itself.
        serving = [worker.pid for worker in workers if worker.is_serving and worker.pid in able]
        able = serving or able
        if not able or (self._holder in able and monotonic() < self._over):
            return
        # The next in order, or the first.
        following = [*able, *able]
        turn = able.index(self._holder) + 1 if self._holder in able else 0
        self._holder = following[turn]
        self._over = monotonic() + self._seconds
        # Also to the one that has it: somebody may have removed it.
        self._give(self._holder)


def _is_able(worker: Worker) -> bool:
    return worker.is_ready and worker.state is not State.LEAVING and worker.exit_code() is None
