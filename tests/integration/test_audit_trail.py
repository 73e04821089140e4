"""The audit log end to end: recorded, stored, sealed and signed by a running service."""

from __future__ import annotations

from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import all_stored, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import serving


def _is_sealed(database: Database) -> bool:
    ((waiting, sealed, signed, stored),) = rows(
        database,
        """SELECT (SELECT count(*) FROM audit.queue), (SELECT tree_size FROM audit.log),
                  (SELECT max(tree_size) FROM audit.checkpoints),
                  (SELECT count(*) FROM audit.events)
        """,
    )
    return bool(waiting == 0 and sealed == signed == stored)


def test_what_was_decided_and_changed_is_sealed_and_signed(database: Database) -> None:
    with serving(database) as served:
        capability = served.grant("agent:a", "read", "doc:x")
        answers = [served.authorize("agent:a", "read", "doc:x").decision_id for _ in range(3)]
        served.stub.Revoke(pb.RevokeRequest(capability_id=capability), timeout=10)
        assert all_stored(database, answers)
        assert eventually(lambda: _is_sealed(database))
    assert _is_sealed(database)
    kinds = {kind for (kind,) in rows(database, "SELECT DISTINCT event_type FROM audit.events")}
    assert kinds == {
        "audit.heartbeat",
        "audit.writer_opened",
        "audit.writer_closed",
        "decision",
        "grant",
        "revoke",
    }
