"""Load from h2load, which makes an RPC cost a fraction of what any Python client makes it cost.

Unary gRPC is one HTTP/2 POST, so h2load can send it; it knows nothing of gRPC, so it takes every
answer for a success. An error has no message, and all messages of a burst have one size: the bytes
received tell whether each answer was one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
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
    rate: float = 0
    credential: str = ""
    messages: int = 1

    @property
    def in_flight(self) -> int:
        """How many calls are under way at most."""
        return self.connections * self.streams


FULL: Final = Traffic(8, 8)
PACERS: Final = 32
TICK_SECONDS: Final = 0.01
LEAD_SECONDS: Final = 0.5
"""For how long an open loop lasts before it is measured: connections, and threads that wake."""
_LEAST_RATE: Final = 25.0
"""Calls a second of each process in an open loop, if there is more than one."""
_PACED_STREAMS: Final = 64
"""Enough that no call of an open loop ever waits for another one's answer."""


class Sent(NamedTuple):
    """What one client of an open loop sent, in microseconds.

    Attributes:
        starts: when each call was sent.
        latencies: how long each took then.
        period: from one call to the next, if the client is in time.
    """

    starts: Sequence[int]
    latencies: Sequence[int]
    period: float

    @classmethod
    def of(cls, log: str, rate: float) -> Sent:
        """Read the log that h2load writes of its calls, so many a second, without the lead."""
        rows = sorted(
            (int(start), int(latency))
            for start, _, latency in (line.split("\t") for line in log.splitlines())
        )
        begin = rows[0][0] + 1e6 * LEAD_SECONDS if rows else 0
        kept = [row for row in rows if row[0] >= begin]
        return cls([start for start, _ in kept], [latency for _, latency in kept], 1e6 / rate)


class Paced(NamedTuple):
    """What an open loop was: all calls that were answered, and what each client sent."""

    calls: int
    sent: Sequence[Sent]


class UnansweredError(BenchmarkError):
    """Some calls ended without a message: errors, or those that waited when the time was over."""


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

    def __init__(
        self, port: int, folder: Path, scheme: str = "http", unix_socket: Path | None = None
    ) -> None:
        """Send to a port of loopback, or to a Unix socket, with the folder for files of its own.

        Raises:
            BenchmarkError: h2load is not installed.
        """
        self._program = program()
        self._port = port
        self._scheme = scheme
        self._base = [] if unix_socket is None else [f"--base-uri=unix:{unix_socket}"]
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
        """Call a method for some seconds and return how many messages were answered.

        One for a call; of a stream that is still open at the end, those that it was sent.

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
        return answered(method, calls, data, response_bytes, traffic)

    def paced(  # noqa: PLR0913, PLR0917 - as `burst`
        self,
        method: str,
        request: Message,
        response_bytes: int,
        seconds: float,
        rate: float,
        credential: str = "",
    ) -> Paced:
        """Call a method so many times a second, however long answers take: an open loop.

        The calls come from up to PACERS processes with a connection each, because h2load looks at
        its clock only once in TICK_SECONDS: together they are about as irregular as callers that
        know nothing of each other. They call for LEAD_SECONDS before what is told of them.

        Raises:
            BenchmarkError: as `burst`.
        """
        pacers = min(max(int(rate / _LEAST_RATE), 1), PACERS)
        traffic = Traffic(1, _PACED_STREAMS, rate / pacers, credential)
        with ExitStack() as stack:
            runs = []
            for _ in range(pacers):
                log = self._folder / f"sent-{self._port}-{next(self._numbers)}"
                command = self._command(method, request, LEAD_SECONDS + seconds, traffic)
                command.insert(1, f"--log-file={log}")
                process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                runs.append((log, stack.enter_context(process)))
            counts = [counted(method, process.communicate()[0]) for _, process in runs]
        calls, data = (sum(numbers) for numbers in zip(*counts, strict=True))
        answered(method, calls, data, response_bytes, traffic._replace(connections=pacers))
        sent = []
        for log, _ in runs:
            sent.append(Sent.of(log.read_text(encoding="ascii"), traffic.rate))
            log.unlink()
        return Paced(calls, sent)

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
        command = self._command(method, request, seconds, traffic)
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        calls, data = counted(method, output)
        if not calls and (traffic.messages == 1 or not data):
            raise BenchmarkError(f"{method} was not answered:\n{output}")
        return calls, data

    def _command(
        self, method: str, request: Message, seconds: float, traffic: Traffic
    ) -> list[str]:
        # Bursts of several kinds may be under way.
        number = next(self._numbers)
        body = self._folder / f"request-{self._port}-{number}"
        message = request.SerializeToString()
        body.write_bytes((b"\0" + len(message).to_bytes(4, "big") + message) * traffic.messages)
        return [
            self._program,
            f"--clients={traffic.connections}",
            f"--max-concurrent-streams={traffic.streams}",
            *([f"--rps={traffic.rate}"] if traffic.rate else []),
            f"--duration={round(seconds * 1000)}ms",
            f"--data={body}",
            "--header=content-type: application/grpc",
            "--header=te: trailers",
            *([f"--header=authorization: {traffic.credential}"] if traffic.credential else []),
            *self._base,
            f"{self._scheme}://127.0.0.1:{self._port}{method}",
        ]


def answered(method: str, calls: int, data: int, response_bytes: int, traffic: Traffic) -> int:
    """Return how many messages were answered; of streams, by those that are not over as well.

    Raises:
        UnansweredError: so many calls brought fewer bytes than answers of this size have.
        BenchmarkError: they brought more.
    """
    answers = data / (_FRAME_BYTES + response_bytes)
    # Some of the answers under way at the end have begun to arrive.
    if not calls <= answers / traffic.messages <= calls + traffic.in_flight:
        kind = UnansweredError if answers / traffic.messages < calls else BenchmarkError
        raise kind(
            f"{calls} calls of {method} brought {answers:.1f} messages of {response_bytes} "
            "bytes: not all were answered as the first one"
        )
    return calls if traffic.messages == 1 else int(answers)


def counted(method: str, output: str) -> tuple[int, int]:
    """Return, from what h2load printed, how many calls were answered, with how many bytes.

    Raises:
        BenchmarkError: one was an error of HTTP.
    """
    requests, data = _REQUESTS.search(output), _TRAFFIC.search(output)
    if requests is None or data is None:
        raise BenchmarkError(f"h2load printed something unexpected:\n{output}")
    calls = int(requests["done"])
    if calls != int(requests["succeeded"]):
        raise BenchmarkError(f"{method} was not answered:\n{output}")
    return calls, int(data["data"])
