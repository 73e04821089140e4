"""Load from h2load, which makes an RPC cost a fraction of what any Python client makes it cost.

Unary gRPC is one HTTP/2 POST, so h2load can send it; it knows nothing of gRPC, so it takes every
answer for a success. An error has no message, and all messages of a burst have one size: the bytes
received tell whether each answer was one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf.message import Message

from benchmarks.figures import BenchmarkError


class Traffic(NamedTuple):
    """How calls are made.

    Attributes:
        connections: how many, each a client.
        streams: calls under way on each.
        rate: calls a second on each; 0: the next one as soon as one is answered.
        credential: sent with each, as `authorization`; empty: none is.
        messages: how often the request is sent in a call, each with an answer.
    """

    connections: int
    streams: int
    rate: int = 0
    credential: str = ""
    messages: int = 1

    @property
    def in_flight(self) -> int:
        """How many calls are under way at most."""
        return self.connections * self.streams


FULL: Final = Traffic(8, 8)

_MISSING: Final = (
    "h2load is missing: it drives the load. "
    "On Debian and Ubuntu, install the package nghttp2-client."
)
_FRAME_BYTES: Final = 5
_REQUESTS = re.compile(
    r"^requests: \d+ total, \d+ started, (?P<done>\d+) done, (?P<succeeded>\d+) succeeded,",
    re.MULTILINE,
)
_TRAFFIC = re.compile(r"^traffic: .*\((?P<data>\d+)\) data$", re.MULTILINE)


def program() -> str:
    """Return where h2load is.

    Raises:
        BenchmarkError: it is not installed; the message says how to install it.
    """
    found = shutil.which("h2load")
    if found is None:
        raise BenchmarkError(_MISSING)
    return found


class Load:
    """Sends one request again and again, for as long as asked."""

    def __init__(self, port: int, folder: Path, scheme: str = "http") -> None:
        """Send to a port of loopback, with the folder for files of its own.

        Raises:
            BenchmarkError: h2load is not installed.
        """
        self._program = program()
        self._port = port
        self._scheme = scheme
        self._folder = folder
        self._numbers = count()

    def burst(
        self,
        method: str,
        request: Message,
        response_bytes: int,
        seconds: float,
        traffic: Traffic = FULL,
    ) -> int:
        """Call a method for some seconds and return how many calls were answered.

        Args:
            method: like `/licet.v1.AuthorizationService/Authorize`.
            request: sent each time.
            response_bytes: the size of the message that each answer must have.
            seconds: how long.
            traffic: how.

        Raises:
            BenchmarkError: an answer was something else, or there was none.
        """
        calls, data = self._run(method, request, seconds, traffic)
        answers = data / (_FRAME_BYTES + response_bytes)
        # Some of the answers under way at the end have begun to arrive.
        if not calls <= answers / traffic.messages <= calls + traffic.in_flight:
            raise BenchmarkError(
                f"{calls} calls of {method} brought {answers:.1f} messages of {response_bytes} "
                "bytes: not all were answered as the first one"
            )
        return calls

    def calls(self, method: str, request: Message, seconds: float, traffic: Traffic) -> int:
        """Do as `burst` does, for answers of several sizes: the caller must check what happened.

        Raises:
            BenchmarkError: there was no answer.
        """
        calls, _ = self._run(method, request, seconds, traffic)
        return calls

    def refusals(self, method: str, request: Message, seconds: float, traffic: Traffic) -> int:
        """Do as `burst` does, for calls that must all be refused.

        Raises:
            BenchmarkError: one was not, or there was no answer.
        """
        calls, data = self._run(method, request, seconds, traffic)
        if data:
            raise BenchmarkError(f"not all of {calls} calls of {method} were refused")
        return calls

    def _run(
        self, method: str, request: Message, seconds: float, traffic: Traffic
    ) -> tuple[int, int]:
        """Return how many calls were answered, with how many bytes."""
        # Bursts of several kinds may be under way.
        number = next(self._numbers)
        body = self._folder / f"request-{self._port}-{number}"
        message = request.SerializeToString()
        body.write_bytes((b"\0" + len(message).to_bytes(4, "big") + message) * traffic.messages)
        command = [
            self._program,
            f"--clients={traffic.connections}",
            f"--max-concurrent-streams={traffic.streams}",
            *([f"--rps={traffic.rate}"] if traffic.rate else []),
            f"--duration={round(seconds * 1000)}ms",
            f"--data={body}",
            "--header=content-type: application/grpc",
            "--header=te: trailers",
            *([f"--header=authorization: {traffic.credential}"] if traffic.credential else []),
            f"{self._scheme}://127.0.0.1:{self._port}{method}",
        ]
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        requests, data = _REQUESTS.search(output), _TRAFFIC.search(output)
        if requests is None or data is None:
            raise BenchmarkError(f"h2load printed something unexpected:\n{output}")
        calls = int(requests["done"])
        if not calls or calls != int(requests["succeeded"]):
            raise BenchmarkError(f"{method} was not answered:\n{output}")
        return calls, int(data["data"])
