"""What goes wrong while the clients are at work, chosen from a seed."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Final

from licet.storage.embedded import EmbeddedPostgres
from tests.chaos.fleet import Worker
from tests.chaos.proxy import SlowProxy

_JOIN_SECONDS: Final = 120.0
_DELAYS: Final = (0.002, 0.02, 0.1)


class CrashingPostgres:
    """An embedded PostgreSQL that can be crashed and comes back at the same address."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        """Keep it in a folder."""
        self._folder = folder
        self._settings = settings
        self._server = self._new()

    def _new(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self._folder, settings=self._settings)

    @property
    def url(self) -> str:
        """How libpq connects to it."""
        return self._server.conninfo

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it."""
        self._server.start()
        try:
            yield
        finally:
            self._server.stop()

    def crash(self, away: Callable[[], object]) -> None:
        """Stop it as a crash would, call `away`, start it again."""
        pid = (self._folder / "cluster" / "postmaster.pid").read_text(encoding="ascii").split()[0]
        os.kill(int(pid), signal.SIGQUIT)  # "immediate": nothing is flushed, nobody is told
        self._server.stop()
        away()
        self._server = self._new()
        self._server.start()


class Faults:
    """A thread that breaks one thing after the other and mends each before the next."""

    def __init__(
        self,
        workers: Sequence[Worker],
        proxies: Sequence[SlowProxy],
        postgres: CrashingPostgres | None,
        lease_seconds: float,
        seed: int,
    ) -> None:
        """Prepare.

        Args:
            workers: to stop and to kill.
            proxies: between each of the workers and PostgreSQL.
            postgres: to crash, if it may be.
            lease_seconds: the lease of the workers: some faults last longer.
            seed: of every choice.
        """
        self._workers = workers
        self._proxies = proxies
        self._postgres = postgres
        self._lease = lease_seconds
        self._rng = random.Random(seed)
        self._stopping = Event()
        self.happened: list[tuple[float, str]] = []
        """When each fault began, and what it was."""
        self._failure: BaseException | None = None
        self._known = {
            "pause": self._pause,
            "kill": self._kill,
            "cut": self._cut,
            "away": self._away,
            "stall": self._stall,
            "slow": self._slow,
        } | ({"crash": self._crash} if postgres is not None else {})

    @property
    def names(self) -> tuple[str, ...]:
        """Every fault there is."""
        return tuple(self._known)

    @contextmanager
    def happening(self, names: Sequence[str]) -> Iterator[None]:
        """Let these faults happen, each once before any of them again."""
        thread = Thread(target=self._run, args=(names,), name="faults")
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(_JOIN_SECONDS)
        if self._failure is not None:
            raise self._failure

    def _run(self, names: Sequence[str]) -> None:
        try:
            while names and not self._stopping.is_set():
                for name in self._rng.sample(names, len(names)):
                    if self._stopping.wait(self._rng.uniform(0.1, 0.7) * self._lease):
                        return
                    number = self._rng.randrange(len(self._workers))
                    self.happened.append((monotonic(), f"{name} {number}"))
                    self._known[name](number)
        except BaseException as exc:  # noqa: BLE001 - raised where the faults were started
            self._failure = exc

    def _last(self) -> None:
        """Wait as long as a fault lasts: shorter than a lease, about as long, or longer."""
        self._stopping.wait(self._rng.choice((0.3, 1.0, 1.3, 2.5)) * self._lease)

    def _pause(self, number: int) -> None:
        self._workers[number].pause()
        self._last()
        self._workers[number].resume()

    def _kill(self, number: int) -> None:
        self._workers[number].kill()
        self._workers[number].launch()
        self._workers[number].wait_until_serving()

    def _cut(self, number: int) -> None:
        self._proxies[number].cut()

    def _away(self, number: int) -> None:
        self._proxies[number].go_down()
        self._last()
        self._proxies[number].heal()

    def _stall(self, number: int) -> None:
        self._proxies[number].stall()
        self._last()
        self._proxies[number].heal()

    def _slow(self, number: int) -> None:
        self._proxies[number].slow(self._rng.choice(_DELAYS))
        self._last()
        self._proxies[number].heal()

    def _crash(self, _: int) -> None:
        if self._postgres is not None:
            self._postgres.crash(self._last)
