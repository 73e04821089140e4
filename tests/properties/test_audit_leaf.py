"""The canonical bytes of audit events: nothing is lost in them, and PostgreSQL keeps each one."""

from __future__ import annotations

from itertools import count
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from licet.domain.audit_event import (
    ID_LOW,
    AuditEvent,
    EventType,
    Result,
    event_id,
    event_id_text,
    leaf,
    leaf_start,
)
from licet.domain.canonical_json import JsonObject
from licet.domain.decision import Decision, Judgement, Reason, Request
from licet.domain.decision_event import decision_body, decision_event
from licet.domain.instant import EARLIEST, LATEST, Instant
from licet.domain.names import Action, Caller, Principal, Resource
from tests.fakes.postgres import Database
from tests.properties.strategies import FIRST_DAY, events
from tests.unit.builders import held

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"

_SEQUENCE = count(1)

writer_ids = st.integers(0, (1 << 48) - 1)
sequences = st.integers(0, (1 << 62) - 1)


def decode(encoded: bytes) -> tuple[int, AuditEvent]:
    """Take a leaf apart, by the description of the format alone."""
    assert encoded[:2] == b"\x00\x10"
    fields, rest = [], encoded[2:]
    while rest:
        length = int.from_bytes(rest[:4], "big")
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    version, identifier, occurred_at, *texts, revision, metadata = fields
    assert version == b"\x00\x01"
    assert metadata[:1] == b"\x01"
    since_2000 = int.from_bytes(occurred_at, "big", signed=True)
    kind, *before, result, reason, policy_id, session_id, trace_id = [t.decode() for t in texts]
    actor, principal, action, resource, capability_id = before
    return int.from_bytes(identifier, "big"), AuditEvent(
        Instant(since_2000 + 946_684_800 * 1_000_000),
        EventType(kind),
        actor,
        principal,
        action,
        resource,
        capability_id,
        Result(result),
        reason,
        policy_id,
        session_id,
        trace_id,
        int.from_bytes(revision, "big", signed=True),
        JsonObject(metadata[1:].decode()),
    )


@given(events, writer_ids, sequences)
def test_a_leaf_decodes_to_its_event(event: AuditEvent, writer_id: int, sequence: int) -> None:
    identifier = event_id(writer_id, sequence)
    assert decode(leaf(identifier, event)) == (identifier, event)


# Around the length up to which texts take the short way, and beyond ASCII, which does not.
names_of_any_length = st.one_of(
    st.integers(0, 300).map(lambda n: "a" * n), st.text(max_size=9), st.just("ü" * 64)
)
requests = st.builds(
    Request,
    names_of_any_length.map(Principal),
    names_of_any_length.map(Action),
    names_of_any_length.map(Resource),
    session_id=names_of_any_length,
    trace_id=names_of_any_length,
)
decisions = st.builds(
    lambda allowed, reason, capability, revision, judgement: Decision(
        allowed, Reason.GRANTED if allowed else reason, capability, None, revision, judgement
    ),
    st.booleans(),
    st.sampled_from([reason for reason in Reason if reason is not Reason.GRANTED]),
    st.none() | st.just(held(1)),
    st.integers(0, (1 << 63) - 1),
    st.none()
    | st.builds(
        Judgement,
        st.integers(1, (1 << 63) - 1),
        names_of_any_length,
        st.none(),
        st.just("a detail"),
        st.none(),
        st.none(),
    ),
)
instants = st.integers(EARLIEST, LATEST).map(Instant)


@given(writer_ids, sequences, names_of_any_length.map(Caller), instants, requests, decisions)
def test_the_bytes_of_a_decision_are_those_of_its_event(  # noqa: PLR0913, PLR0917 - all that it is
    writer_id: int,
    sequence: int,
    caller: Caller,
    now: Instant,
    request: Request,
    decision: Decision,
) -> None:
    expected = leaf(event_id(writer_id, sequence), decision_event(caller, now, request, decision))
    low = (ID_LOW | sequence).to_bytes(8, "big")
    body = decision_body(caller, now, request, decision)
    assert leaf_start(writer_id) + low + body == expected


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(events, min_size=1, max_size=10))
def test_postgresql_gives_back_the_bytes_that_it_was_given(
    database: Database, batch: list[AuditEvent]
) -> None:
    identifiers = [event_id(1, next(_SEQUENCE)) for _ in batch]
    leaves = [leaf(i, event) for i, event in zip(identifiers, batch, strict=True)]
    stream = b"".join((COPY_HEADER, *leaves, COPY_TRAILER))
    with database.connect() as connection:
        connection.execute(
            "SELECT audit.ensure_partition(to_timestamp(%s))", [FIRST_DAY // 1_000_000]
        )
        with connection.cursor().copy("COPY audit.events FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(stream)
        stored = connection.cursor().copy(
            "COPY (SELECT * FROM audit.events AS e WHERE e.event_id >= %s ORDER BY e.event_id) "
            "TO STDOUT (FORMAT BINARY)",
            [event_id_text(identifiers[0])],
        )
        with stored as copy:
            assert b"".join(bytes(block) for block in copy) == stream


@given(st.tuples(writer_ids, sequences), st.tuples(writer_ids, sequences))
def test_event_ids_sort_by_writer_and_sequence(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    first, second = event_id(*one), event_id(*other)
    assert (first < second) == (one < other)
    assert (event_id_text(first) < event_id_text(second)) == (one < other)
    identifier = UUID(event_id_text(first))
    assert identifier.int == first
    assert (identifier.version, identifier.variant) == (8, "specified in RFC 4122")
