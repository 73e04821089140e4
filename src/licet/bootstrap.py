"""The composition root: the only place that names every concrete class.

Top to bottom, in the order of starting.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from time import monotonic
from typing import Final, Self

from licet.app.authorize import Authorize
from licet.app.grant import GrantCapability
from licet.app.ports import Deadline
from licet.app.read import QueryAudit, ReadCapabilities
from licet.app.revoke import RevokeCapabilities
from licet.config import Settings
from licet.domain.errors import LicetError, UnavailableError
from licet.replica.capability_sets import CachedCapabilitySets
from licet.replica.clock import SystemClock
from licet.server.lifecycle import AddServices, Server, ServerLimits
from licet.server.service import UseCases
from licet.spool.background import BackgroundAuditLog
from licet.storage import migrate, schema
from licet.storage.audit import PostgresAuditEvents
from licet.storage.capabilities import PostgresCapabilities
from licet.storage.embedded import EmbeddedPostgres, data_folder
from licet.storage.mutations import PostgresMutations
from licet.storage.pool import Database, PoolLimits
from licet.storage.tokens import SignedPageTokens
from licet.writer.ids import TimeOrderedIds, audit_writer_id
from licet.writer.mutations import MutationWriter

_log: Final = logging.getLogger(__name__)

_START_SECONDS: Final = 30.0
_FLUSH_SECONDS: Final = 10.0
_PROBE_SECONDS: Final = 2.0


class Licet:
    """A running licet.

    Everything that was started is stopped in the reverse order, whatever fails.
    """

    def __init__(self, settings: Settings, add_services: AddServices | None = None) -> None:
        """Take the settings, and services to serve beside ours; `start` does the work."""
        self._settings = settings
        self._add_services = add_services
        self._stack = ExitStack()
        self.server: Server

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
        settings, stack = self._settings, self._stack
        patience = _deadline(_START_SECONDS)
        clock = SystemClock()
        # (1) The database and its schema.
        database_url, migration_url = self._database_urls()
        if settings.migrate_on_start:
            _migrate(migration_url)
        database = Database(database_url, _pool_limits(settings))
        stack.callback(database.close)
        database.open(_START_SECONDS)
        expected = schema.expected_migrations()
        with database.connection(patience) as connection:
            state = schema.check(connection, expected)
        if not state.is_expected:
            message = (
                f"the database's schema is not this release's ({state}): run `licet migrate up`"
            )
            raise UnavailableError(message)
        # (2) Decisions go on record.
        events = PostgresAuditEvents(database)
        writer_id = audit_writer_id(clock)
        events.register(writer_id, clock.now(), patience)
        log = BackgroundAuditLog(events, writer_id, settings.audit_max_pending)
        stack.callback(log.close, _FLUSH_SECONDS)
        log.start()
        # (3) Reads, and changes that evict what was read.
        capabilities = PostgresCapabilities(database, clock)
        sets = CachedCapabilitySets(
            capabilities.held, settings.cache_bytes, settings.cache_negative
        )
        mutations = MutationWriter(PostgresMutations(database), capabilities, sets)
        stack.callback(mutations.close)
        # (4) The service.
        ids = TimeOrderedIds(clock)
        tokens = SignedPageTokens.from_database(database, patience)
        use_cases = UseCases(
            authorize=Authorize(sets, log, clock),
            grant=GrantCapability(capabilities, mutations, clock, ids),
            revoke=RevokeCapabilities(capabilities, mutations, ids),
            capabilities=ReadCapabilities(capabilities, tokens, clock),
            audit=QueryAudit(events, tokens),
        )

        def is_ready() -> bool:
            try:
                with database.connection(_deadline(_PROBE_SECONDS)) as probe:
                    return schema.check(probe, expected).is_expected
            except LicetError:
                return False

        self.server = Server(
            use_cases, settings.listen, _server_limits(settings), is_ready, self._add_services
        )
        stack.callback(self.server.drain, settings.drain_seconds)
        self.server.start()

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


def _migrate(url: str) -> None:
    if any(not state.applied or not state.checksum_ok for state in migrate.status(url)):
        _log.info("migrations applied: %s", ", ".join(migrate.up(url)))


def _pool_limits(settings: Settings) -> PoolLimits:
    return PoolLimits(
        min_size=settings.pool_min,
        max_size=settings.pool_max,
        acquire_seconds=settings.pool_acquire_seconds,
        statement_seconds=settings.statement_seconds,
    )


def _server_limits(settings: Settings) -> ServerLimits:
    return ServerLimits(
        threads=settings.threads,
        streams=settings.max_streams,
        message_bytes=settings.max_message_bytes,
    )


def _deadline(seconds: float) -> Deadline:
    end = monotonic() + seconds
    return Deadline(lambda: end - monotonic())
