"""Ends waits for a database that does not answer and does not hang up.

`statement_timeout` is the server's, and TCP's timers see a peer that acknowledges and is silent (a
stopped process, a stuck proxy) as alive. So each use of a connection is watched: past its time, the
socket is shut down, and whoever waits on it finds the connection lost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Condition, Thread
from time import monotonic
from typing import Any, Final

from psycopg import Connection

GRACE_SECONDS: Final = 1.0
"""How much longer than a statement may run its answer may take."""
_TICK_SECONDS: Final = 0.25


class Watchdog:
    """Watches the connections in use; one thread, asleep while there are none."""

    def __init__(self) -> None:
        """Start watching."""
        # Guards all below. A connection is taken out under it before it is used otherwise, so a
        # descriptor that is shut down is the one that was watched.
        self._changed = Condition()
        self._watched: dict[int, tuple[float, Connection[Any]]] = {}
        self._was_used = False
        self._is_asleep = False
        self._closed = False
        self._thread = Thread(target=self._run, name="licet-watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def watching(self, connection: Connection[Any], seconds: float) -> Iterator[None]:
        """Shut the connection's socket down if the block takes longer."""
        key = id(connection)
        with self._changed:
            self._watched[key] = (monotonic() + seconds, connection)
            self._was_used = True
            if self._is_asleep:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._watched.pop(key, None)

    def close(self) -> None:
        """End; nothing is watched any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(5.0)

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                # In steady use it is not woken for each connection; it looks, every tick.
                self._is_asleep = not self._was_used and not self._watched
                self._was_used = False
                self._changed.wait(None if self._is_asleep else _TICK_SECONDS)
                now = monotonic()
                for key, (end, connection) in list(self._watched.items()):
                    if now >= end:
                        del self._watched[key]
                        _shut_down(connection)


def _shut_down(connection: Connection[Any]) -> None:
    # A duplicate, because closing this one must not close libpq's.
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
