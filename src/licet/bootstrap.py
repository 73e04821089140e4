"""The composition root: the only place that names every concrete class.

Top to bottom, in the order of starting.
"""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Final, Self
from uuid import uuid4

from licet.app.authorize import Authorize
from licet.app.grant import GrantCapability
from licet.app.ports import Deadline
from licet.app.prefetch import prefetch
from licet.app.read import QueryAudit, ReadCapabilities
from licet.app.revoke import RevokeCapabilities
from licet.app.watch import Sources, WatchChanges
from licet.config import Settings
from licet.domain.errors import LicetError, UnavailableError
from licet.replica.capability_sets import CachedCapabilitySets
from licet.replica.clock import DatabaseClock
from licet.replica.coherence import Replica
from licet.replica.feed import MemoryFeed
from licet.replica.lease import LEASE_MARGIN, Lease, boottime
from licet.replica.retention import Retention
from licet.server.lifecycle import AddServices, Server, ServerLimits
from licet.server.service import UseCases
from licet.spool.background import BackgroundAuditLog
from licet.storage import migrate, schema
from licet.storage.audit import PostgresAuditEvents
from licet.storage.audit_pages import PostgresAuditPages
from licet.storage.capabilities import PostgresCapabilities
from licet.storage.changes import PostgresChanges
from licet.storage.embedded import EmbeddedPostgres, data_folder
from licet.storage.mutations import PostgresMutations
from licet.storage.pool import Database, PoolLimits
from licet.storage.replicas import PostgresReplicaObserver, PostgresReplicaSession
from licet.storage.tokens import SignedPageTokens
from licet.telemetry import metrics
from licet.writer.acknowledgements import Acknowledgements
from licet.writer.group_commit import GroupCommit
from licet.writer.ids import TimeOrderedIds, audit_writer_id
from licet.writer.mutations import MutationWriter

_log: Final = logging.getLogger(__name__)

_START_SECONDS: Final = 30.0
_FLUSH_SECONDS: Final = 10.0
_PROBE_SECONDS: Final = 2.0
_PREFETCH_SECONDS: Final = 2.0


class Licet:
    """A running licet.

    Everything that was started is stopped in the reverse order, whatever fails.
    """

    def __init__(
        self,
        settings: Settings,
        add_services: AddServices | None = None,
        *,
        shares_port: bool = False,
    ) -> None:
        """Take the settings; `start` does the work.

        Args:
            settings: what the operator set.
            add_services: services to serve beside ours.
            shares_port: this is one of several workers on one port.
        """
        self._settings = settings
        self._shares_port = shares_port
        self._add_services = add_services
        self._stack = ExitStack()
        self.server: Server
        self.metrics_port: int | None = None

    def start(self) -> Self:
        """Start the database if it is ours, migrate, and serve.

        Raises:
            LicetError: the database cannot be used, its schema is not the expected one, or the
                address is taken. EmbeddedPostgresError, MigrationError: each says what to do.
        """
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def stop(self) -> None:
        """Drain, store what is on record, and stop everything that was started."""
        self._stack.close()

    def _start(self) -> None:
        settings = self._settings
        patience = _deadline(_START_SECONDS)
        # (1) The database and its schema.
        url, migration_url = self._database_urls()
        if settings.migrate_on_start:
            _migrate(migration_url)
        database = self._database(url)
        expected = schema.expected_migrations()
        with database.connection(patience) as connection:
            state = schema.check(connection, expected)
        if not state.is_expected:
            raise UnavailableError(
                f"the database's schema is not this release's ({state}): run `licet migrate up`"
            )
        # (2) Reads from memory, under a lease that the replica renews.
        clock = DatabaseClock(boottime)
        capabilities = PostgresCapabilities(database, clock)
        lease = Lease(boottime)
        sets = CachedCapabilitySets(
            capabilities.held, lease, settings.cache_bytes, settings.cache_negative
        )
        feed = MemoryFeed()
        replica = self._replica(url, sets, feed, lease, clock)
        # (3) Decisions go on record.
        events = PostgresAuditEvents(database)
        log = self._audit_log(events, clock)
        # (4) Changes, which wait for every replica.
        store = PostgresMutations(database)
        acknowledgements = self._acknowledgements(url)
        mutations = MutationWriter(self._commit(store), acknowledgements, store, capabilities)
        warm = prefetch(events, sets, _deadline(_PREFETCH_SECONDS))
        _log.info("the capability sets of %d recent principals are in memory", warm)
        # (5) What operators see.
        if settings.metrics_listen is not None:
            self._serve_metrics(
                settings.metrics_listen,
                _sources(sets, lease, replica, clock, log, acknowledgements),
            )
        # (6) The service.
        ids = TimeOrderedIds(clock)
        tokens = SignedPageTokens.from_database(database, patience)
        use_cases = UseCases(
            authorize=Authorize(sets, log, clock),
            grant=GrantCapability(capabilities, mutations, clock, ids),
            revoke=RevokeCapabilities(capabilities, mutations, ids),
            capabilities=ReadCapabilities(capabilities, tokens, clock),
            audit=QueryAudit(PostgresAuditPages(database, settings.audit_page_seconds), tokens),
            watch=self._watch(PostgresChanges(database), feed, lease),
        )

        self.server = Server(
            use_cases,
            settings.listen,
            _server_limits(settings, self._shares_port),
            lambda: _is_ready(database, expected),
            self._add_services,
        )
        self._stack.callback(self.server.drain, settings.drain_seconds)
        self.server.start()

    def _database(self, url: str) -> Database:
        database = Database(url, _pool_limits(self._settings))
        self._stack.callback(database.close)
        database.open(_START_SECONDS)
        return database

    def _replica(
        self,
        url: str,
        sets: CachedCapabilitySets,
        feed: MemoryFeed,
        lease: Lease,
        clock: DatabaseClock,
    ) -> Replica:
        host = socket.gethostname()
        replica = Replica(
            lambda: PostgresReplicaSession(
                url, host, self._settings.lease_seconds, boottime, clock.sample
            ),
            sets,
            lease,
            uuid4,
            self._settings.lease_seconds,
            (feed,),
        )
        self._stack.callback(replica.stop)
        if not replica.start(_START_SECONDS):
            raise UnavailableError("this replica could not be registered in the database")
        return replica

    def _audit_log(self, events: PostgresAuditEvents, clock: DatabaseClock) -> BackgroundAuditLog:
        writer_id = audit_writer_id(clock)
        events.register(writer_id, clock.now(), _deadline(_START_SECONDS))
        log = BackgroundAuditLog(events, writer_id, self._settings.audit_max_pending)
        self._stack.callback(log.close, _FLUSH_SECONDS)
        log.start()
        return log

    def _watch(self, changes: PostgresChanges, feed: MemoryFeed, lease: Lease) -> WatchChanges:
        settings = self._settings
        retention = Retention(changes, settings.change_retention_hours)
        self._stack.callback(retention.stop)
        retention.start()
        return WatchChanges(
            Sources(feed, changes, lease.is_valid, boottime, settings.heartbeat_seconds)
        )

    def _commit(self, store: PostgresMutations) -> GroupCommit:
        commit = GroupCommit(store)
        self._stack.callback(commit.stop)
        commit.start()
        return commit

    def _acknowledgements(self, url: str) -> Acknowledgements:
        acknowledgements = Acknowledgements(
            lambda: PostgresReplicaObserver(url), boottime, LEASE_MARGIN
        )
        self._stack.callback(acknowledgements.stop)
        acknowledgements.start()
        return acknowledgements

    def _serve_metrics(self, address: str, sources: metrics.Sources) -> None:
        host, _, port = address.rpartition(":")
        try:
            self.metrics_port, stop = metrics.serve(sources, host.strip("[]"), int(port))
        except OSError as exc:
            raise UnavailableError(f"cannot serve the metrics on {address}: {exc}") from exc
        self._stack.callback(stop)

    def _database_urls(self) -> tuple[str, str]:
        settings = self._settings
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
            admin = settings.migration_database_url
            return url, url if admin is None else admin.get_secret_value()
        embedded = EmbeddedPostgres(data_folder(settings.data_dir))
        self._stack.callback(embedded.stop)
        embedded.start()
        return embedded.conninfo, embedded.conninfo


