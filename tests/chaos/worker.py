"""One worker as a process: `python -m tests.chaos.worker [SAFEGUARD]`, settings in LICET_*.

It prints its port and serves until its standard input ends, so it never outlives the tests.
With the name of a safeguard it does without it; see `planted.py`.
"""

from __future__ import annotations

import sys

from licet import config
from licet.bootstrap import Licet
from tests.chaos.planted import PLANTED


def main(arguments: list[str]) -> None:
    """Serve until standard input ends."""
    for name in arguments:
        PLANTED[name]()
    licet = Licet(config.load()).start()
    try:
        sys.stdout.write(f"{licet.server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        licet.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
