"""Workers as real processes, which can be stopped, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from select import select
from threading import Lock
from typing import Final, Self

import grpc

from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub

ROOT: Final = Path(__file__).parents[2]
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
# A worker that comes back is found at once.
_CHANNEL_OPTIONS: Final = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


def python_environment() -> dict[str, str]:
    """Return the environment in which a Python finds what this one does, and no settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LICET_")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}


class Worker:
    """One process and a client of it; `start` may be called again after `kill`."""

    def __init__(
        self, url: str, *, without: str | None = None, log: Path | None = None, **settings: object
    ) -> None:
        """Describe it.

        Args:
            url: of its database.
            without: the safeguard that it does without.
            log: where its log is appended; thrown away otherwise.
            settings: of licet.
        """
        chosen = {"database_url": url, "listen": "127.0.0.1:0", "drain_seconds": 0.2} | settings
        self._environment = python_environment() | {
            f"LICET_{name.upper()}": str(value) for name, value in chosen.items()
        }
        self._command = [sys.executable, "-m", "tests.chaos.worker"]
        if without is not None:
            self._command.append(without)
        self._log = log
        # Guards the start and the end of the process against signals to one that has ended.
        self._mutex = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None
        self.stub: AuthorizationServiceStub

    def __enter__(self) -> Self:
        """Start and return when it serves."""
        self.launch()
        self.wait_until_serving()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()

    def launch(self) -> None:
        """Start the process."""
        with ExitStack() as stack:
            log = stack.enter_context(self._log.open("ab")) if self._log else subprocess.DEVNULL
            process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        with self._mutex:
            self._process = process

    def wait_until_serving(self) -> None:
        """Return when it serves; that it does is asserted."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        readable, _, _ = select([process.stdout], [], [], _START_SECONDS)
        assert readable, "the worker does not start"
        port = process.stdout.readline().strip()
        assert port, f"the worker ended with {process.wait()}"
        self._disconnect()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port.decode()}", _CHANNEL_OPTIONS)
        self.stub = AuthorizationServiceStub(self._channel)

    def pause(self) -> None:
        """Stop it in the middle of whatever it does (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without any notice (SIGKILL)."""
        self._signal(signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        """End it cleanly."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(_STOP_SECONDS) == 0
        self._reap()

    def _signal(self, number: signal.Signals) -> None:
        with self._mutex:
            if self._process is not None:
                self._process.send_signal(number)

    def _reap(self) -> None:
        with self._mutex:
            process, self._process = self._process, None
        if process is not None:
            process.wait(_STOP_SECONDS)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self._disconnect()

    def _disconnect(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


@contextmanager
def running(*workers: Worker) -> Iterator[None]:
    """Run workers, all started at once."""
    with ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.kill)
            worker.launch()
        for worker in workers:
            worker.wait_until_serving()
        yield
