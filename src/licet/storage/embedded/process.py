"""PostgreSQL's processes: a child that cannot outlive licet, and how any server is made to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from time import monotonic

from licet.storage.embedded import launcher
from licet.storage.embedded.account import Account, child_environment

POLL_SECONDS = 0.01
"""Between two looks at something that cannot be waited for."""

_SPAWN_SECONDS = 10.0

STOP_SIGNALS = (
    (signal.SIGINT, 30.0),  # "fast": ends the sessions, writes a checkpoint
    (signal.SIGQUIT, 5.0),  # "immediate": recovers from the log at the next start
    (signal.SIGKILL, 5.0),
)
"""What stops a server, most polite first, and the seconds to wait for the effect."""


class ServerProcess:
    """A running `postgres`, direct child of this process, in a session of its own.

    A session of its own keeps a terminal's Ctrl-C away from it: licet drains first, then stops it.
    """

    def __init__(self, command: Sequence[str], account: Account, log: int, keep_open: int) -> None:
        """Start it; `log` takes its output, and it inherits `keep_open`.

        Raises:
            OSError: it could not be started.
        """
        self._exited = threading.Event()
        self._command = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid())]
        self._command += [str(account.uid), str(account.gid), *command]
        self._log = log
        self._keep_open = keep_open
        started: Future[subprocess.Popen[bytes]] = Future()
        # The kernel ties "the parent died" to the *thread* that made the child. This one lives
        # exactly as long as the child, so the caller's thread may end before.
        threading.Thread(
            target=self._keep, args=(started,), name="embedded-postgres", daemon=True
        ).start()
        self._process = started.result(_SPAWN_SECONDS)

    def _keep(self, started: Future[subprocess.Popen[bytes]]) -> None:
        try:
            process = subprocess.Popen(  # noqa: S603 - a list of ours, no shell
                self._command,
                cwd="/",
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(self._keep_open,),
                start_new_session=True,
            )
        except OSError as exc:
            started.set_exception(exc)
            return
        started.set_result(process)
        process.wait()
        self._exited.set()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended, for whatever reason."""
        return not self._exited.is_set()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for its end; return whether it has ended."""
        return self._exited.wait(timeout_seconds)

    def stop(self) -> None:
        """Stop it, and return when it has ended."""
        for number, patience in STOP_SIGNALS:
            if self.is_running:
                with suppress(ProcessLookupError):
                    self._process.send_signal(number)
            if self.wait(patience):
                return


def postmaster_of(cluster: Path) -> int | None:
    """Return the process id of the server that runs on `cluster`, as far as can be known.

    The file `postmaster.pid` alone proves nothing: after a crash, and always in a container, its
    number is soon another process's. The command line tells them apart, and any account may read
    it (the working folder would need privileges that root has not in a container).
    """
    try:
        pid = int((cluster / "postmaster.pid").read_text(encoding="utf-8").partition("\n")[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    if Path(os.fsdecode(command[0])).name == "postgres" and os.fsencode(cluster) in command:
        return pid
    return None


def stop_predecessor(cluster: Path, is_gone: Callable[[], bool]) -> bool:
    """Stop a server that its licet left behind on `cluster`, until `is_gone`; return whether it is.

    Usually it is stopping already, because the kernel told it that its licet had died.
    """
    for number, patience in STOP_SIGNALS:
        if is_gone():
            return True
        pid = postmaster_of(cluster)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if _within(patience, is_gone):
            return True
    return False


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = monotonic() + seconds
    pause = threading.Event()  # never set: neither a lock nor a stranger's end can be waited for
    while not holds():
        if monotonic() > deadline:
            return False
        pause.wait(POLL_SECONDS)
    return True
