"""A process that notes what it signed until it is killed or the disk fails, and tells each size.

python state_writer.py PATH

To standard output: one line a checkpoint, its size.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path

from licet.steward.state_file import Signed, StateFile

ORIGIN = "licet.example/audit"


def signed(size: int) -> Signed:
    """Return what is noted of a checkpoint of this size."""
    return Signed(ORIGIN, size, size.to_bytes(32, "big"))


def main() -> None:
    """Note and tell."""
    state = StateFile(Path(sys.argv[1]))
    for size in count(1):
        state.write(signed(size))
        os.write(1, b"%d\n" % size)


if __name__ == "__main__":
    main()
