"""Runs the command `licet` as its users do: as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

COMMAND = (sys.executable, "-m", "licet")
_PATIENCE_SECONDS = 30.0


def without_settings() -> dict[str, str]:
    """Return this process's environment without settings of licet, but for where its state is."""
    return {
        key: value
        for key, value in os.environ.items()
        if key == "LICET_STATE_DIR" or not key.startswith("LICET_")
    }


def environment(**variables: str) -> dict[str, str]:
    """Return `without_settings`, with what makes output the same everywhere, and variables."""
    return without_settings() | {"COLUMNS": "80", "PYTHONUNBUFFERED": "1"} | variables


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended.

    Attributes:
        status: its exit status.
        out: what it wrote to standard output.
        err: what it wrote to standard error.
    """

    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The JSON objects of standard output, which must hold one a line and nothing else."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def object(self) -> dict[str, Any]:
        """The one JSON object of standard output."""
        (only,) = self.objects
        return only


def run(*arguments: str, variables: Mapping[str, str] | None = None, text: str = "") -> Finished:
    """Run a command to its end, with `text` on its standard input."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=environment(**(variables or {})),
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_SECONDS,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


class Running:
    """A command that runs until it is told to stop."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Read what the process writes, as it comes."""
        self.process = process
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_out, daemon=True),
            threading.Thread(target=self._read_err, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return "".join(self._errors)

    def line(self, timeout_seconds: float = _PATIENCE_SECONDS) -> str:
        """Return the next line of standard output.

        Raises:
            TimeoutError: none came; what was written to standard error is in the message.
        """
        try:
            return self._lines.get(timeout=timeout_seconds)
        except Empty:
            raise TimeoutError(self.errors) from None

    def lines_until(self, part: str) -> list[str]:
        """Return the lines of standard output up to the first one that holds `part`."""
        end = monotonic() + _PATIENCE_SECONDS
        lines: list[str] = []
        while not lines or part not in lines[-1]:
            lines.append(self.line(end - monotonic()))
        return lines

    def finish(self, number: int) -> Finished:
        """Send a signal, wait for the end, and return what was written since."""
        self.process.send_signal(number)
        status = self.process.wait(_PATIENCE_SECONDS)
        for reader in self._readers:
            reader.join(_PATIENCE_SECONDS)
        rest: list[str] = []
        while not self._lines.empty():
            rest.append(self._lines.get())
        return Finished(status, "\n".join(rest), self.errors)

    def _read_out(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line.rstrip("\n"))

    def _read_err(self) -> None:
        self._errors.extend(self.process.stderr or ())


@contextmanager
def running(*arguments: str, variables: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run a command until the block ends; it is killed if it has not ended by then."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(**(variables or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Signals reach it alone, and a terminal's Ctrl-C does not.
        start_new_session=True,
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()
