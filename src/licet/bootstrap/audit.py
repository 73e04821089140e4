"""The composition of the audit log."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from licet.app.prove import ProveAudit
from licet.bootstrap.custody import START_SECONDS, host_state, soon
from licet.bootstrap.steward import Stewardship
from licet.config import Settings
from licet.domain.audit_event import EventType
from licet.domain.errors import LicetError, UnavailableError
from licet.replica.clock import DatabaseClock
from licet.replica.latest_checkpoint import LatestCheckpoint
from licet.spool.folder import SpoolFolder
from licet.spool.log import SpoolAuditLog
from licet.spool.shipper import Retention, Shipper, ShippingThread
from licet.spool.writer import Durability, SpoolWriter
from licet.storage.audit_shipping import PostgresEventStore
from licet.storage.pool import Database
from licet.storage.proofs import PostgresSealedLogs
from licet.writer.ids import audit_writer_id

_log: Final = logging.getLogger(__name__)

_FLUSH_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """The parts of the audit log that others look at.

    Attributes:
        log: takes decisions.
        writer: of this process's spool.
        shipper: of the same.
        stewardship: None in a worker, whose host has a steward of its own.
        prove: what is said of the log as it is sealed.
        latest: the last checkpoint, kept in memory.
    """

    log: SpoolAuditLog
    writer: SpoolWriter
    shipper: Shipper
    stewardship: Stewardship | None
    prove: ProveAudit
    latest: LatestCheckpoint

    @property
    def pending(self) -> int:
        """How many events are in the spool only."""
        return max(self.log.recorded - self.shipper.shipped, 0)

    @property
    def lost(self) -> int:
        """How many events this process lost or could not store, those it adopted included."""
        adopted = 0 if self.stewardship is None else self.stewardship.lost
        return self.shipper.lost + adopted


def start_audit(  # noqa: PLR0913 - what it is composed of
    settings: Settings,
    database: Database,
    url: str,
    clock: DatabaseClock,
    stack: ExitStack,
    *,
    has_steward: bool,
) -> AuditTrail:
    """Start recording and shipping; what was started is stopped by the stack.

    Args:
        settings: what the operator set.
        database: the pool.
        url: of the same database.
        clock: dates the log's events about itself.
        stack: takes what is to be stopped.
        has_steward: this process is also the steward of its host; otherwise another one is.

    Raises:
        UnavailableError: there is no place for the spool, or a key cannot be used.
    """
    store = PostgresEventStore(database)
    host = host_state(settings, store, signs=has_steward)
    writer_id = audit_writer_id(clock)
    store.register(writer_id, soon(START_SECONDS))
    writer = _writer(settings, SpoolFolder.create(host.spools, writer_id))
    stewardship: Stewardship | None = None
    # Its end comes between the last event of this process and the end of the spool.
    if has_steward:
        stack.callback(_leave, writer, store, settings.spool_retain_seconds)
        stewardship = Stewardship(settings, url, database, store, host, clock)
        stack.callback(stewardship.stop)
        stewardship.start()
    else:
        # What it holds is not sealed yet: that is up to the steward, and so is the folder.
        stack.callback(writer.folder.close)
    log = SpoolAuditLog(writer, clock.now)
    retention = Retention(settings.spool_retain_seconds, settings.spool_max_mib << 19)
    shipper = Shipper(writer.folder, store, host.keys, retention, lambda: writer.appended)
    shipping = ShippingThread(shipper, log.tell_refused)
    stack.callback(_close, log, writer, shipping, shipper)
    log.append(EventType.WRITER_OPENED, "", _about())
    shipping.start()
    sealed = PostgresSealedLogs(database)
    latest = LatestCheckpoint(sealed)
    stack.callback(latest.stop)
    latest.start()
    prove = ProveAudit(sealed, host.public_key)
    return AuditTrail(log, writer, shipper, stewardship, prove, latest)


def _close(
    log: SpoolAuditLog, writer: SpoolWriter, shipping: ShippingThread, shipper: Shipper
) -> None:
    """Record the end, and store what is on record."""
    try:
        log.append(EventType.WRITER_CLOSED, "", {})
    except UnavailableError as exc:
        _log.warning("the end of this audit writer is not on record: %s", exc)
    writer.close()
    shipping.stop(_FLUSH_SECONDS)
    if shipper.shipped < writer.appended:
        waiting = writer.appended - shipper.shipped
        _log.error("%d audit events are left in the spool %s", waiting, writer.folder.path)
    shipper.close()


def _writer(settings: Settings, folder: SpoolFolder) -> SpoolWriter:
    try:
        durability = Durability(settings.audit_durability)
        return SpoolWriter(folder, durability, max_bytes=settings.spool_max_mib << 20)
    except BaseException:
        folder.close()
        raise


def _leave(writer: SpoolWriter, store: PostgresEventStore, retain_seconds: float) -> None:
    """Leave the spool to an adopter, unless it is settled and need not be kept."""
    folder = writer.folder
    try:
        is_stored = store.shipped(folder.writer_id, soon(_FLUSH_SECONDS)) >= writer.appended
        is_settled = is_stored and store.is_settled(folder.writer_id, soon(_FLUSH_SECONDS))
        if is_settled and folder.settled_seconds() >= retain_seconds:
            folder.remove()
            return
    except LicetError as exc:
        _log.info("the spool %s is left as it is: %s", folder.path, exc)
    folder.close()


def _about() -> dict[str, str | int]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "version": version("licet")}
