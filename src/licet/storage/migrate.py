"""Changes the schema, step by step, with yoyo; `schema.py` knows which steps there are.

Invariants:

- A migration, its row in `licet.migrations` and nothing else are one transaction.
- yoyo's own record (in the schema `public`) follows in another transaction. Where a crash came
  between the two, the next run corrects it: `licet.migrations` is the truth.
- One run at a time changes a database, by an advisory lock.
"""

# yoyo has no annotations, nor has what the subclasses here inherit from it.
# mypy: untyped-calls-exclude="yoyo,licet.storage.migrate"

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from typing_extensions import override
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import Migration as YoyoMigration
from yoyo.migrations import MigrationList, StepCollector, default_migration_table

from licet.storage.errors import translated
from licet.storage.pool import READ_WRITE
from licet.storage.schema import (
    Migration,
    SchemaState,
    applied_migrations,
    check,
    compare,
    expected_migrations,
    packaged_migrations,
)

__all__ = [
    "MigrationError",
    "MigrationState",
    "SchemaState",
    "check",
    "down",
    "expected_migrations",
    "status",
    "up",
]

_log = logging.getLogger(__name__)

_SCHEME = "postgresql+psycopg"
_CONNECT_SECONDS = 10
_LOCK_SECONDS = 60.0

_SET_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %(milliseconds)s, false)"
# The key is "licet" in ASCII; advisory locks are per database.
_LOCK = "SELECT pg_advisory_lock(465558070644)"
_RECORD = "INSERT INTO licet.migrations (id, sha256) VALUES (%(id)s, %(sha256)s)"
_FORGET = "DELETE FROM licet.migrations WHERE id = %(id)s"
_WHO_AND_WHEN = "SELECT current_user, now() AT TIME ZONE 'UTC'"


_WORTH_A_RETRY = (
    errors.AdminShutdown,
    errors.CannotConnectNow,
    errors.CrashShutdown,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.QueryCanceled,
)


class MigrationError(Exception):
    """The schema was left as it was before the step that failed; the message says why."""


@dataclass(frozen=True, slots=True)
class MigrationState:
    """One migration, of this release or found in the database.

    Attributes:
        id: its id.
        applied: whether the database has it.
        checksum_ok: whether what was applied is this release's file; true if nothing was.
    """

    id: str
    applied: bool
    checksum_ok: bool


def status(
    admin_url: str, *, migrations: Sequence[Migration] | None = None
) -> list[MigrationState]:
    """Return the state of each migration, in order; nothing is changed.

    Raises:
        MigrationError: `admin_url` is malformed.
        UnavailableError: the database cannot be reached.
    """
    wanted = {migration.id: migration.sha256 for migration in _or_packaged(migrations)}
    with _connected(_parameters(admin_url)) as connection:
        applied = applied_migrations(connection)
    return [
        MigrationState(key, key in applied, wanted.get(key) == applied.get(key, wanted.get(key)))
        for key in sorted(wanted.keys() | applied.keys())
    ]


def up(
    admin_url: str,
    *,
    migrations: Sequence[Migration] | None = None,
    lock_seconds: float = _LOCK_SECONDS,
) -> tuple[str, ...]:
    """Apply every migration that is missing and return their ids; safe to call at any time.

    Raises:
        MigrationError: a step failed, or the schema is not one that this release can continue;
            the steps before it are applied, it and those after it are not.
        UnavailableError: the database cannot be reached; repeat the call.
    """
    with _exclusively(admin_url, _or_packaged(migrations), lock_seconds) as (backend, steps):
        missing = backend.to_apply(steps)
        for step in missing:
            with _explained(step.id):
                backend.apply_one(step)
        return tuple(step.id for step in missing)


def down(
    admin_url: str,
    count: int = 1,
    *,
    migrations: Sequence[Migration] | None = None,
    lock_seconds: float = _LOCK_SECONDS,
) -> tuple[str, ...]:
    """Take back the last `count` migrations and return their ids; their data is lost.

    Raises:
        MigrationError: a step failed, or the schema is not this release's; the steps before it
            are taken back, it and those after it are not.
        UnavailableError: the database cannot be reached; repeat the call.
    """
    with _exclusively(admin_url, _or_packaged(migrations), lock_seconds) as (backend, steps):
        last = list(backend.to_rollback(steps))[:count]
        for step in last:
            with _explained(step.id):
                backend.rollback_one(step)
        return tuple(step.id for step in last)


def _or_packaged(migrations: Sequence[Migration] | None) -> Sequence[Migration]:
    return packaged_migrations() if migrations is None else migrations


@contextmanager
def _exclusively(
    admin_url: str, migrations: Sequence[Migration], lock_seconds: float
) -> Iterator[tuple[_Backend, MigrationList]]:
    """Provide yoyo's view of the database, corrected, while no other run can change it."""
    parameters = _parameters(admin_url)
    # yoyo would split an address at its punctuation; parameters need no quoting. The schema is
    # set because the default one is that of the user's name, and that may come to be "licet".
    address = DatabaseURI(_SCHEME, None, None, None, None, None, parameters | {"schema": "public"})
    with _connected(parameters) as connection:
        _lock(connection, lock_seconds)
        applied = applied_migrations(connection)
        _refuse_strange(migrations, applied)
        with (
            _explained("yoyo's record of the migrations"),
            _Backend(address, default_migration_table) as backend,
        ):
            steps = MigrationList(_Step.chain(migrations))
            _correct(backend, steps, applied)
            yield backend, steps


