"""The composition root: with its parts beside it, all that names every concrete class.

Top to bottom, in the order of starting.
"""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final, Self
from uuid import uuid4

from licet.app.grant import GrantCapability
from licet.app.import_audit import ImportAudit
from licet.app.policy_ports import ActivePolicies
from licet.app.ports import Deadline
from licet.app.read import QueryAudit, ReadCapabilities
from licet.app.revoke import RevokeCapabilities
from licet.app.watch import Sources, WatchChanges
from licet.bootstrap import policy_file
from licet.bootstrap.approvals import ComposedApprovals
from licet.bootstrap.audit import AuditTrail, start_audit
from licet.bootstrap.callers import Callers
from licet.bootstrap.custody import socket_file, soon
from licet.bootstrap.metrics import Watched, sources_of
from licet.bootstrap.policies import Policies
from licet.bootstrap.sets import in_memory, warm
from licet.bootstrap.tracing import start_tracing
from licet.config import Settings
from licet.domain.errors import LicetError, UnavailableError
from licet.replica.clock import DatabaseClock
from licet.replica.coherence import Memories, Memory, Replica
from licet.replica.feed import MemoryFeed
from licet.replica.lease import LEASE_MARGIN, Lease, boottime
from licet.replica.retention import Retention
from licet.server.certificates import TlsFiles
from licet.server.followed import FileRefusedError
from licet.server.lifecycle import AddServices, Server
from licet.server.limits import ServerLimits
from licet.server.service import UseCases
from licet.server.socket_file import SocketFile
from licet.server.tls import ServerTls
from licet.storage import migrate, schema
from licet.storage.audit_pages import PostgresAuditPages
from licet.storage.capabilities import PostgresCapabilities
from licet.storage.changes import PostgresChanges
from licet.storage.embedded import EmbeddedPostgres, data_folder
from licet.storage.mutations import PostgresMutations
from licet.storage.pool import Database, PoolLimits
from licet.storage.register import newest_revision
from licet.storage.replicas import (
    EarlierSessions,
    PostgresReplicaObserver,
    PostgresReplicaSession,
)
from licet.storage.tokens import SignedPageTokens
from licet.telemetry import metrics
from licet.writer.acknowledgements import Acknowledgements
from licet.writer.group_commit import GroupCommit
from licet.writer.ids import TimeOrderedIds
from licet.writer.mutations import MutationWriter

_log: Final = logging.getLogger(__name__)

