"""The tamper matrix as a table, measured: `make tamper-matrix`.

Each attack is done to a log of its own. The seconds of `verify` and of the sealer are real; the
rolling verifier's are those of its plan, whose clock the run sets on.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from licet.domain.checkpoint import Checkpoint
from licet.steward.signer import RefusalError
from licet.storage import migrate
from tests.fakes.postgres import Database, running_cluster
from tests.fakes.sealed_log import SealedLog, sealed_log, some_events
from tests.integration.test_audit_tampering import ATTACKS, CUT
from tests.integration.test_rolling_verifier import Rolling

MINUTE: Final = 60.0
DAY: Final = 86_400.0
SECOND: Final = 1.0
NAMES: Final = {SECOND: "a second", MINUTE: "a minute", DAY: "a day", None: "never"}
_MISMATCHES: Final = "SELECT count(*) FROM audit.events WHERE reason = 'BATCH_MISMATCH'"
# The first event of the batch that is not sealed is the twenty-first.
_EDIT_UNSEALED: Final = (
    "UPDATE audit.events SET reason = 'x' WHERE event_id >= '00000000-0001-8000-8000-000000000015'"
)
_DELETE_UNSEALED: Final = (
    "DELETE FROM audit.queue",
    "DELETE FROM audit.events WHERE event_id >= '00000000-0001-8000-8000-000000000015'",
)


class Detection(NamedTuple):
    """How an attack is found.

    Attributes:
        attack: what a superuser does.
        by: what finds it.
        verify_seconds: how long `verify` takes to.
        within: after how many seconds it is on record, or signing stops, with nobody asking; None:
            that never happens.
    """

    attack: str
    by: str
    verify_seconds: float
    within: float | None


def attacked(log: SealedLog, name: str) -> Detection:
    """Do an attack on what is sealed, and see who finds it."""
    log.grow(300 if "node" in name else 40)
    rolling = Rolling(log)
    rolling.rounds()
    log.tamper(*ATTACKS[name].statements)
    begin = monotonic()
    codes = log.verify().counts
    seconds = monotonic() - begin
    within = _on_record(rolling)
    return Detection(name, ", ".join(sorted(codes)), seconds, within)


def edited_before_sealing(log: SealedLog) -> Detection:
    """Edit what is stored and not sealed: its authenticated batch does not hold any more."""
    log.grow(20)
    log.ship(some_events(10, 20))
    log.tamper(_EDIT_UNSEALED)
    begin = monotonic()
    log.seal()
    sealed = monotonic() - begin
    log.sign()
    begin = monotonic()
    codes = log.verify().counts
    seconds = monotonic() - begin
    recorded = log.admin.execute(_MISMATCHES).fetchone()
    within = SECOND if recorded == (1,) and sealed < SECOND else None
    by = ", ".join(sorted(codes))
    return Detection("edits or deletes what is not sealed yet", by, seconds, within)


def batch_deleted_before_sealing(log: SealedLog) -> Detection:
    """Delete a batch and its place in the queue."""
    log.grow(20)
    rolling = Rolling(log)
    rolling.rounds()
    log.ship(some_events(10, 20))
    log.tamper(*_DELETE_UNSEALED)
    begin = monotonic()
    codes = log.verify().counts
    seconds = monotonic() - begin
    within = _on_record(rolling)
    by = ", ".join(sorted(codes))
    return Detection("deletes a batch that is not sealed yet", by, seconds, within)


def tail_cut_off(log: SealedLog) -> Detection:
    """Set the whole log back: the signer remembers, and so does who kept a checkpoint."""
    log.grow(20)
    log.grow(20)
    kept = log.state.read()
    assert kept is not None
    log.tamper(*CUT)
    begin = monotonic()
    codes = log.verify(Checkpoint(*kept)).counts
    seconds = monotonic() - begin
    within = SECOND if _is_refused(log.sign) else None
    by = ", ".join(sorted(codes))
    return Detection("cuts off the tail, with the checkpoints", by, seconds, within)


def history_rewritten(log: SealedLog) -> Detection:
    """Rewrite the end and sign it with the stolen key: only who kept a checkpoint can tell."""
    log.grow(20)
    log.grow(20)
    kept = log.state.read()
    assert kept is not None
    log.tamper(*CUT, "DELETE FROM audit.checkpoints")
    log.state.path.unlink()
    log.ship(some_events(30, 500), writer=2)
    log.seal()
    within = SECOND if _is_refused(log.sign) else None
    assert log.verify().is_clean
    begin = monotonic()
    codes = log.verify(Checkpoint(*kept)).counts
    seconds = monotonic() - begin
    by = ", ".join(sorted(codes))
    return Detection("rewrites the end with the stolen key", by, seconds, within)


MORE: Final[tuple[Callable[[SealedLog], Detection], ...]] = (
    edited_before_sealing,
    batch_deleted_before_sealing,
    tail_cut_off,
    history_rewritten,
)


def _on_record(rolling: Rolling) -> float | None:
    """Let time pass, and return when the steward's verifier has put something on record."""
    try:
        for after in (MINUTE, DAY):
            rolling.clock.now = after
            rolling.rounds()
            if rolling.incidents():
                return after
        return None
    finally:
        rolling.verifier.close()


def _is_refused(sign: Callable[[], object]) -> bool:
    try:
        sign()
    except RefusalError:
        return True
    return False


def main() -> None:
    """Do all of them, each on a log of its own, and print the table."""
    logging.disable()  # each finding is also told there
    shown = sys.stdout.write
    shown(f"{'a superuser ...':45} {'found by verify':48} {'in ms':>6}  unasked, within\n")
    with running_cluster() as cluster, cluster.database() as template:
        migrate.up(template.url)

        def measured(attack: Callable[[SealedLog], Detection], database: Database) -> None:
            with (
                tempfile.TemporaryDirectory() as folder,
                sealed_log(database, Path(folder)) as log,
            ):
                found = attack(log)
            milliseconds = found.verify_seconds * 1000
            shown(f"{found.attack:45} {found.by:48} {milliseconds:6.0f}  {NAMES[found.within]}\n")

        for name in ATTACKS:
            with cluster.database(template) as database:
                measured(lambda log, name=name: attacked(log, name), database)  # type: ignore[misc]
        for attack in MORE:
            with cluster.database(template) as database:
                measured(attack, database)


if __name__ == "__main__":
    main()
