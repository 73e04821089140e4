"""Load from h2load, which makes an RPC cost a fraction of what any Python client makes it cost.

Unary gRPC is one HTTP/2 POST, so h2load can send it; it knows nothing of gRPC, so it takes every
answer for a success. An error has no message, and all messages of a burst have one size: the bytes
received tell whether each answer was one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from google.protobuf.message import Message

from benchmarks.figures import BenchmarkError

CONNECTIONS: Final = 8
STREAMS: Final = 8
"""Calls under way on each connection."""
IN_FLIGHT: Final = CONNECTIONS * STREAMS

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

    def __init__(self, port: int, folder: Path) -> None:
        """Send to a port of loopback, with the folder for files of its own.

        Raises:
            BenchmarkError: h2load is not installed.
        """
        self._program = program()
        self._port = port
        self._folder = folder

    def burst(self, method: str, request: Message, response_bytes: int, seconds: float) -> int:
        """Call a method for some seconds and return how many calls were answered.

        Args:
            method: like `/licet.v1.AuthorizationService/Authorize`.
            request: sent each time.
            response_bytes: the size of the message that each answer must have.
            seconds: how long.

        Raises:
            BenchmarkError: an answer was something else, or there was none.
        """
        body = self._folder / "request"
        message = request.SerializeToString()
        body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        output = self._run(method, body, seconds)
        requests, traffic = _REQUESTS.search(output), _TRAFFIC.search(output)
        if requests is None or traffic is None:
            raise BenchmarkError(f"h2load printed something unexpected:\n{output}")
        calls = int(requests["done"])
        messages = int(traffic["data"]) / (_FRAME_BYTES + response_bytes)
        # Some of the answers under way at the end have begun to arrive.
        if not calls or calls != int(requests["succeeded"]):
            raise BenchmarkError(f"{method} was not answered:\n{output}")
        if not calls <= messages <= calls + IN_FLIGHT:
            raise BenchmarkError(
                f"{calls} calls of {method} brought {messages:.1f} messages of {response_bytes} "
                "bytes: not all were answered as the first one"
            )
        return calls

    def _run(self, method: str, body: Path, seconds: float) -> str:
        command = [
            self._program,
            f"--clients={CONNECTIONS}",
            f"--max-concurrent-streams={STREAMS}",
            f"--duration={round(seconds * 1000)}ms",
            f"--data={body}",
            "--header=content-type: application/grpc",
            "--header=te: trailers",
            f"http://127.0.0.1:{self._port}{method}",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
