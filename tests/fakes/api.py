"""Short ways to say what tests of the API say often."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, LiteralString

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Failure, failure

ASKED_FOR = ("decision", "delegate", "grant", "revoke")
"""The types of events that callers cause; the others the audit log writes about itself."""


def event_count(database: Database) -> int:
    """Return how many events that callers caused are stored."""
    return count(database, "SELECT count(*) FROM audit.events WHERE event_type !~ '^audit'")


def refused(call: Callable[[], object]) -> Failure:
    """Return what a call failed with; that it fails is asserted."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return failure(raised.value)


def struct(**fields: Any) -> Struct:  # noqa: ANN401 - any JSON
    """Return a Struct of these fields."""
    message = Struct()
    message.update(fields)
    return message


def timestamp(micros: int) -> Timestamp:
    """Return the Timestamp of microseconds since the Unix epoch."""
    seconds, rest = divmod(micros, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def micros(moment: Timestamp) -> int:
    """Return the microseconds since the Unix epoch of a Timestamp."""
    return moment.seconds * 1_000_000 + moment.nanos // 1000


def rows(database: Database, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
    """Return what a query of the administrator finds."""
    with database.connect() as connection:
        return connection.execute(query, parameters).fetchall()


def count(database: Database, query: LiteralString, *parameters: object) -> int:
    """Return the one number that a query finds."""
    return int(rows(database, query, *parameters)[0][0])


def capability_count(database: Database) -> int:
    """Return how many capabilities are stored, the ended ones included."""
    return count(database, "SELECT count(*) FROM licet.capabilities")


def capability_ids(database: Database) -> set[str]:
    """Return the ids of all stored capabilities, the ended ones included."""
    return {found for (found,) in rows(database, "SELECT id::text FROM licet.capabilities")}


def stored_decisions(database: Database) -> list[str]:
    """Return the ids of all stored decisions, once for each row."""
    found = rows(database, "SELECT event_id::text FROM audit.events WHERE event_type = 'decision'")
    return [event_id for (event_id,) in found]


def all_stored(database: Database, decision_ids: Collection[str]) -> bool:
    """Wait until decisions are in the audit log; say whether they came in time."""
    wanted = set(decision_ids)
    return eventually(lambda: wanted <= set(stored_decisions(database)))
