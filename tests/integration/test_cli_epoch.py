"""`licet epoch`: for the operator, after a restore or a failover."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import refused
from tests.fakes.postgres import Database
from tests.fakes.serving import Served
from tests.fakes.terminal import Finished, run

GRANT = pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:x")


def epoch(database: Database, *arguments: str) -> Finished:
    return run("epoch", *arguments, variables={"LICET_DATABASE_URL": database.url})


def shown(database: Database) -> dict[str, Any]:
    done = epoch(database, "show", "--json")
    assert done.status == 0
    return done.object


def test_changes_stop_with_a_new_epoch_and_go_on_when_it_is_confirmed(
    served: Served, database: Database
) -> None:
    served.stub.Grant(GRANT, timeout=10)
    first = shown(database)
    assert (first["confirmed"], first["revision"]) == (True, 1)

    begun = epoch(database, "new")
    assert (begun.status, begun.err) == (0, "")
    second = shown(database)
    assert (
        begun.out == f"epoch {second['epoch']} began; changes are refused until it is confirmed\n"
    )
    assert second["epoch"] != first["epoch"]
    assert second["confirmed"] is False
    assert refused(lambda: served.stub.Grant(GRANT, timeout=10)).reason == "HISTORY_UNCONFIRMED"

    stale = epoch(database, "confirm", first["epoch"])
    assert (stale.status, stale.out) == (2, "")
    assert f"licet: {first['epoch']} is not the epoch" in stale.err
    assert refused(lambda: served.stub.Grant(GRANT, timeout=10)).reason == "HISTORY_UNCONFIRMED"

    done = epoch(database, "confirm", second["epoch"])
    assert done.out == f"epoch {second['epoch']} is confirmed; changes are made again\n"
    served.stub.Grant(GRANT, timeout=10)
    assert shown(database) == second | {"confirmed": True, "revision": 2}


def test_a_database_that_is_another_one_is_named_anew_before_it_is_confirmed(
    served: Served, database: Database
) -> None:
    served.stub.Grant(GRANT, timeout=10)
    with database.connect() as connection:
        connection.execute("UPDATE licet.confirmed SET database = 'another'")
    assert shown(database)["confirmed"] is False
    assert "is another one than before" in epoch(database, "show").out
    early = epoch(database, "confirm")
    assert early.status == 2
    assert "first `licet epoch new`" in early.err
    assert epoch(database, "new", "--json").object.keys() == {"epoch"}
    assert epoch(database, "confirm", "--json").object["confirmed"] is True
    served.stub.Grant(GRANT, timeout=10)


@pytest.mark.parametrize("command", ["show", "new", "confirm"])
def test_without_a_database_it_says_so_in_one_line(command: str) -> None:
    url = "postgresql://127.0.0.1:1/licet?connect_timeout=2"
    done = run("epoch", command, variables={"LICET_DATABASE_URL": url})
    assert (done.status, done.out) == (2, "")
    assert done.err == "licet: the database cannot be reached\n"


def test_the_client_is_told_not_to_try_again(served: Served, database: Database) -> None:
    assert epoch(database, "new").status == 0
    failure = refused(lambda: served.stub.Grant(GRANT, timeout=10))
    assert (failure.code, failure.retry) == (grpc.StatusCode.FAILED_PRECONDITION, False)
    assert "licet epoch" in failure.message
