"""The composition of a host's steward: what seals, signs, verifies, archives and adopts.

With several workers it is a process of its own; a single worker has it in its threads (decision
27). What must be done by one host at a time is done by the one that leads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Final, Self

from licet.app.ports import Clock
from licet.app.sealed_log import Ranges, Trust
from licet.bootstrap import policy_file
from licet.bootstrap.custody import (
    START_SECONDS,
    HostState,
    archive_folder,
    host_folder,
    host_state,
    soon,
)
from licet.config import Settings
from licet.domain.audit_batch import MAC_KEY_BYTES, MacKeys
from licet.domain.audit_event import EventType
from licet.domain.canonical_json import JsonValue
from licet.domain.errors import UnavailableError
from licet.replica.clock import SystemClock
from licet.spool.adoption import Adoption
from licet.spool.shipper import Retention, Shipper
from licet.steward.agents import SilenceThread
from licet.steward.archive import Archiver
from licet.steward.archived import archived_leaves
from licet.steward.buckets import BucketThread
from licet.steward.key_files import read_secret
from licet.steward.records import Records
from licet.steward.retention import ArchiveJournal, RetentionPlan, RetentionThread
from licet.steward.signing import KeyFileError, verify_ed25519
from licet.steward.steward import Custody, Plan, Steward
from licet.steward.verifier import RollingVerifier, Rounds
from licet.steward.verifying import VerifierThread
from licet.storage.agents import PostgresAgents
from licet.storage.audit_shipping import PostgresEventStore
from licet.storage.limits import PostgresBuckets
from licet.storage.partitions import PostgresPartitions
from licet.storage.pool import Database, PoolLimits
from licet.storage.sealing import PostgresSealing
from licet.storage.verification import opened_log
from licet.telemetry import metrics
from licet.writer.ids import audit_writer_id

_log: Final = logging.getLogger(__name__)

_FLUSH_SECONDS: Final = 10.0
_SETTLE_SECONDS: Final = 3.0
"""How long the end waits for another host to seal and sign what was adopted here."""
_SETTLE_LOOK_SECONDS: Final = 0.1
_POOL: Final = PoolLimits(min_size=1, max_size=4)


class Stewardship:
    """The threads of a steward."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it is composed of
        self,
        settings: Settings,
        url: str,
        database: Database,
        store: PostgresEventStore,
        host: HostState,
        clock: Clock,
    ) -> None:
        """Compose them; `start` starts them.

        Args:
            settings: what the operator set.
            url: of the database.
            database: a pool of connections to it.
            store: takes what is left in spools.
            host: what this host has of the log.
            clock: dates the numbers of writers.
        """
        self._settings = settings
        self._url = url
        self._database = database
        self._store = store
        self._host = host
        self._clock = clock
        self.steward: Steward | None = None
        self._silence = SilenceThread(
            PostgresAgents(database),
            lambda: self.steward is not None and self.steward.leads,
            soon,
            settings.agent_heartbeat_seconds,
        )
        self._buckets = BucketThread(
            PostgresBuckets(database),
            lambda: self.steward is not None and self.steward.leads,
            soon,
        )
        self.verifier: RollingVerifier | None = None
        self._stack = ExitStack()
        self._adoption = self._adopting()
        custody = host.custody
        if custody is not None:
            self.steward = Steward(
                lambda: PostgresSealing(url), self._writer_id, custody, Plan(settings.audit_origin)
            )

    @property
    def is_well(self) -> bool:
        """Whether the log is sealed and signed as far as that is up to this host."""
        return self.steward is None or self.steward.is_well

    @property
    def lost(self) -> int:
        """How many events of adopted spools were lost, or could not be stored."""
        return self._adoption.lost

    def start(self) -> None:
        """Start."""
        steward, custody = self.steward, self._host.custody
        if steward is not None and custody is not None:
            self._stack.callback(self._settle, steward)
            steward.start()
            self._start_retention(steward)
            self._start_verifier(steward, custody)
            self._stack.callback(self._silence.stop)
            self._silence.start()
            self._stack.callback(self._buckets.stop)
            self._buckets.start()
        else:
            self._stack.callback(self._leave_spools)
        self._adoption.start()
        policy_file.follow(self._settings, self._url, self._database, self._stack)

    def stop(self) -> None:
        """Store what is left in spools, seal and sign it, remove them, and end."""
        self._stack.close()

    def _settle(self, steward: Steward) -> None:
        """Bring to an end what the writers of this host have left."""
        end = monotonic() + _FLUSH_SECONDS
        can_look = self._adoption.end()
        if can_look:
            self._adoption.look(lambda: monotonic() > end)
        steward.stop()
        if not can_look:
            return
        pausing = threading.Event()  # never set: a bounded wait
        end = monotonic() + _SETTLE_SECONDS
        while (
            self._adoption.look(lambda: monotonic() > end) and monotonic() < end and steward.is_well
        ):
            pausing.wait(_SETTLE_LOOK_SECONDS)
        self._adoption.close()

    def _leave_spools(self) -> None:
        """Store what is left; another host seals it, and the next start here removes it."""
        end = monotonic() + _FLUSH_SECONDS
        if self._adoption.end():
            self._adoption.look(lambda: monotonic() > end)
            self._adoption.close()

    def _writer_id(self) -> int:
        return audit_writer_id(self._clock)

    def _adopting(self) -> Adoption:
        settings, store = self._settings, self._store
        retention = Retention(settings.spool_retain_seconds, settings.spool_max_mib << 19)
        records = Records(store, self._writer_id, self._host.keys)

        def recovered(adopted: Shipper) -> None:
            facts = {"writer_id": adopted.folder.writer_id, "last_sequence": adopted.shipped}
            records.record(EventType.WRITER_RECOVERED, "", {**facts, "lost": adopted.lost})

        return Adoption(
            self._host.spools,
            lambda dead: Shipper(dead, store, self._host.keys, retention),
            lambda dead: store.is_settled(dead, soon(_FLUSH_SECONDS)),
            recovered,
            retention,
        )

    def _start_retention(self, steward: Steward) -> None:
        """Archive by age, if that is wanted."""
        if self._settings.audit_retention_days is None:
            return
        retention = RetentionThread(
            lambda: PostgresPartitions(self._url),
            self._writer_id,
            self._host.keys,
            archive_folder(self._settings, self._host.folder),
            lambda: steward.leads and steward.checkpoint is not None,
            RetentionPlan(self._settings.audit_retention_days),
        )
        self._stack.callback(retention.stop)
        retention.start()

    def _start_verifier(self, steward: Steward, custody: Custody) -> None:
        """Verify what is sealed again and again, unless that is turned off."""
        share = self._settings.audit_verify_share
        if not share:
            return
        records = Records(self._store, self._writer_id, self._host.keys)

        def record(reason: str, facts: Mapping[str, JsonValue]) -> None:
            records.record(EventType.INCIDENT, reason, facts)

        self.verifier = RollingVerifier(
            lambda: opened_log(self._url, snapshot=False),
            Trust(custody.signer.key, verify_ed25519),
            record,
            Rounds(recent_every=self._settings.audit_verify_seconds, share=share),
            archived=self._archived,
        )
        thread = VerifierThread(self.verifier, lambda: steward.leads)
        self._stack.callback(thread.stop)
        thread.start()

    def _archived(self) -> Mapping[int, Ranges]:
        partitions = PostgresPartitions(self._url)
        try:
            return archived_leaves(partitions.told())
        finally:
            partitions.close()

    def sources(self) -> metrics.Sources:
        """Return what is measured of it."""
        steward, verifier, adoption = self.steward, self.verifier, self._adoption
        return metrics.Sources(
            counters={
                "audit_events_sealed": (
                    "Audit events sealed by this process.",
                    lambda: 0 if steward is None else steward.sealed,
                ),
                "audit_mismatches": (
                    "Batches that were not what their writer had stored.",
                    lambda: 0 if steward is None else steward.mismatches,
                ),
                "audit_leaves_verified": (
                    "Leaves verified, those that were verified again included.",
                    lambda: 0 if verifier is None else verifier.leaves,
                ),
                "audit_recent_rounds": (
                    "How often what was sealed of late was verified.",
                    lambda: 0 if verifier is None else verifier.recent_rounds,
                ),
                "audit_whole_rounds": (
                    "How often everything was verified.",
                    lambda: 0 if verifier is None else verifier.whole_rounds,
                ),
                "agents_marked_offline": (
                    "Agents that this process found silent and marked offline.",
                    lambda: self._silence.marked,
                ),
                "limit_rows_trimmed": (
                    "Rows of buckets that were full again, deleted by this process.",
                    lambda: self._buckets.trimmed,
                ),
                "audit_findings": (
                    "What was found to be changed, each once.",
                    lambda: 0 if verifier is None else verifier.findings,
                ),
            },
            gauges={
                "audit_leading": (
                    "1 if this process seals, else 0.",
                    lambda: steward is not None and steward.leads,
                ),
                "audit_signing_refused": (
                    "1 while no checkpoint is signed, because it would contradict an earlier one.",
                    lambda: steward is not None and steward.refusal is not None,
                ),
                "spools_adopted": (
                    "Spools of writers that are gone, kept for a time.",
                    lambda: adoption.held,
                ),
            },
            histograms={},
        )


