"""The composition of the audit log: the part of `bootstrap.py` that is about the record.

What a host keeps outside the database stands in one folder per log: the spools of its writers, the
keys, and what was signed last.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Final

from licet.app.ports import Deadline
from licet.app.prove import ProveAudit
from licet.config import Settings
from licet.domain.audit_batch import MAC_KEY_BYTES, MacKeys
from licet.domain.audit_event import EventType
from licet.domain.errors import LicetError, UnavailableError
from licet.replica.clock import DatabaseClock, SystemClock
from licet.replica.latest_checkpoint import LatestCheckpoint
from licet.spool.adoption import Adoption
from licet.spool.folder import SpoolFolder
from licet.spool.log import SpoolAuditLog
from licet.spool.shipper import Retention, Shipper, ShippingThread
from licet.spool.writer import Durability, SpoolWriter
from licet.steward.archive import Archiver
from licet.steward.archive_folder import ArchiveFolder
from licet.steward.key_files import create_secret, read_secret
from licet.steward.retention import ArchiveJournal, RetentionPlan, RetentionThread
from licet.steward.signing import KeyFileError, create_key_file, read_key_file
from licet.steward.state_file import StateFile
from licet.steward.steward import Custody, Plan, Steward
from licet.storage.audit_shipping import PostgresEventStore
from licet.storage.embedded import default_data_root
from licet.storage.partitions import PostgresPartitions
from licet.storage.pool import Database
from licet.storage.proofs import PostgresSealedLogs
from licet.storage.sealing import PostgresSealing
from licet.writer.ids import audit_writer_id

_log: Final = logging.getLogger(__name__)

_START_SECONDS: Final = 30.0
_FLUSH_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """The parts of the audit log that others look at.

    Attributes:
        log: takes decisions.
        shipper: of this process's spool.
        steward: None on a host that does not sign.
        prove: what is said of the log as it is sealed.
        latest: the last checkpoint, kept in memory.
    """

    log: SpoolAuditLog
    shipper: Shipper
    steward: Steward | None
    prove: ProveAudit
    latest: LatestCheckpoint

    @property
    def pending(self) -> int:
        """How many events are in the spool only."""
        return max(self.log.recorded - self.shipper.shipped, 0)

    @property
    def sealed(self) -> int:
        """How many events this process has sealed."""
        return 0 if self.steward is None else self.steward.sealed

    @property
    def mismatches(self) -> int:
        """How many batches it found that were not what their writer had stored."""
        return 0 if self.steward is None else self.steward.mismatches

    @property
    def is_refusing(self) -> bool:
        """Whether no checkpoint is signed, because it would contradict an earlier one."""
        return self.steward is not None and self.steward.refusal is not None


def start(
    settings: Settings, database: Database, url: str, clock: DatabaseClock, stack: ExitStack
) -> AuditTrail:
    """Start recording, shipping and sealing; what was started is stopped by the stack.

    Raises:
        UnavailableError: there is no place for the spool, or a key cannot be used.
    """
    store = PostgresEventStore(database)
    log_id, database_id = store.identity(_soon(_START_SECONDS))
    folder = _host_folder(settings, log_id)
    with _held(folder):
        keys = _mac_keys(settings, folder)
        custody = _custody(settings, folder, keys, store)
    spools = spools_of(settings, log_id, database_id)
    writer_id = audit_writer_id(clock)
    store.register(writer_id, _soon(_START_SECONDS))
    writer = _writer(settings, SpoolFolder.create(spools, writer_id))
    stack.callback(_leave, writer, store)
    steward = None if custody is None else _steward(settings, url, clock, custody, stack)
    if steward is not None:
        archives = _archive_folder(settings, folder)
        _start_retention(settings, url, clock, keys, archives, steward, stack)
    log = SpoolAuditLog(writer, clock.now)
    retention = Retention(settings.spool_retain_seconds, settings.spool_max_mib << 19)
    shipper = Shipper(writer.folder, store, keys, retention, lambda: writer.appended)
    shipping = ShippingThread(shipper, log.tell_refused)
    stack.callback(_close, log, writer, shipping, shipper)
    log.append(EventType.WRITER_OPENED, "", _about())
    shipping.start()

    def recovered(adopted: Shipper) -> None:
        facts = {"writer_id": adopted.folder.writer_id, "last_sequence": adopted.shipped}
        log.append(EventType.WRITER_RECOVERED, "", {**facts, "lost": adopted.lost})

    adoption = Adoption(
        spools,
        lambda dead: Shipper(dead, store, keys, retention),
        lambda dead: store.is_settled(dead, _soon(_FLUSH_SECONDS)),
        recovered,
        retention,
    )
    stack.callback(adoption.stop)
    adoption.start()
    sealed = PostgresSealedLogs(database)
    latest = LatestCheckpoint(sealed)
    stack.callback(latest.stop)
    latest.start()
    key = None if custody is None else custody.signer.key.public_key
    return AuditTrail(log, shipper, steward, ProveAudit(sealed, key), latest)


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


def _leave(writer: SpoolWriter, store: PostgresEventStore) -> None:
    """Leave the spool to an adopter, who need not look into one that is settled."""
    folder = writer.folder
    try:
        is_stored = store.shipped(folder.writer_id, _soon(_FLUSH_SECONDS)) >= writer.appended
        if is_stored and store.is_settled(folder.writer_id, _soon(_FLUSH_SECONDS)):
            folder.settled_seconds()
    except LicetError as exc:
        _log.info("the spool %s is left as it is: %s", folder.path, exc)
    finally:
        folder.close()


def _steward(
    settings: Settings, url: str, clock: DatabaseClock, custody: Custody, stack: ExitStack
) -> Steward:
    steward = Steward(
        lambda: PostgresSealing(url),
        lambda: audit_writer_id(clock),
        custody,
        Plan(origin=settings.audit_origin),
    )
    stack.callback(steward.stop)
    steward.start()
    return steward


def spools_of(settings: Settings, log_id: str, database_id: str) -> Path:
    """Return the folder of this host's spools for a database."""
    return _host_folder(settings, log_id) / f"spool-{database_id}"


