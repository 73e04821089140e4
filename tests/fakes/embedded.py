"""What tests ask of an embedded PostgreSQL, of its data folder and of its processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from licet.storage.embedded import EmbeddedPostgres
from licet.storage.embedded.folder import FolderLock
from tests.fakes.postgres import reachable_folder


@contextmanager
def used_data_dir() -> Iterator[Path]:
    """Provide a data folder as an earlier run left it."""
    with reachable_folder() as reachable:
        with EmbeddedPostgres(reachable / "data"):
            pass
        yield reachable / "data"


@contextmanager
def moved(data_dir: Path, place: Path) -> Iterator[Path]:
    data_dir.rename(place)
    try:
        yield place
    finally:
        place.rename(data_dir)


def ask(server: EmbeddedPostgres, question: str) -> object:
    with psycopg.connect(server.conninfo) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "cluster" / "postmaster.pid").read_text("utf-8").splitlines()[0])


def is_free(data_dir: Path) -> bool:
    """Tell whether the last process of the server is gone."""
    lock = FolderLock(data_dir / "postgres.lock")
    try:
        return lock.try_acquire()
    finally:
        lock.close()
