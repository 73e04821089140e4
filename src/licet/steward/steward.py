"""The steward of a host: seals the audit log, signs checkpoints, and keeps the log's heart beating.

One thread and one connection. Whatever fails is tried again on a new connection; decisions never
wait for it, and what it cannot seal stays queued.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from typing import Final, Protocol

from licet.app.sealing import Checkpoints, Sealing
from licet.domain.audit_batch import MacKeys
from licet.domain.audit_event import EventType
from licet.domain.canonical_json import JsonValue
from licet.domain.checkpoint import Checkpoint
from licet.domain.errors import LicetError
from licet.steward.journal import Journal
from licet.steward.sealer import Sealer, SealError
from licet.steward.signer import CheckpointSigner, RefusalError
from licet.steward.signing import Ed25519Signer
from licet.steward.state_file import StateFile, StateFileError

_log: Final = logging.getLogger(__name__)

_BACKOFF_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 10.0
_WELL_SECONDS: Final = 30.0
"""A steward that did not come round for so long is not well: a statement may take as long."""


class Connection(Sealing, Checkpoints, Protocol):
    """The steward's database connection."""

    def open_log(self, origin: str | None) -> None:
        """Name the log, if nothing was signed yet, and make the partitions of the next days."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What the steward does and how often.

    Attributes:
        origin: the name of the log, until something is signed; None for the one it was born with.
        seal_seconds: how long what is stored waits to be sealed.
        checkpoint_seconds: how long what is sealed waits to be signed.
        heartbeat_seconds: how often the log says that it lives.
        tell_seconds: how often, at most, the process's own log says what was signed.
    """

    origin: str | None = None
    seal_seconds: float = 0.05
    checkpoint_seconds: float = 1.0
    heartbeat_seconds: float = 60.0
    tell_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Custody:
    """What is kept outside the database.

    Attributes:
        keys: by which batches are authenticated.
        signer: of checkpoints.
        state: what was signed last.
    """

    keys: MacKeys
    signer: Ed25519Signer
    state: StateFile


class Steward:
    """See the module."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        writer_id: Callable[[], int],
        custody: Custody,
        plan: Plan,
    ) -> None:
        """Compose it; `start` starts it.

        Args:
            connect: opens a database connection; raises UnavailableError.
            writer_id: draws the number of a new writer of the audit log.
            custody: its keys and its memory.
            plan: how often.
        """
        self._connect = connect
        self._writer_id = writer_id
        self._custody = custody
        self._plan = plan
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-steward", daemon=True)
        self.sealed = 0
        """How many leaves were added by this steward."""
        self.mismatches = 0
        """How many batches were not what their writer stored."""
        self.refusal: str | None = None
        """Why no checkpoint is signed, while that is so."""
        self.checkpoint: Checkpoint | None = None
        """The last one that was signed here."""
        self.leads = False
        """Whether this one, of all that there are, does the work."""
        self._came_round = monotonic()
        self._told: Checkpoint | None = None
        self._telling_due = monotonic()

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """Seal what waits, sign it, and end."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    @property
    def is_well(self) -> bool:
        """Whether it works, or stands by, and refuses nothing."""
        return self.refusal is None and monotonic() - self._came_round < _WELL_SECONDS

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                connection = self._connect()
            except LicetError as exc:
                _log.warning("the audit log is not sealed: %s", exc)
                self._stopping.wait(_BACKOFF_SECONDS)
                continue
            try:
                self._serve(connection)
            except (LicetError, SealError) as exc:
                _log.warning("the audit log is not sealed: %s", exc)
                self._stopping.wait(_BACKOFF_SECONDS)
            except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, not end it
                _log.exception("the audit log is not sealed")
                self._stopping.wait(_BACKOFF_SECONDS)
            finally:
                self.leads = False
                connection.close()

    def _serve(self, connection: Connection) -> None:
        """Work on one connection until it fails or the end."""
        plan, custody = self._plan, self._custody
        connection.open_log(plan.origin)
        writer_id = self._writer_id()
        connection.register(writer_id)
        journal = Journal(writer_id, custody.keys)
        sealer = Sealer(connection, custody.keys, journal)
        signer = CheckpointSigner(connection, custody.signer, custody.state)
        heartbeat_due = monotonic()
        checkpoint_due = monotonic() + plan.checkpoint_seconds
        while True:
            ending = self._stopping.is_set()
            now = monotonic()
            self.leads = connection.lead()
            if now >= heartbeat_due and self.leads:
                heartbeat_due = now + plan.heartbeat_seconds
                connection.open_log(plan.origin)
                self._beat(connection, journal)
            more = self._seal(sealer) if self.leads else 0
            if ending:
                while more:
                    more = self._seal(sealer)
            if (ending or now >= checkpoint_due) and self.leads:
                checkpoint_due = now + plan.checkpoint_seconds
                self._sign(signer)
            self._came_round = monotonic()
            if ending:
                return
            if not more:
                self._stopping.wait(plan.seal_seconds)

    def _beat(self, connection: Connection, journal: Journal) -> None:
        with connection.transaction() as transaction:
            head = transaction.head
            facts: Mapping[str, JsonValue] = {"size": head.size, "root": head.root.hex()}
            journal.record(transaction, EventType.HEARTBEAT, "", facts)

    def _seal(self, sealer: Sealer) -> int:
        sealed, mismatches = sealer.sealed, sealer.mismatches
        more = sealer.step()
        self.sealed += sealer.sealed - sealed
        self.mismatches += sealer.mismatches - mismatches
        return more

    def _sign(self, signer: CheckpointSigner) -> None:
        try:
            signed = signer.step()
        except (RefusalError, StateFileError) as exc:
            if str(exc) != self.refusal:
                _log.critical("no checkpoint is signed: %s", exc)
            self.refusal = str(exc)
            return
        self.refusal = None
        if signed is not None:
            self.checkpoint = signed
        self._tell()

    def _tell(self) -> None:
        """Leave checkpoints where this log is collected, out of reach of the database."""
        checkpoint, now = self.checkpoint, monotonic()
        if checkpoint is None or checkpoint == self._told or now < self._telling_due:
            return
        self._told, self._telling_due = checkpoint, now + self._plan.tell_seconds
        root = b64encode(checkpoint.root).decode()
        _log.info("checkpoint %s %d %s", checkpoint.origin, checkpoint.size, root)