def settle() -> None:
    """Leave what lives for ever out of the garbage collector's sight, and let it look less often.

    For a process that only serves, once it has started: a decision makes no cycles, and looking for
    them cost a seventh of a batch (docs/benchmarks.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _migrate(url: str) -> None:
    if any(not state.applied or not state.checksum_ok for state in migrate.status(url)):
        _log.info("migrations applied: %s", ", ".join(migrate.up(url)))


def _is_ready(database: Database, expected: Sequence[tuple[str, str]]) -> bool:
    try:
        with database.connection(_deadline(_PROBE_SECONDS)) as probe:
            return schema.check(probe, expected).is_expected
    except LicetError:
        return False


def _pool_limits(settings: Settings) -> PoolLimits:
    return PoolLimits(
        min_size=settings.pool_min,
        max_size=settings.pool_max,
        acquire_seconds=settings.pool_acquire_seconds,
        statement_seconds=settings.statement_seconds,
    )


def _server_limits(settings: Settings, shares_port: bool) -> ServerLimits:  # noqa: FBT001 - a fact
    return ServerLimits(
        threads=settings.threads,
        streams=settings.max_streams,
        watchers=settings.max_watchers,
        message_bytes=settings.max_message_bytes,
        shares_port=shares_port,
    )


def _deadline(seconds: float) -> Deadline:
    end = monotonic() + seconds
    return Deadline(lambda: end - monotonic())


def _sources(  # noqa: PLR0913, PLR0917 - one argument per part that is watched
    sets: CachedCapabilitySets,
    lease: Lease,
    replica: Replica,
    clock: DatabaseClock,
    log: BackgroundAuditLog,
    acknowledgements: Acknowledgements,
) -> metrics.Sources:
    return metrics.Sources(
        counters={
            "decisions": ("Decisions taken.", lambda: log.recorded),
            "set_reads": ("Capability sets read because memory had none.", lambda: sets.reads),
            "set_reads_joined": ("Requests that waited for another's read.", lambda: sets.joined),
            "set_evictions": ("Capability sets that made room for others.", lambda: sets.evictions),
            "replicas_fenced": ("Replicas this one shut out.", lambda: acknowledgements.fenced),
            "database_clock_steps": ("Steps of the database's clock.", lambda: clock.steps),
        },
        gauges={
            "applied_revision": (
                "Revision up to which memory is current.",
                lambda: replica.applied,
            ),
            "lease_remaining_seconds": ("How long memory may be used.", lease.remaining),
            "capability_sets": ("Principals in memory.", lambda: len(sets)),
            "capability_sets_bytes": ("What they weigh, by estimate.", lambda: sets.bytes),
            "audit_events_pending": ("Audit events that wait to be stored.", lambda: log.pending),
        },
        histograms={
            "mutation_wait_seconds": (
                "How long mutations waited for the replicas.",
                acknowledgements.waits,
            ),
        },
    )
