"""A PostgreSQL that crashes, and that a stranger holds up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

import psycopg

from licet.storage.embedded import EmbeddedPostgres


class CrashingPostgres:
    """An embedded PostgreSQL that can be crashed and comes back at the same address."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        """Keep it in a folder."""
        self._folder = folder
        self._settings = settings
        self._server = self._new()
        # The kernel shuts it down when the thread that started it ends: that of a fault ends
        # before the last of the others is mended.
        self._starter = ThreadPoolExecutor(1, "postgres")

    def _new(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self._folder, settings=self._settings)

    @property
    def url(self) -> str:
        """How libpq connects to it."""
        return self._server.conninfo

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it."""
        with self._starter:
            self._start()
            try:
                yield
            finally:
                self._server.stop()

    def crash(self, away: Callable[[], object]) -> None:
        """Stop it as a crash would, call `away`, start it again."""
        pid = (self._folder / "cluster" / "postmaster.pid").read_text(encoding="ascii").split()[0]
        os.kill(int(pid), signal.SIGQUIT)  # "immediate": nothing is flushed, nobody is told
        self._server.stop()
        try:
            away()
        finally:
            self._server = self._new()
            self._start()

    def _start(self) -> None:
        self._starter.submit(self._server.start).result()


@contextmanager
def locked_replica(url: str, rng: Random) -> Iterator[None]:
    """Let the renewals of one replica hang, and whoever wants to fence it; notifications go on.

    That is what "the renewer stops and the listener lives" comes to: both are one connection.
    """
    with psycopg.connect(url, connect_timeout=2) as stranger:
        rows = stranger.execute("SELECT incarnation FROM licet.replicas ORDER BY 1").fetchall()
        if rows:
            stranger.execute(
                "SELECT FROM licet.replicas WHERE incarnation = %s FOR UPDATE", rng.choice(rows)
            )
        yield
