"""A program, not a module to import: becomes PostgreSQL, in three steps between fork and exec.

`launcher.py PARENT UID GID PROGRAM ARGUMENT...`. It is a program of its own because Python code
between fork and exec (`preexec_fn`) can deadlock in a process with threads. It runs isolated, so
it knows only the standard library, and everything it needs is loaded before step 1.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, uid: int, gid: int, command: list[str]) -> int:
    """Become `command`, or return the status to exit with."""
    # Until exec a signal ends this quietly, even where licet itself was started with it ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    # (1) Root's privileges go, for good.
    if os.geteuid() != uid:
        os.setgroups(())
        os.setgid(gid)
        os.setuid(uid)

    # (2) When licet dies without a word, the kernel sends the signal that shuts PostgreSQL down.
    # After (1), because a change of account clears it; a failure is no reason not to run: the
    # next start stops a server that was left behind.
    if libc is not None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() != parent:
        return 1  # licet died before step (2)

    # (3) The process id stays, so PostgreSQL is licet's direct child.
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as exc:
        sys.stderr.write(f"FATAL:  cannot run {command[0]}: {exc.strerror}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