_START_SECONDS: Final = 30.0
_PROBE_SECONDS: Final = 2.0


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
        report: Callable[[bool], None] | None = None,
        has_steward: bool = True,
    ) -> None:
        """Take the settings; `start` does the work.

        Args:
            settings: what the operator set.
            add_services: services to serve beside ours.
            shares_port: this is one of several workers on one port.
            report: told what each health probe found.
            has_steward: this process is the steward of its host as well; otherwise another one is.
        """
        self._settings = settings
        self._shares_port = shares_port
        self._report = report
        self._has_steward = has_steward
        self._add_services = add_services
        self._stack = ExitStack()
        self.server: Server
        self._trail: AuditTrail
        self.metrics_port: int | None = None
        self._newest = 0  # revision, as the last health probe found it

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

    @property
    def failure(self) -> str | None:
        """Why no decision will ever be recorded by this process again, once that is so."""
        return self._trail.writer.refusal

    def stop(self) -> None:
        """Drain, store what is on record, and stop everything that was started."""
        self._stack.close()

    def _start(self) -> None:
        settings = self._settings
        patience, (tls, file) = soon(_START_SECONDS), self._transports()
        spans = start_tracing(settings, self._stack)  # ended last: nobody waits for it
        # (1) The database and its schema.
        url, migration_url = self._database_urls()
        if settings.migrate_on_start:
            _migrate(migration_url)
        expected = self._check_ready(database := self._database(url), patience, url)
        # (2) Reads from memory, under a lease that the replica renews.
        clock = DatabaseClock(boottime)
        capabilities = PostgresCapabilities(database)
        lease = Lease(boottime)
        sets, ahead = in_memory(settings, database, clock, lease, self._stack)
        callers = Callers(database, lease, clock, patience, sets)
        policies = Policies(database, lease).start(self._stack)
        memories = Memories(sets, callers.keys, policies.held)
        replica = self._replica(url, memories, feed := MemoryFeed(), lease, clock)
        # (3) Decisions go on record.
        self._trail = trail = self._record(database, url, clock)
        # (4) Changes, which wait for every replica.
        acknowledgements = self._acknowledgements(url)
        mutations = self._mutations(database, acknowledgements, capabilities)
        warm(database, sets)
        # (5) The service.
        retention = self._retention(changes := PostgresChanges(database))
        sources = Sources(feed, changes, lease.is_valid, boottime, settings.heartbeat_seconds)
        ids, tokens = TimeOrderedIds(clock), SignedPageTokens.from_database(database, patience)
        pages = PostgresAuditPages(database, settings.audit_page_seconds)
        changed = callers.changes(acknowledgements, mutations)
        approvals = ComposedApprovals(database, changed, ids, clock)
        authorize = approvals.deciding(sets, trail.log, *policies.asked)
        use_cases = UseCases(
            authorize=authorize,
            grant=GrantCapability(capabilities, mutations, clock, ids, policies.conditions),
            revoke=RevokeCapabilities(capabilities, mutations, clock, ids),
            capabilities=ReadCapabilities(capabilities, tokens, clock),
            audit=QueryAudit(pages, tokens),
            watch=WatchChanges(sources),
            prove=trail.prove,
            import_audit=ImportAudit(changed, clock, ids, callers.users),
            identity=callers.managed(changed, ids, tokens, settings, self._stack),
            policies=policies.managed(changed, ids, tokens, callers.users),
            approvals=approvals.managed(callers.users, tokens),
            replay=policies.replayed(pages, capabilities, clock),
            latest_checkpoint=trail.latest,
        )
        authority = callers.authority(settings, trail.log, self._stack, tls)
        self.server = Server(
            *(use_cases, authority, settings.address, _server_limits(settings, self._shares_port)),
            *(self._probe(database, expected, policies.held), self._add_services, tls, file),
            spans=spans,
        )
        # (6) What operators see.
        watched = (sets, ahead, lease, replica, clock, trail, acknowledgements, feed, retention)
        asked = (lambda: self._newest, authorize, policies.held, policies.limits)
        self._serve_metrics(Watched(*watched, self.server, *asked, approvals.writer))
        self._stack.callback(self.server.drain, settings.drain_seconds)
        self.server.start()

    def _transports(self) -> tuple[ServerTls | None, SocketFile | None]:
        """Return what the port is served with, and where the Unix socket is, if there is one."""
        stack = None if self._shares_port else self._stack
        return server_tls(self._settings), socket_file(self._settings, stack)

    def _check_ready(
        self, database: Database, patience: Deadline, url: str
    ) -> Sequence[tuple[str, str]]:
        expected = schema.expected_migrations()
        _check_schema(database, expected, patience)
        if self._has_steward:
            # Before anybody serves; with several workers their supervisor has done it.
            policy_file.put_first(self._settings, url)
        return expected

    def _probe(
        self,
        database: Database,
        expected: Sequence[tuple[str, str]],
        policies: ActivePolicies,
    ) -> Callable[[], bool]:
        def probe() -> bool:
            try:
                # A server that cannot use the policies decides nothing; and no request has to wait
                # until they are compiled.
                policies(soon(_PROBE_SECONDS))
                with database.connection(soon(_PROBE_SECONDS)) as connection:
                    ready = schema.check(connection, expected).is_expected
                    if ready:
                        self._newest = newest_revision(connection)
            except LicetError:
                ready = False
            ready = ready and self.failure is None
            if self._report is not None:
                self._report(ready)
            return ready

        return probe

    def _database(self, url: str) -> Database:
        database = Database(url, _pool_limits(self._settings))
        self._stack.callback(database.close)
        database.open(_START_SECONDS)
        return database

    def _replica(
        self,
        url: str,
        memory: Memory,
        feed: MemoryFeed,
        lease: Lease,
        clock: DatabaseClock,
    ) -> Replica:
        host = socket.gethostname()
        earlier = EarlierSessions()
        replica = Replica(
            lambda: PostgresReplicaSession(
                url, host, self._settings.lease_seconds, boottime, clock.sample, earlier
            ),
            memory,
            lease,
            uuid4,
            self._settings.lease_seconds,
            (feed,),
        )
        self._stack.callback(replica.stop)
        if not replica.start(_START_SECONDS):
            raise UnavailableError("this replica could not be registered in the database")
        return replica

    def _record(self, database: Database, url: str, clock: DatabaseClock) -> AuditTrail:
        trail = start_audit(
            self._settings, database, url, clock, self._stack, has_steward=self._has_steward
        )
        clock.stepped = trail.log.stepped
        return trail

    def _retention(self, changes: PostgresChanges) -> Retention:
        retention = Retention(changes, self._settings.change_retention_hours)
        self._stack.callback(retention.stop)
        retention.start()
        return retention

    def _mutations(
        self,
        database: Database,
        acknowledgements: Acknowledgements,
        capabilities: PostgresCapabilities,
    ) -> MutationWriter:
        store = PostgresMutations(database)
        commit = GroupCommit(store, acknowledgements)
        self._stack.callback(commit.stop)
        commit.start()
        return MutationWriter(commit, acknowledgements, store, capabilities)

    def _acknowledgements(self, url: str) -> Acknowledgements:
        acknowledgements = Acknowledgements(
            lambda: PostgresReplicaObserver(url), boottime, LEASE_MARGIN
        )
        self._stack.callback(acknowledgements.stop)
        acknowledgements.start()
        return acknowledgements

    def _serve_metrics(self, watched: Watched) -> None:
        address = self._settings.metrics_listen
        if address is None:
            return
        collector = metrics.ReplicaCollector(sources_of(watched))
        try:
            self.metrics_port, stop = metrics.serve(collector, address)
        except OSError as exc:
            raise UnavailableError(f"cannot serve the metrics on {address}: {exc}") from exc
        self._stack.callback(stop)

    def _database_urls(self) -> tuple[str, str]:
        settings = self._settings
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
            admin = settings.migration_database_url
            return url, url if admin is None else admin.get_secret_value()
        embedded = EmbeddedPostgres(
            data_folder(settings.data_dir), settings=settings.embedded_postgres()
        )
        self._stack.callback(embedded.stop)
        embedded.start()
        return embedded.conninfo, embedded.conninfo


def server_tls(settings: Settings) -> ServerTls | None:
    """Return what the port is served with; None: in plain text.

    Raises:
        UnavailableError: a file cannot be used.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    files = TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    try:
        return ServerTls(files, settings.tls_callers_file)
    except FileRefusedError as exc:
        raise UnavailableError(str(exc)) from exc


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


def _check_schema(
    database: Database, expected: Sequence[tuple[str, str]], patience: Deadline
) -> None:
    with database.connection(patience) as connection:
        state = schema.check(connection, expected)
    if not state.is_expected:
        raise UnavailableError(
            f"the database's schema is not this release's ({state}): run `licet migrate up`"
        )


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
        mutations=settings.max_mutations,
        streams=settings.max_streams,
        streams_per_caller=settings.max_streams_per_caller,
        watchers=settings.max_watchers,
        calls=settings.max_calls,
        connections=settings.max_connections,
        connection_calls=settings.max_connection_calls,
        message_bytes=settings.max_message_bytes,
        shares_port=shares_port,
        connection_seconds=settings.connection_seconds,
        hybrid=settings.serving == "auto",
        waits_for_disk=settings.audit_durability == "group",
    )
