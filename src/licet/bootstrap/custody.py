"""What a host keeps outside the database, in one folder per log: spools, keys, and what was signed.

And where its Unix socket is. `audit.py` and `steward.py` work with it.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from licet.app.ports import Deadline
from licet.config import Settings
from licet.domain.audit_batch import MAC_KEY_BYTES, MacKeys
from licet.domain.errors import UnavailableError
from licet.server.socket_file import SocketFile
from licet.steward.archive_folder import ArchiveFolder
from licet.steward.key_files import create_secret, read_secret
from licet.steward.signing import KeyFileError, create_key_file, read_key_file
from licet.steward.state_file import StateFile
from licet.steward.steward import Custody
from licet.storage.audit_shipping import PostgresEventStore
from licet.storage.embedded import default_data_root

_log: Final = logging.getLogger(__name__)

START_SECONDS: Final = 30.0
"""How long a start waits for a statement."""


@dataclass(frozen=True, slots=True)
class HostState:
    """What a host has of one log.

    Attributes:
        folder: where all of it is.
        spools: the folder of the spools for this database.
        keys: by which batches are authenticated.
        custody: what signing needs; None on a host that does not sign.
    """

    folder: Path
    spools: Path
    keys: MacKeys
    custody: Custody | None

    @property
    def public_key(self) -> bytes | None:
        """The key that verifies checkpoints; None where it is not known."""
        return None if self.custody is None else self.custody.signer.key.public_key


def host_state(settings: Settings, store: PostgresEventStore, *, signs: bool) -> HostState:
    """Find it, or make it for a log that is new.

    Args:
        settings: where it is.
        store: knows which log it is.
        signs: this process is one that signs. For another, a key that cannot be used is none: its
            steward ends or says so, and decisions go on.

    Raises:
        UnavailableError: there is no place for it, or a key cannot be used.
    """
    log_id, database_id = store.identity(soon(START_SECONDS))
    folder = host_folder(settings, log_id)
    with _held(folder):
        keys = _mac_keys(settings, folder)
        try:
            custody = _custody(settings, folder, keys, store)
        except UnavailableError as exc:
            if signs:
                raise
            _log.warning("the key that verifies checkpoints is not known here: %s", exc)
            custody = None
    return HostState(folder, spools_of(settings, log_id, database_id), keys, custody)


def spools_of(settings: Settings, log_id: str, database_id: str) -> Path:
    """Return the folder of this host's spools for a database."""
    return host_folder(settings, log_id) / f"spool-{database_id}"


def custody_of(settings: Settings, log_id: str, *, new_key_name: str | None = None) -> Custody:
    """Return what this host signs a log with, for who does not serve.

    Args:
        settings: where it is.
        log_id: which log it is.
        new_key_name: make a key of that name, if there is none and the settings name none.

    Raises:
        UnavailableError: this host does not sign, or a key cannot be used.
    """
    folder = host_folder(settings, log_id)
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


def archive_folder(settings: Settings, folder: Path) -> ArchiveFolder:
    """Return where archives go, for a log whose state is in a folder."""
    return ArchiveFolder(settings.audit_archive_dir or folder / "archive")


def host_folder(settings: Settings, log_id: str) -> Path:
    """Return the folder of a log, which is made if need be. Raises UnavailableError."""
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
            if settings.audit_signing_key_file is not None or store.is_signed(soon(START_SECONDS)):
                _log.warning("%s is missing: this host neither seals nor signs", path)
                return None
            # An auditor takes its public side to a checkpoint, whose name it must have.
            origin = settings.audit_origin or store.origin(soon(START_SECONDS))
            key = create_key_file(path, origin)
            _log.info("a key to sign the audit log was made; its public side is %s", key.text())
        return Custody(keys, read_key_file(path), state)
    except KeyFileError as exc:
        raise UnavailableError(str(exc)) from exc


def socket_file(settings: Settings, stack: ExitStack | None) -> SocketFile | None:
    """Claim the Unix socket, until the stack ends; return None if there is to be none.

    Without a stack it is not claimed: the supervisor of this process has done that.

    Raises:
        UnavailableError: another server has it, or it cannot be used.
    """
    if settings.socket is None:
        return None
    file = SocketFile(settings.socket, settings.socket_bits)
    if stack is not None:
        file.claim()
        stack.callback(file.remove)
    return file


def soon(seconds: float) -> Deadline:
    """Return the deadline in so many seconds."""
    return Deadline.after(seconds, monotonic)
