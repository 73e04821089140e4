"""One worker as a process: `python -m tests.chaos.worker [SAFEGUARD]`, settings in LICET_*.

It prints its address and serves until its standard input ends, so it never outlives the tests.
Until then each line of it is a command: `clock RATE`, `starve`, `feed`; see `injected.py`. With the
name of a safeguard it does without it; see `planted.py`.
"""

from __future__ import annotations

import sys

import pytest

from licet import config
from licet.bootstrap import process
from licet.bootstrap.process import Licet
from tests.chaos.injected import AdjustableClock, Starvation
from tests.chaos.planted import PLANTED


def main(arguments: list[str]) -> None:
    """Serve until standard input ends."""
    clock = AdjustableClock()
    pytest.MonkeyPatch().setattr(process, "boottime", clock)
    starvation = Starvation()
    starvation.install()
    for name in arguments:
        PLANTED[name]()
    licet = Licet(config.load()).start()
    try:
        sys.stdout.write(f"serves on 127.0.0.1:{licet.server.port}\n")
        sys.stdout.flush()
        for command in sys.stdin:
            match command.split():
                case ["clock", rate]:
                    clock.run_at(float(rate))
                case ["starve"]:
                    starvation.begin()
                case ["feed"]:
                    starvation.end()
                case _:
                    raise ValueError(command)
    finally:
        starvation.end()
        licet.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
