"""The same figures from more and longer rounds, in about a quarter of an hour: `make bench`."""

from __future__ import annotations

import sys
from typing import Final

from benchmarks.run import Effort, main
from benchmarks.throughput import Rounds

FULL: Final = Effort(
    name="full",
    calls=Rounds(90, 0.6),
    principals=Rounds(15, 2.0),
    in_memory=30,
    repetitions=5,
    audit_events=10_000_000,
)

if __name__ == "__main__":
    sys.exit(main(FULL))
