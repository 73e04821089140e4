"""The schema that this release expects, and whether a database has it; `migrate.py` changes it.

The table `licet.migrations`, made by the first migration, is the truth about what is applied: each
migration writes its row in its own transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import psycopg
from typing_extensions import override

from licet.storage.errors import translated

_ROLLBACK = ".rollback.sql"
_FORWARD = ".sql"

_HAS_TABLE = "SELECT to_regclass('licet.migrations') IS NOT NULL"
_APPLIED = "SELECT id, sha256 FROM licet.migrations ORDER BY id"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema, forward and back.

    Attributes:
        id: the file's name without its ending; the ids' order is the order of the steps.
        sha256: of the forward file's bytes, in hexadecimal.
        forward: the SQL that takes the step.
        rollback: the SQL that takes it back.
    """

    id: str
    sha256: str
    forward: bytes
    rollback: bytes


@dataclass(frozen=True, slots=True)
class SchemaState:
    """How a database's schema differs from the expected one: ids of migrations.

    Attributes:
        missing: expected, and not applied.
        unknown: applied, and not of this release: probably a newer one's.
        changed: applied from a file with other contents than this release's.
    """

    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def is_expected(self) -> bool:
        """Whether the schema is exactly this release's."""
        return not (self.missing or self.unknown or self.changed)

    @override
    def __str__(self) -> str:
        parts = (
            ("not applied", self.missing),
            ("applied, but unknown to this release", self.unknown),
            ("changed since they were applied", self.changed),
        )
        found = [f"{what}: {', '.join(ids)}" for what, ids in parts if ids]
        return "; ".join(found) or "the schema is the expected one"


def packaged_migrations() -> tuple[Migration, ...]:
    """Return the migrations of this release, in order."""
    packaged = resources.files("licet").joinpath("_migrations")
    if packaged.is_dir():
        return read_migrations(packaged)
    # An editable installation: the package is src/licet of the repository.
    return read_migrations(Path(__file__).resolve().parents[3] / "migrations")


def read_migrations(folder: Traversable) -> tuple[Migration, ...]:
    """Return the migrations in `folder`, in order.

    Raises:
        FileNotFoundError: there is no such folder, or a migration has no rollback.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(_FORWARD))
    return tuple(
        _read(folder, name.removesuffix(_FORWARD)) for name in names if not name.endswith(_ROLLBACK)
    )


def _read(folder: Traversable, migration_id: str) -> Migration:
    forward = folder.joinpath(f"{migration_id}{_FORWARD}").read_bytes()
    rollback = folder.joinpath(f"{migration_id}{_ROLLBACK}").read_bytes()
    return Migration(migration_id, hashlib.sha256(forward).hexdigest(), forward, rollback)


def expected_migrations() -> tuple[tuple[str, str], ...]:
    """Return the id and the SHA-256 of each migration of this release, in order."""
    return tuple((migration.id, migration.sha256) for migration in packaged_migrations())


def check(
    connection: psycopg.Connection, expected: Sequence[tuple[str, str]] | None = None
) -> SchemaState:
    """Compare the database's schema with the one that this release expects.

    It needs no more than SELECT on `licet.migrations`; a database without it misses everything.

    Args:
        connection: to the database.
        expected: a result of `expected_migrations`, for who checks often; read anew if omitted.

    Raises:
        UnavailableError: the database did not answer.
    """
    if expected is None:
        expected = expected_migrations()
    return compare(expected, applied_migrations(connection))


def compare(expected: Iterable[tuple[str, str]], applied: dict[str, str]) -> SchemaState:
    """Return how `applied`, ids with their SHA-256, differs from `expected`."""
    wanted = dict(expected)
    return SchemaState(
        missing=tuple(key for key in wanted if key not in applied),
        unknown=tuple(key for key in applied if key not in wanted),
        changed=tuple(key for key, sha256 in applied.items() if wanted.get(key, sha256) != sha256),
    )


def applied_migrations(connection: psycopg.Connection) -> dict[str, str]:
    """Return the id and the SHA-256 of each applied migration, in order.

    Raises:
        UnavailableError: the database did not answer.
    """
    with translated(deadline_bound=False):
        try:
            # A transaction of its own, or a savepoint: the caller's is not spoilt by an error.
            with connection.transaction(), connection.cursor() as cursor:
                # Asked first, because PostgreSQL logs every statement that fails.
                if cursor.execute(_HAS_TABLE).fetchone() == (False,):
                    return {}
                return dict(cursor.execute(_APPLIED).fetchall())
        except psycopg.errors.UndefinedTable:
            return {}  # rolled back between the two statements
