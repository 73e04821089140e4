"""The replica's and the observer's connections: bounded in time, and never to a standby."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from time import monotonic
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from licet.app.ports import Deadline
from licet.domain.errors import UnavailableError
from licet.storage import migrate
from licet.storage.embedded import EmbeddedPostgres
from licet.storage.pool import Database as PooledDatabase
from licet.storage.pool import PoolLimits
from licet.storage.replicas import PostgresReplicaObserver, PostgresReplicaSession
from tests.fakes.postgres import Database, eventually, reachable_folder
from tests.fakes.proxy import PostgresProxy

_OPEN_SECONDS = 30.0
READ_ONLY = "SHOW transaction_read_only"


def session(url: str, lease_seconds: float = 0.25) -> PostgresReplicaSession:
    return PostgresReplicaSession(url, "test", lease_seconds, monotonic, lambda *_: None)


def _same(left: float | None) -> float | None:
    return left


@contextmanager
def given_up_within(seconds: float) -> Iterator[None]:
    began = monotonic()
    with pytest.raises(UnavailableError):
        yield
    assert monotonic() - began < seconds


def test_a_replica_gives_a_server_up_that_does_not_answer(proxy: PostgresProxy) -> None:
    with closing(session(proxy.database.url)) as replica:
        incarnation = uuid4()
        replica.register(incarnation)
        proxy.stall()
        # TCP sees a peer that acknowledges; without a limit of our own this would never end.
        with given_up_within(15):
            replica.renew(incarnation, 0)
        proxy.resume()


def test_the_observer_gives_a_server_up_that_does_not_answer(proxy: PostgresProxy) -> None:
    with closing(PostgresReplicaObserver(proxy.database.url)) as observer:
        assert observer.entries() == []
        proxy.stall()
        with given_up_within(15):
            observer.entries()
        proxy.resume()


def test_a_statement_of_a_replica_ends_on_the_server_too(database: Database) -> None:
    with (
        closing(session(database.url)) as replica,
        database.connect() as other,
        other.transaction(),
    ):
        other.execute("LOCK TABLE licet.replicas")
        with given_up_within(15):
            replica.register(uuid4())


def test_of_several_hosts_the_one_is_taken_that_takes_changes() -> None:
    with (
        reachable_folder() as folder,
        EmbeddedPostgres(folder / "standby") as standby,
        EmbeddedPostgres(folder / "primary") as primary,
    ):
        # What libpq looks at is the same for a standby and for this.
        with psycopg.connect(standby.conninfo, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            admin.execute("SELECT pg_reload_conf()")
        hosts = [conninfo_to_dict(server.conninfo) for server in (standby, primary)]
        url = make_conninfo(
            primary.conninfo,
            host=",".join(str(host["host"]) for host in hosts),
            port=",".join(str(host.get("port", 5432)) for host in hosts),
            # Whatever the operator wrote: nothing of ours may read a standby.
            target_session_attrs="any",
        )
        assert eventually(lambda: _is_read_only(standby.conninfo))
        with psycopg.connect(url) as plain:
            assert plain.execute(READ_ONLY).fetchone() == ("on",)
        migrate.up(url)
        with closing(session(url)) as replica, closing(PostgresReplicaObserver(url)) as observer:
            replica.register(uuid4())
            assert len(observer.entries()) == 1
        with closing(PooledDatabase(url, PoolLimits())) as pool:
            pool.open(20)
            with pool.connection(Deadline(lambda: None)) as connection:
                assert connection.execute(READ_ONLY).fetchone() == ("off",)


def _is_read_only(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute(READ_ONLY).fetchone() == ("on",)


def test_each_statement_of_a_shared_connection_is_limited_by_its_own_deadline(
    database: Database,
) -> None:
    limits = PoolLimits(min_size=1, max_size=1)
    with closing(PooledDatabase(database.url, limits)) as pool:
        pool.open(_OPEN_SECONDS)
        found = []
        for left in (None, None, 1.5, 1.5, 0.75, None):
            with pool.connection(Deadline(partial(_same, left))) as connection:
                found.append(connection.execute("SHOW statement_timeout").fetchone())
    assert found == [(limit,) for limit in ("5s", "5s", "1500ms", "1500ms", "750ms", "5s")]