class StewardProcess:
    """A steward that is a process of its own: no gRPC, no replica, no decisions."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings, which name a database; `start` does the work."""
        self._settings = settings
        self._stack = ExitStack()
        self._stewardship: Stewardship
        self.metrics_port: int | None = None

    @property
    def is_well(self) -> bool:
        """See `Stewardship.is_well`."""
        return self._stewardship.is_well

    def start(self) -> Self:
        """Start.

        Raises:
            UnavailableError: the database or a key cannot be used; whatever had been started is
                stopped.
        """
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def stop(self) -> None:
        """See `Stewardship.stop`."""
        self._stack.close()

    def _start(self) -> None:
        settings = self._settings
        if settings.database_url is None:
            raise UnavailableError("a steward needs LICET_DATABASE_URL")
        url = settings.database_url.get_secret_value()
        database = Database(url, _POOL)
        self._stack.callback(database.close)
        database.open(START_SECONDS)
        store = PostgresEventStore(database)
        host = host_state(settings, store, signs=True)
        self._stewardship = stewardship = Stewardship(
            settings, url, database, store, host, SystemClock()
        )
        self._stack.callback(stewardship.stop)
        stewardship.start()
        address = settings.metrics_listen
        if address is None:
            return
        lost = "Audit events lost with a damaged spool, or not storable."
        sources = stewardship.sources()
        sources.counters["audit_events_lost"] = (lost, lambda: stewardship.lost)
        try:
            self.metrics_port, stop = metrics.serve(metrics.ReplicaCollector(sources), address)
        except OSError as exc:
            raise UnavailableError(f"cannot serve the metrics on {address}: {exc}") from exc
        self._stack.callback(stop)


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
        folder = host_folder(settings, partitions.log_id())
        try:
            key = read_secret(settings.audit_mac_key_file or folder / "mac.key", MAC_KEY_BYTES)
        except KeyFileError as exc:
            raise UnavailableError(str(exc)) from exc
        journal = ArchiveJournal(partitions, lambda: audit_writer_id(SystemClock()), MacKeys(key))
        never = threading.Event()
        return Archiver(partitions, archive_folder(settings, folder), journal, never.wait)

    try:
        yield Archiving(partitions, archiver)
    finally:
        partitions.close()
