"""`licet serve --workers 2` as it is, but killed when its standard input ends.

So neither it nor its workers, which follow it, outlive the tests.
"""

from __future__ import annotations

import os
import signal
import sys
from threading import Thread

from licet.cli.main import main


def _follow_the_tests() -> None:
    # The supervisor waits for signals in its own thread; none may be taken here.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    # Not by way of sys.stdin, which nobody may be reading when an interpreter ends.
    while os.read(0, 1 << 12):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Thread(target=_follow_the_tests, name="follow-the-tests", daemon=True).start()
    sys.exit(main(["serve", "--workers", "2"]))
