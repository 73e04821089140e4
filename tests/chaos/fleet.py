"""Workers as real processes, which can be stopped, killed and started again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from select import select
from threading import Lock
from time import monotonic
from typing import Final, Self

import grpc
from typing_extensions import override

from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.fakes.terminal import without_settings

ROOT: Final = Path(__file__).parents[2]
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 60.0
# A worker that comes back is found at once, and each channel has a connection of its own.
_CHANNEL_OPTIONS: Final = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
]
_SERVES: Final = re.compile(rb"serves on (\S+)\n")


def python_environment() -> dict[str, str]:
    """Return `without_settings`, in which a Python finds what this one does."""
    return without_settings() | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    }


class Server:
    """A program that serves, and a client of it; `launch` may be called again after `kill`."""

    def __init__(
        self, url: str, command: list[str], connections: int, log: Path | None, **settings: object
    ) -> None:
        """Describe it.

        Args:
            url: of its database.
            command: the module that is run, and its arguments. It says where it serves, and ends
                when its standard input does.
            connections: of the client.
            log: where its log is appended; thrown away otherwise.
            settings: of licet.
        """
        chosen = {"database_url": url, "listen": "127.0.0.1:0", "drain_seconds": 0.2} | settings
        self._environment = python_environment() | {
            f"LICET_{name.upper()}": str(value) for name, value in chosen.items()
        }
        self._command = [sys.executable, "-m", *command]
        self._connections = connections
        self._log = log
        # Guards the start and the end of the process against signals to one that has ended.
        self._mutex = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channels: list[grpc.Channel] = []
        self._stubs: list[AuthorizationServiceStub] = []
        self._turn = count()

    def __enter__(self) -> Self:
        """Start and return when it serves."""
        self.launch()
        assert self.serves()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()

    @property
    def stub(self) -> AuthorizationServiceStub:
        """One of the connections, each in turn."""
        stubs = self._stubs
        return stubs[next(self._turn) % len(stubs)]

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
                bufsize=0,
            )
        with self._mutex:
            self._process = process

    def serves(self) -> bool:
        """Wait until it serves, and say whether it does: otherwise it has ended."""
        address = self._address()
        if address is None:
            self._reap()
            return False
        self._disconnect()
        self._channels = [
            grpc.insecure_channel(address, _CHANNEL_OPTIONS) for _ in range(self._connections)
        ]
        self._stubs = [AuthorizationServiceStub(channel) for channel in self._channels]
        return True

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

    def tell(self, command: str) -> None:
        """Send it a command; nothing happens when it has ended."""
        with self._mutex, suppress(BrokenPipeError):
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write(f"{command}\n".encode())

    def process_id(self) -> int:
        """Return the id of its process."""
        assert self._process is not None
        return self._process.pid

    def _address(self) -> str | None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        said, end = b"", monotonic() + _START_SECONDS
        while (found := _SERVES.search(said)) is None:
            readable, _, _ = select([process.stdout], [], [], max(end - monotonic(), 0))
            assert readable, "it does not start"
            data = os.read(process.stdout.fileno(), 1 << 12)
            if not data:
                return None
            said += data
        return found[1].decode()

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
        channels, self._channels = self._channels, []
        for channel in channels:
            channel.close()


class Worker(Server):
    """A worker that was started alone, and obeys the commands of `worker.py`."""

    def __init__(
        self, url: str, *, without: str | None = None, log: Path | None = None, **settings: object
    ) -> None:
        """Describe it; `without` is the safeguard that it does without."""
        command = ["tests.chaos.worker"] + ([] if without is None else [without])
        super().__init__(url, command, 1, log, **settings)


class Supervisor(Server):
    """`licet serve --workers 2`: a supervisor, its workers, which share a port, and its steward."""

    def __init__(self, url: str, *, log: Path | None = None, **settings: object) -> None:
        """Describe it."""
        # The kernel spreads connections over the workers.
        super().__init__(url, ["tests.chaos.supervisor"], 6, log, **settings)
        self._known: dict[int, SupervisedWorker] = {}

    def workers(self) -> list[SupervisedWorker]:
        """Return its workers of now, serving or not."""
        return [child for child in self.children() if not child.is_steward]

    def stewards(self) -> list[SupervisedWorker]:
        """Return its stewards of now: one, or two while one replaces the other."""
        return [child for child in self.children() if child.is_steward]

    def children(self) -> list[SupervisedWorker]:
        """Return all of its processes."""
        parent = self.process_id()
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
        except FileNotFoundError:
            children = ""
        now = [int(child) for child in children.split()]
        for gone in set(self._known) - set(now):
            self._known.pop(gone).close()
        for new in set(now) - set(self._known):
            with suppress(ProcessLookupError):
                self._known[new] = SupervisedWorker(new)
        return [self._known[pid] for pid in sorted(self._known)]

    def kill_alone(self) -> list[SupervisedWorker]:
        """Kill the supervisor, and return its processes, which have been told by that to drain.

        Workers go on to serve their clients; `kill` ends whatever is left.
        """
        left = self.children()
        self._signal(signal.SIGKILL)
        return left

    @override
    def kill(self) -> None:
        """Kill it, its workers and its steward."""
        # First of all, so that it starts no others. Until it is reaped its children are known.
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self.children()
        for worker in self._known.values():
            worker.send(signal.SIGKILL)
            worker.has_ended(_STOP_SECONDS)
            worker.close()
        self._known.clear()
        super().kill()


class SupervisedWorker:
    """A process of a supervisor, by a descriptor: its id may come to be another process's."""

    def __init__(self, pid: int) -> None:
        """Take hold of it.

        Raises:
            ProcessLookupError: it has ended.
        """
        self._pid = pid
        self._descriptor = os.pidfd_open(pid)

    @property
    def is_steward(self) -> bool:
        """Whether it is a steward; not known of one that is just starting, or has ended."""
        with suppress(OSError):
            return b"\0steward\0" in Path(f"/proc/{self._pid}/cmdline").read_bytes()
        return False

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def has_ended(self, within: float) -> bool:
        """Say whether it ends within so many seconds."""
        return bool(select([self._descriptor], [], [], within)[0])

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Run servers, all started at once."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.launch()
        for server in servers:
            assert server.serves()
        yield
