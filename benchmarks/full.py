"""The same figures from more and longer rounds, in about half an hour: `make bench`."""

from __future__ import annotations

import sys
from typing import Final

from benchmarks.run import Effort, main
from benchmarks.throughput import Rounds

FULL: Final = Effort(
    name="full",
    calls=Rounds(90, 0.6),
    principals=Rounds(15, 2.0),
    flood=Rounds(15, 2.0),
    in_memory=30,
    repetitions=5,
    workers=Rounds(20, 2.0),
    protocol=Rounds(30, 1.0),
    tls=Rounds(15, 2.0),
    mutations=Rounds(15, 2.0),
    revocations=50,
    audit_events=10_000_000,
    audit_rounds=20,
)

if __name__ == "__main__":
    sys.exit(main(FULL))
