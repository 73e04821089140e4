"""An event has one canonical form, whoever makes it: the encoder, COPY, or plain SQL."""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import Final, LiteralString

from licet.domain.audit_event import AuditEvent, EventType, Result, event_id, leaf
from licet.domain.canonical_json import JsonValue, canonical
from licet.domain.instant import Instant
from licet.domain.merkle import leaf_hash, leaf_hashes
from licet.storage.audit_shipping import COPY_HEADER, COPY_TRAILER
from licet.storage.tree import copied_leaves
from tests.fakes.postgres import Database
from tests.properties.strategies import DAY, FIRST_DAY

EVENTS: Final = 4000
_VIEW: Final[LiteralString] = (
    "SELECT e.leaf, e.leaf_hash FROM audit.event_leaves AS e ORDER BY e.event_id"
)
_COPY: Final[LiteralString] = (
    "COPY (SELECT * FROM audit.events AS e ORDER BY e.event_id) TO STDOUT (FORMAT BINARY)"
)
_DIGEST: Final[LiteralString] = (
    "SELECT sha256(string_agg(e.leaf_hash, ''::bytea ORDER BY e.event_id))"
    " FROM audit.event_leaves AS e"
)


def text(random: Random) -> str:
    """Return a text of any characters that the log can hold, mostly a short one."""
    kind = random.choice(["ascii", "controls", "latin", "any"])
    length = random.choice([0, 1, 5, 40, 130])
    last = {"ascii": 0x7E, "controls": 0x24, "latin": 0x24F, "any": 0x10FFFF}[kind]
    first = 0x20 if kind == "ascii" else 1
    characters = (random.randint(first, last) for _ in range(length))
    # No half of a surrogate pair is a character.
    return "".join(chr(c) for c in characters if not 0xD800 <= c <= 0xDFFF)


def value(random: Random, depth: int = 0) -> JsonValue:
    """Return any JSON."""
    scalars: list[JsonValue] = [
        *(None, True, False, 0, -1, 1 << 53, -(1 << 63), random.getrandbits(62)),
        *(0.5, -2.25, 1e300, 5e-324, 1e15, random.uniform(-1e6, 1e6), text(random), text(random)),
    ]
    if depth == 3 or random.random() < 0.7:
        return random.choice(scalars)
    inner = [value(random, depth + 1) for _ in range(random.randrange(4))]
    return inner if random.random() < 0.5 else {text(random): item for item in inner}


def an_event(random: Random) -> AuditEvent:
    """Return any event of a day."""
    return AuditEvent(
        occurred_at=Instant(FIRST_DAY + random.choice([0, DAY - 1, random.randrange(DAY)])),
        event_type=random.choice(list(EventType)),
        actor=text(random),
        principal=text(random),
        action=text(random),
        resource=text(random),
        capability_id=text(random),
        result=random.choice(list(Result)),
        reason=text(random),
        policy_id=text(random),
        session_id=text(random),
        trace_id=text(random),
        revision=random.choice([0, -(1 << 63), (1 << 63) - 1, random.getrandbits(40)]),
        metadata=canonical({text(random): value(random) for _ in range(random.randrange(4))}),
    )


def test_the_leaf_of_the_view_is_that_of_the_encoder_and_of_copy(database: Database) -> None:
    random = Random(20_261_122)
    leaves = [leaf(event_id(1, n), an_event(random)) for n in range(EVENTS)]
    with database.connect() as connection:
        connection.execute(
            "SELECT audit.ensure_partition(to_timestamp(%s))", [FIRST_DAY // 1_000_000]
        )
        with connection.cursor().copy("COPY audit.events FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(b"".join((COPY_HEADER, *leaves, COPY_TRAILER)))
        shown = connection.execute(_VIEW).fetchall()
        copied = list(copied_leaves(connection, _COPY, {}))
        digest = connection.execute(_DIGEST).fetchone()
    assert [bytes(row[0]) for row in shown] == leaves
    assert [bytes(row[1]) for row in shown] == [leaf_hash(encoded) for encoded in leaves]
    assert copied == leaves
    assert digest is not None
    assert bytes(digest[0]) == sha256(leaf_hashes(leaves)).digest()