def custody_of(settings: Settings, log_id: str, *, new_key_name: str | None = None) -> Custody:
    """Return what this host signs a log with, for who does not serve.

    Args:
        settings: where it is.
        log_id: which log it is.
        new_key_name: make a key of that name, if there is none and the settings name none.

    Raises:
        UnavailableError: this host does not sign, or a key cannot be used.
    """
    folder = _host_folder(settings, log_id)
    path = settings.audit_signing_key_file or folder / "signing.key"
    with _held(folder):
        try:
            if not path.exists():
                if new_key_name is None or settings.audit_signing_key_file is not None:
                    raise UnavailableError(f"{path} is missing: this host does not sign the log")
                create_key_file(path, new_key_name)
            keys = _mac_keys(settings, folder)
            return Custody(keys, read_key_file(path), StateFile(folder / "signed.json"))
        except KeyFileError as exc:
            raise UnavailableError(str(exc)) from exc


def _start_retention(  # noqa: PLR0913, PLR0917 - what it is composed of
    settings: Settings,
    url: str,
    clock: DatabaseClock,
    keys: MacKeys,
    folder: ArchiveFolder,
    steward: Steward,
    stack: ExitStack,
) -> None:
    """Archive by age where the log is signed, if that is wanted."""
    if settings.audit_retention_days is None:
        return
    retention = RetentionThread(
        lambda: PostgresPartitions(url),
        lambda: audit_writer_id(clock),
        keys,
        folder,
        lambda: steward.checkpoint is not None,
        RetentionPlan(settings.audit_retention_days),
    )
    stack.callback(retention.stop)
    retention.start()


@dataclass(frozen=True, slots=True)
class Archiving:
    """What archives partitions outside of a serving process.

    Attributes:
        partitions: the connection, in use by nobody else.
        archiver: composes it; raises UnavailableError when this host has no key for the log.
    """

    partitions: PostgresPartitions
    archiver: Callable[[], Archiver]


@contextmanager
def archiving(settings: Settings, url: str) -> Iterator[Archiving]:
    """Provide what archives partitions. Raises UnavailableError."""
    partitions = PostgresPartitions(url)

    def archiver() -> Archiver:
        folder = _host_folder(settings, partitions.log_id())
        try:
            key = read_secret(settings.audit_mac_key_file or folder / "mac.key", MAC_KEY_BYTES)
        except KeyFileError as exc:
            raise UnavailableError(str(exc)) from exc
        journal = ArchiveJournal(partitions, lambda: audit_writer_id(SystemClock()), MacKeys(key))
        never = threading.Event()
        return Archiver(partitions, _archive_folder(settings, folder), journal, never.wait)

    try:
        yield Archiving(partitions, archiver)
    finally:
        partitions.close()


def _archive_folder(settings: Settings, folder: Path) -> ArchiveFolder:
    return ArchiveFolder(settings.audit_archive_dir or folder / "archive")


def _host_folder(settings: Settings, log_id: str) -> Path:
    folder = (settings.state_dir or default_data_root() / "audit") / log_id
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise UnavailableError(f"cannot make the folder {folder}: {exc.strerror}") from exc
    return folder


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Let one process at a time look for keys and make them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _mac_keys(settings: Settings, folder: Path) -> MacKeys:
    configured = settings.audit_mac_key_file
    path = configured or folder / "mac.key"
    try:
        if configured is None and not path.exists():
            create_secret(path, MAC_KEY_BYTES)
        return MacKeys(read_secret(path, MAC_KEY_BYTES))
    except KeyFileError as exc:
        raise UnavailableError(str(exc)) from exc


def _custody(
    settings: Settings, folder: Path, keys: MacKeys, store: PostgresEventStore
) -> Custody | None:
    """Return what signing needs; a key is made for a log that nobody has signed yet."""
    path = settings.audit_signing_key_file or folder / "signing.key"
    state = StateFile(folder / "signed.json")
    try:
        if not path.exists():
            if settings.audit_signing_key_file is not None or store.is_signed(
                _soon(_START_SECONDS)
            ):
                _log.warning("%s is missing: this host neither seals nor signs", path)
                return None
            # An auditor takes its public side to a checkpoint, whose name it must have.
            origin = settings.audit_origin or store.origin(_soon(_START_SECONDS))
            key = create_key_file(path, origin)
            _log.info("a key to sign the audit log was made; its public side is %s", key.text())
        return Custody(keys, read_key_file(path), state)
    except KeyFileError as exc:
        raise UnavailableError(str(exc)) from exc


def _about() -> dict[str, str | int]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "version": version("licet")}


def _soon(seconds: float) -> Deadline:
    end = monotonic() + seconds
    return Deadline(lambda: end - monotonic())