def _parameters(admin_url: str) -> dict[str, Any]:
    """Return libpq's parameters for an address, which may be a URL or keywords."""
    try:
        parameters = conninfo_to_dict(admin_url)
    except psycopg.ProgrammingError:
        # Not chained: the driver's text quotes the address, and so the password.
        parameters = {"port": "malformed"}
    hosts = str(parameters.get("host", ""))
    ports = str(parameters.get("port", "")).replace(",", "")
    # An unquoted "@" or "/" in a password moves its end into the host or the port, which the
    # driver would quote in its errors.
    if "@" in hosts[1:] or not (ports == "" or ports.isdigit()):
        raise MigrationError(
            "The database's address is malformed. In a URL, special characters of the password "
            "are percent-encoded: %40 for @, %2F for /."
        )
    ours = {"connect_timeout": _CONNECT_SECONDS, "application_name": "licet-migrate"}
    return ours | parameters | {"client_encoding": "UTF8", "target_session_attrs": READ_WRITE}


@contextmanager
def _connected(parameters: dict[str, Any]) -> Iterator[psycopg.Connection]:
    with translated(deadline_bound=False):
        try:
            connection = psycopg.connect(autocommit=True, **parameters)
        except psycopg.OperationalError as exc:
            _log.warning("cannot connect to PostgreSQL: %s", exc)
            raise
    with connection:
        yield connection


def _lock(connection: psycopg.Connection, lock_seconds: float) -> None:
    """Take the advisory lock; it goes with the connection."""
    milliseconds = str(max(1, int(lock_seconds * 1000)))
    with translated(deadline_bound=False):
        connection.execute(_SET_LOCK_TIMEOUT, {"milliseconds": milliseconds})
        try:
            connection.execute(_LOCK)
        except errors.LockNotAvailable as exc:
            raise MigrationError(
                "Another run is migrating this database and has not ended in "
                f"{lock_seconds:g} s; nothing was changed. Try again when it has."
            ) from exc


def _refuse_strange(migrations: Sequence[Migration], applied: dict[str, str]) -> None:
    state = compare([(migration.id, migration.sha256) for migration in migrations], applied)
    if state.changed:
        raise MigrationError(
            f"{', '.join(state.changed)}: the file is not the one that was applied. An applied "
            "migration is never edited: restore the file, and put the change into a new one."
        )
    if state.unknown:
        raise MigrationError(
            f"{', '.join(state.unknown)}: applied by another release, and unknown to this one. "
            "Use the release that applied it."
        )


def _correct(backend: _Backend, steps: MigrationList, applied: dict[str, str]) -> None:
    """Make yoyo's record say what `licet.migrations` says, where a crash came between the two."""
    marked = set(backend.get_applied_migration_hashes())
    for step in steps:
        if step.id in applied and step.hash not in marked:
            backend.mark_one(step)
        elif step.id not in applied and step.hash in marked:
            backend.unmark_one(step)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what went wrong in `what` into a sentence for an operator, or into what can be retried.

    `translated` is not for the rest: it takes a missing table for a schema that was not migrated.
    """
    try:
        yield
    except _WORTH_A_RETRY:
        with translated(deadline_bound=False):
            raise
    except psycopg.Error as exc:
        if exc.sqlstate is None:  # the connection is gone
            with translated(deadline_bound=False):
                raise
        raise MigrationError(
            f"{what} failed and changed nothing: {exc.diag.message_primary} ({exc.sqlstate})"
        ) from exc


class _Backend(PostgresqlPsycopgBackend):
    """yoyo's PostgreSQL, without what it does not need here."""

    # The advisory lock is held: no table of locks, no waiting by polling.
    _is_locked = True

    @override
    def get_log_data(
        self, migration: YoyoMigration | None = None, operation: str = "apply"
    ) -> dict[str, Any]:
        """Describe an operation for yoyo's log.

        yoyo asks the system for a login name, which a container need not have, and the network
        for the host's full name, which can take long.
        """
        user, when = self.execute(_WHO_AND_WHEN).fetchone()
        return {
            "id": str(uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": user,
            "hostname": socket.gethostname(),
            "created_at_utc": when,
            "operation": operation,
        }


class _Step(YoyoMigration):
    """A migration whose file is sent as it is.

    yoyo guesses where the statements of a file end; PostgreSQL, given the whole, knows.
    """

    @classmethod
    def chain(cls, migrations: Sequence[Migration]) -> list[_Step]:
        """Return the steps, each depending on the one before."""
        steps: list[_Step] = []
        for migration in migrations:
            steps.append(cls(migration, {steps[-1]} if steps else set()))
        return steps

    def __init__(self, migration: Migration, depends: set[_Step]) -> None:
        path = f"{migration.id}.sql"
        # mypy's setting above does not reach `super()`.
        super().__init__(migration.id, path, "")  # type: ignore[no-untyped-call]
        self._migration = migration
        self._depends = depends

    @override
    def load(self) -> None:
        collector = StepCollector(migration=self)
        collector.add_step(self._apply, self._take_back)
        self.steps = collector.create_steps(use_transactions=True)

    def _apply(self, connection: psycopg.Connection) -> None:
        connection.execute(self._migration.forward)
        connection.execute(_RECORD, {"id": self.id, "sha256": self._migration.sha256})

    def _take_back(self, connection: psycopg.Connection) -> None:
        connection.execute(_FORGET, {"id": self.id})
        connection.execute(self._migration.rollback)
