"""How much is measured by `make bench-quick` and by `make bench`."""

from __future__ import annotations

from typing import Final

from benchmarks import latency, stored
from benchmarks.sections import SECTIONS, Effort
from benchmarks.throughput import Rounds

QUICK: Final = Effort(
    name="quick",
    sections=("calls", "latency", "mutations", "revocation", "in-memory"),
    in_memory=4,
    calls=Rounds(6, 0.4),
    concurrency=Rounds(1, 0.5),
    latency=Rounds(2, 0.8),
    loads=latency.FEW_LOADS,
    transports=Rounds(4, 0.6),
    misses=Rounds(4, 0.8),
    stored=Rounds(4, 1.0),
    sizes=stored.SIZES,
    principals=Rounds(4, 0.6),
    policies=Rounds(5, 0.6),
    flood=Rounds(5, 0.6),
    repetitions=1,
    workers=Rounds(5, 0.6),
    protocol=Rounds(4, 0.5),
    tls=Rounds(5, 0.6),
    mutations=Rounds(3, 0.6),
    revocations=2,
    audit=Rounds(3, 0.6),
    audit_sizes=(300_000,),
)

FULL: Final = Effort(
    name="full",
    sections=tuple(SECTIONS),
    in_memory=20,
    calls=Rounds(24, 0.6),
    concurrency=Rounds(3, 0.6),
    latency=Rounds(6, 1.5),
    loads=latency.ALL_LOADS,
    transports=Rounds(10, 1.0),
    misses=Rounds(10, 1.0),
    stored=Rounds(8, 1.5),
    sizes=stored.ALL_SIZES,
    principals=Rounds(6, 1.0),
    policies=Rounds(8, 1.0),
    flood=Rounds(16, 1.0),
    repetitions=3,
    workers=Rounds(10, 1.0),
    protocol=Rounds(12, 0.8),
    tls=Rounds(10, 1.0),
    mutations=Rounds(10, 1.0),
    revocations=25,
    audit=Rounds(10, 0.6),
    audit_sizes=(100_000, 1_000_000, 10_000_000),
)

EFFORTS: Final = {effort.name: effort for effort in (QUICK, FULL)}
