"""Changes the schema of the configured database, or of the embedded one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from licet import config
from licet.cli.errors import CommandError
from licet.domain.errors import LicetError
from licet.storage import migrate
from licet.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError, data_folder


def up(data_dir: Path | None) -> Sequence[str]:
    """Apply what is missing and return the ids. Raises CommandError."""
    with administrator_url(data_dir) as url:
        return migrate.up(url)


def down(data_dir: Path | None, count: int) -> Sequence[str]:
    """Take back the last migrations and return their ids. Raises CommandError."""
    with administrator_url(data_dir) as url:
        return migrate.down(url, count)


def status(data_dir: Path | None) -> Sequence[migrate.MigrationState]:
    """Return the state of each migration. Raises CommandError."""
    with administrator_url(data_dir) as url:
        return migrate.status(url)


@contextmanager
def administrator_url(data_dir: Path | None, *, embedded: bool = True) -> Iterator[str]:
    """Provide the address of the database; the embedded one runs as long as it is needed.

    Raises:
        CommandError: what is done with it failed, or it would be an embedded one, and that is not
            wanted.
    """
    try:
        # Nothing is served, so a public address, which `serve` may have to refuse, does not matter.
        settings = config.load(data_dir=data_dir, listen="127.0.0.1:0")
        url = settings.migration_database_url or settings.database_url
        if url is not None:
            yield url.get_secret_value()
            return
        if not embedded:
            raise CommandError(
                "this needs LICET_DATABASE_URL; the embedded PostgreSQL is for its licet alone"
            )
        with EmbeddedPostgres(data_folder(settings.data_dir)) as running:
            yield running.conninfo
    except (
        config.ConfigurationError,
        LicetError,
        EmbeddedPostgresError,
        migrate.MigrationError,
    ) as exc:
        raise CommandError(str(exc)) from exc
