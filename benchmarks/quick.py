"""The figures that matter, in about two minutes: `make bench-quick`."""

from __future__ import annotations

import sys
from typing import Final

from benchmarks.run import Effort, main
from benchmarks.throughput import Rounds

QUICK: Final = Effort(
    name="quick",
    calls=Rounds(15, 0.6),
    principals=Rounds(5, 0.6),
    in_memory=10,
    repetitions=2,
    audit_events=300_000,
)

if __name__ == "__main__":
    sys.exit(main(QUICK))
