"""Servers that a benchmark starts, each in processes of its own; `server.py` is what they run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Final, Self

from benchmarks.figures import BenchmarkError
from benchmarks.processes import confine, family, private_bytes, processor_seconds, resident_bytes
from benchmarks.server import ENVIRONMENT, Variant

_STOP_SECONDS: Final = 30.0


class Server:
    """A server on its way; `port` waits until it serves. Stops when it is left."""

    def __init__(  # noqa: PLR0913, PLR0917 - what serves, where, and how
        self,
        variant: Variant,
        url: str,
        state: Path,
        cores: Collection[int],
        workers: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            variant: what serves.
            url: of the database.
            state: where its host keeps what is outside of the database.
            cores: those that it may use.
            workers: how many processes, if it is supervised.
            settings: of `licet serve`, as its environment has them, beside the defaults.
        """
        self.variant = variant
        self._folder = TemporaryDirectory(prefix="licet-serves-")
        self.folder = Path(self._folder.name)
        """What its clients need; gone with it."""
        # Defaults, whatever the settings of whoever runs this.
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("LICET_")
        }
        environment.pop("GRPC_EXPERIMENTS", None)
        if variant is not Variant.STOCK:
            environment |= ENVIRONMENT
        environment |= {
            "LICET_DATABASE_URL": url,
            "LICET_STATE_DIR": str(state),
            "LICET_LISTEN": "127.0.0.1:0",
            "LICET_LOG_LEVEL": "ERROR",
            "LICET_WORKERS": str(workers),
            # Capabilities are written directly here: verified, they would be findings.
            "LICET_AUDIT_VERIFY_SHARE": "0",
            **(settings or {}),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server", variant, str(self.folder)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        confine([self._process.pid], cores)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()

    def await_start(self) -> None:
        """Wait until it works. Raises as `port` does."""
        _ = self.port

    @cached_property
    def port(self) -> int:
        """Where it serves.

        Raises:
            BenchmarkError: it did not start.
        """
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        port = line.rpartition(":")[2].strip()
        if not port.isdecimal():
            raise BenchmarkError("the server did not start: see above")
        return int(port)

    @cached_property
    def pids(self) -> list[int]:
        """Its processes: the supervisor and the workers, if there are any."""
        return family(self._process.pid) if self.port else []

    def resident(self) -> int:
        """Return how many bytes of memory it takes, with all its processes."""
        return sum(map(resident_bytes, self.pids))

    def private(self) -> int:
        """Return the same without files that are mapped."""
        return sum(map(private_bytes, self.pids))

    def seconds(self) -> float:
        """Return how much of a core's time it has used, with all its processes."""
        return processor_seconds(self.pids)
