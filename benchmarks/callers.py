"""Callers in processes of their own, for what h2load cannot: certificates, many different requests.

gRPC's own client, which costs several times what h2load does, so that a server is not always busy:
its figures are compared only with figures that have the same callers.

`python -m benchmarks.callers` reads what to call from a line of its standard input, and then, line
by line, for how long and how often; it prints how many calls were answered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from threading import Event, Semaphore
from time import monotonic
from types import TracebackType
from typing import Final, Self

import grpc
from google.protobuf.message import Message

from benchmarks.figures import BenchmarkError
from benchmarks.processes import confine
from benchmarks.server import AUTHORITY, CLIENT_CERTIFICATE, CLIENT_KEY

PROCESSES: Final = 2
WINDOW: Final = 32
"""Calls under way in each process."""
# gRPC's newer poller costs a client half of its calls.
_ENVIRONMENT: Final = {"GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener"}
_CALL_SECONDS: Final = 10.0
_SIZE_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Calling:
    """What a process calls.

    Attributes:
        address: of the server.
        method: like `/licet.v1.AuthorizationService/Authorize`.
        requests: a file of messages, each after its size; sent one after the other, then again.
        response_bytes: the sizes that an answer may have.
        certificates: the folder of a server with TLS; empty: in plain text.
        credential: sent with each call, as `authorization`; empty: none is.
    """

    address: str
    method: str
    requests: str
    response_bytes: Sequence[int]
    certificates: str = ""
    credential: str = ""


def write_requests(path: Path, requests: Sequence[Message]) -> str:
    """Write a file of requests, and return its name."""
    frames = []
    for request in requests:
        message = request.SerializeToString()
        frames.append(len(message).to_bytes(_SIZE_BYTES, "big") + message)
    path.write_bytes(b"".join(frames))
    return str(path)


def read_requests(path: Path) -> list[bytes]:
    """Read what `write_requests` wrote."""
    content = path.read_bytes()
    found, at = [], 0
    while at < len(content):
        begin = at + _SIZE_BYTES
        at = begin + int.from_bytes(content[at:begin], "big")
        found.append(content[begin:at])
    return found


class Callers:
    """Some processes that call; they end when it is left."""

    def __init__(
        self, callings: Sequence[Calling], cores: Collection[int], window: int = WINDOW
    ) -> None:
        """Start a process for each calling.

        Args:
            callings: what each calls.
            cores: those that they may use.
            window: calls under way in each.
        """
        self._callings = callings
        self._cores = cores
        self._window = window
        self._stack = ExitStack()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for calling in self._callings:
            process = self._stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.callers"],
                    env=os.environ | _ENVIRONMENT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            confine([process.pid], self._cores)
            self._processes.append(process)
            self._tell(process, {**asdict(calling), "window": self._window})
        for process in self._processes:
            self._heard(process)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        self._stack.close()

    def call(self, seconds: float, rate: float = 0) -> int:
        """Call for some seconds and return how many calls were answered.

        Args:
            seconds: how long.
            rate: calls a second of all together; 0: the next one as soon as one is answered.

        Raises:
            BenchmarkError: a call failed, or an answer was of another size.
        """
        for process in self._processes:
            self._tell(process, {"seconds": seconds, "rate": rate / len(self._processes)})
        return sum(self._heard(process) for process in self._processes)

    def _tell(self, process: subprocess.Popen[str], what: dict[str, object]) -> None:
        if process.stdin is not None:
            print(json.dumps(what), file=process.stdin, flush=True)

    def _heard(self, process: subprocess.Popen[str]) -> int:
        line = "" if process.stdout is None else process.stdout.readline().strip()
        if not line.isdecimal():
            raise BenchmarkError(f"calls were not answered: {line or 'see above'}")
        return int(line)


class _Caller:
    """Calls, in this process. `failure` is set by gRPC's threads, once or several times."""

    def __init__(self, calling: Calling, window: int) -> None:
        self._requests = cycle(read_requests(Path(calling.requests)))
        self._places = Semaphore(window)
        self._window = window
        self._expected = calling.response_bytes
        header = (("authorization", calling.credential),) if calling.credential else ()
        self._metadata = header
        self._channel = _channel(calling)
        # Bytes as they are: what is measured is the server.
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            calling.method
        )
        self._pause = Event()
        self.failure = ""

    def run(self, seconds: float, rate: float) -> int:
        begin, sent = monotonic(), 0
        while (now := monotonic()) < begin + seconds and not self.failure:
            if rate and (early := begin + sent / rate - now) > 0:
                self._pause.wait(early)
                continue
            self._places.acquire()
            self._send(next(self._requests))
            sent += 1
        for _ in range(self._window):  # all have been answered
            self._places.acquire()
        self._places.release(self._window)
        return sent

    def _send(self, request: bytes) -> None:
        called = self._call.future(request, timeout=_CALL_SECONDS, metadata=self._metadata)
        called.add_done_callback(self._answered)

    def _answered(self, called: grpc.Future[bytes]) -> None:
        error = called.exception()
        if error is not None:
            self.failure = str(error)
        elif len(called.result()) not in self._expected:
            self.failure = f"an answer has {len(called.result())} bytes, none of {self._expected}"
        self._places.release()


def _channel(calling: Calling) -> grpc.Channel:
    if not calling.certificates:
        return grpc.insecure_channel(calling.address)
    folder = Path(calling.certificates)
    credentials = grpc.ssl_channel_credentials(
        *((folder / name).read_bytes() for name in (AUTHORITY, CLIENT_KEY, CLIENT_CERTIFICATE))
    )
    return grpc.secure_channel(calling.address, credentials)


def _main() -> None:
    told = json.loads(sys.stdin.readline())
    window = told.pop("window")
    caller = _Caller(Calling(**told), window)
    print(caller.run(0, 0), flush=True)
    for line in sys.stdin:
        sent = caller.run(**json.loads(line))
        print(" ".join(caller.failure.split()) or sent, flush=True)


if __name__ == "__main__":
    _main()
