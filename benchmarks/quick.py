"""The figures that matter, in a few minutes: `make bench-quick`."""

from __future__ import annotations

import sys
from typing import Final

from benchmarks.run import Effort, main
from benchmarks.throughput import Rounds

QUICK: Final = Effort(
    name="quick",
    calls=Rounds(12, 0.6),
    principals=Rounds(5, 0.6),
    flood=Rounds(5, 0.6),
    in_memory=10,
    repetitions=2,
    workers=Rounds(5, 0.6),
    protocol=Rounds(6, 0.6),
    tls=Rounds(5, 0.6),
    mutations=Rounds(5, 0.8),
    revocations=6,
    audit_events=300_000,
    audit_rounds=3,
)

if __name__ == "__main__":
    sys.exit(main(QUICK))
