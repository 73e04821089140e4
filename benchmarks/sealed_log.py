"""The tree over a large audit log: sealing, proofs, and the verification of all of it.

By the product's own code, in this process, on what `audit_fill.py` has left in the queue.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from time import perf_counter
from typing import Final

from benchmarks import audit_fill
from benchmarks.figures import BenchmarkError, Bound, Figure, Target, spread, tail
from benchmarks.report import Progress
from benchmarks.stand import Site, opened_database, patience
from licet.app.prove import ProveAudit
from licet.cli import verifying
from licet.domain.signed_note import VerifierKey
from licet.replica.clock import SystemClock
from licet.steward.journal import Journal
from licet.steward.sealer import Sealer
from licet.steward.signer import CheckpointSigner
from licet.steward.steward import Custody
from licet.storage.proofs import PostgresSealedLogs
from licet.storage.sealing import PostgresSealing
from licet.storage.verification import opened_log
from licet.writer.ids import audit_writer_id

SECTION: Final = "The sealed audit log"
SEAL_TARGET: Final = Target(Bound.AT_LEAST, 50_000.0)
PROOF_TARGET: Final = Target(Bound.AT_MOST, 10.0)
VERIFY_TARGET: Final = Target(Bound.AT_LEAST, 100_000.0)

_PROOFS: Final = 50
"""How many are made in a round."""
_SECONDS: Final = 30.0


def measure(
    site: Site, custody: Custody, events: int, rounds: int, progress: Progress
) -> list[Figure]:
    """Seal what is queued, prove some of the events that were filled in, and verify it all."""
    progress.step("sealing the audit log")
    rates = list(_sealed(site.url, custody))
    progress.step("proofs of audit events")
    proofs = list(_proven(site.url, events, rounds * _PROOFS))
    progress.step("verifying the audit log")
    verified, leaves = _verified(site.url, custody)
    return [
        Figure(SECTION, "sealing what is queued", spread(rates), "events/s", SEAL_TARGET),
        Figure(
            SECTION,
            f"the proof that an event is one of {leaves:,}: p95, p50 and longest",
            tail(proofs),
            "ms",
            PROOF_TARGET,
        ),
        Figure(SECTION, f"verifying all {leaves:,}", spread([verified]), "events/s", VERIFY_TARGET),
    ]


def _sealed(url: str, custody: Custody) -> Iterator[float]:
    """Seal and sign all that waits, and yield the rate of each transaction."""
    with closing(PostgresSealing(url)) as sealing:
        writer_id = audit_writer_id(SystemClock())
        sealing.register(writer_id)
        sealer = Sealer(sealing, custody.keys, Journal(writer_id, custody.keys))
        while True:
            begin = perf_counter()
            sealed = sealer.step()
            if not sealed:
                break
            yield sealed / (perf_counter() - begin)
        if sealer.mismatches:
            raise BenchmarkError(f"{sealer.mismatches} batches are not what was stored")
        if CheckpointSigner(sealing, custody.signer, custody.state).step() is None:
            raise BenchmarkError("the log was not signed")


def _proven(url: str, events: int, count: int) -> Iterator[float]:
    """Prove that events are in the log, each somewhere else; yield the milliseconds of each."""
    draw = random.Random(20261122)
    with opened_database(url) as database:
        prove = ProveAudit(PostgresSealedLogs(database))
        for _ in range(count):
            wanted = audit_fill.event(draw.randint(1, events))
            begin = perf_counter()
            prove.inclusion(wanted, patience(_SECONDS))
            yield 1000 * (perf_counter() - begin)


def _verified(url: str, custody: Custody) -> tuple[float, int]:
    """Verify as `licet audit verify` does; return how many events a second, and how many."""
    with opened_log(url, snapshot=False) as log:
        key = VerifierKey(log.head().origin, custody.signer.key.public_key)
    begin = perf_counter()
    with verifying.opened(url, key, None, ()) as verification:
        slices, _ = verification.whole()
        for _ in slices:
            pass
        report = verification.report
    taken = perf_counter() - begin
    if not report.is_clean:
        raise BenchmarkError(f"the log does not verify: {report.findings[0].message}")
    return report.leaves / taken, report.leaves
