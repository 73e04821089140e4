"""What the audit log records, and its canonical bytes.

Frozen format, version 1 (audit.md section 4). The leaf of an event is a PostgreSQL binary COPY
tuple: a big-endian int16 count of fields, then each field as a big-endian int32 length and its
bytes, in this order:

    v int16 | event_id 16 bytes | occurred_at int64, microseconds since 2000-01-01T00:00:00Z |
    event_type | actor | principal | action | resource | capability_id | result | reason | policy_id
    | session_id | trace_id | revision int64 | metadata: 0x01, then canonical JSON

Texts are UTF-8, empty where they do not apply. Fields are never reordered, removed or added:
another layout is another version.
"""

from __future__ import annotations

from enum import StrEnum
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Final, NamedTuple

from licet.domain.canonical_json import EMPTY, JsonObject
from licet.domain.errors import UnstorableError
from licet.domain.instant import Instant
from licet.domain.names import EventId

VERSION: Final = 1
COLUMNS: Final = (
    "v",
    "event_id",
    "occurred_at",
    "event_type",
    "actor",
    "principal",
    "action",
    "resource",
    "capability_id",
    "result",
    "reason",
    "policy_id",
    "session_id",
    "trace_id",
    "revision",
    "metadata",
)
"""The fields in leaf order, which are the columns of the table `audit.events`."""

POSTGRES_EPOCH: Final = 946_684_800_000_000
"""2000-01-01T00:00:00Z in microseconds since 1970."""
_START: Final = Struct(">hihi")  # count, v with its length, length of event_id
_TIME: Final = Struct(">iq")  # occurred_at with its length
_INSTANT: Final = Struct(">q")
_INSTANT_OFFSET: Final = 32  # behind count, v, event_id, and the lengths of these and its own
_TAIL: Final = Struct(">iqiB")  # revision with its length, length of metadata, its version
_MAX_SEQUENCE: Final = 1 << 62
MAX_LEAF_BYTES: Final = 0xFFFF
"""No leaf is longer: tiles and archives keep its length in 16 bits."""
ID_LOW: Final = 0b10 << 62
"""The low half of an event's id, without its sequence."""


class EventType(StrEnum):
    """What kind of event it is; the values are stored and sent."""

    DECISION = "decision"
    GRANT = "grant"
    DELEGATE = "delegate"
    REVOKE = "revoke"
    KEY_CREATED = "key.created"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    POLICY_PUT = "policy.put"
    POLICY_ROLLED_BACK = "policy.rolled_back"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_APPROVED = "approval.approved"
    APPROVAL_REJECTED = "approval.rejected"
    APPROVAL_USED = "approval.used"
    USER_CREATED = "user.created"
    USER_UPDATED = "user.updated"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    PRINCIPAL_SUSPENDED = "principal.suspended"
    PRINCIPAL_RESUMED = "principal.resumed"
    BOOTSTRAP_CREATED = "bootstrap.created"
    BOOTSTRAP_REVOKED = "bootstrap.revoked"
    AGENT_REGISTERED = "agent.registered"
    AGENT_ROTATED = "agent.rotated"
    AGENT_DEACTIVATED = "agent.deactivated"
    AGENT_ACTIVATED = "agent.activated"
    AGENT_OFFLINE = "agent.offline"
    AGENT_ONLINE = "agent.online"
    AUTH_FAILED = "auth.failed"
    IMPORTED = "import.event"
    HEARTBEAT = "audit.heartbeat"
    WRITER_OPENED = "audit.writer_opened"
    WRITER_CLOSED = "audit.writer_closed"
    WRITER_RECOVERED = "audit.writer_recovered"
    INCIDENT = "audit.incident"
    EPOCH = "audit.epoch"
    PARTITION_ARCHIVED = "audit.partition_archived"
    QUARANTINED = "audit.quarantined"
    REFUSED = "audit.refused"
    CLOCK_STEP = "audit.clock_step"


class Result(StrEnum):
    """How it came out; the values are stored and sent."""

    ALLOW = "allow"
    DENY = "deny"
    DONE = "done"
    REFUSED = "refused"


class AuditEvent(NamedTuple):
    """The record of one decision or one change; the log gives it its id."""

    occurred_at: Instant
    event_type: EventType
    actor: str
    principal: str
    action: str
    resource: str
    capability_id: str
    result: Result
    reason: str
    policy_id: str
    session_id: str
    trace_id: str
    revision: int
    metadata: JsonObject = EMPTY


class RecordedEvent(NamedTuple):
    """An event that has its place in the log."""

    event_id: EventId
    event: AuditEvent


def event_id(writer_id: int, sequence: int) -> int:
    """Return the 128 bits of an event's id: a UUID of version 8 (RFC 9562).

    48 bits of writer id, the version, 12 zero bits, the variant, 62 bits of the writer's sequence:
    unique without randomness, in order within a writer, and a missing number shows.
    """
    if not 0 <= sequence < _MAX_SEQUENCE:
        message = f"sequence {sequence} is not within 62 bits"
        raise ValueError(message)
    return (writer_id << 80) | (0x8 << 76) | (0b10 << 62) | sequence


def event_id_text(bits: int) -> EventId:
    """Return an id in the 8-4-4-4-12 form."""
    text = f"{bits:032x}"
    return EventId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def leaf(event_id_bits: int, event: AuditEvent) -> bytes:
    """Return the canonical bytes of an event."""
    return _start(event_id_bits) + leaf_body(event)


def leaf_start(writer_id: int) -> bytes:
    """Return the first 20 bytes of every leaf of a writer.

    Eight bytes follow, big-endian, `ID_LOW | sequence`, and then the body: so that all the rest is
    encoded before the sequence is drawn.
    """
    return _start(event_id(writer_id, 0))[:-8]


def leaf_body(event: AuditEvent) -> bytes:
    """Return what follows the id in an event's leaf."""
    metadata = event.metadata.encode()
    return b"".join(
        (
            _TIME.pack(8, event.occurred_at - POSTGRES_EPOCH),
            _encoded(event[1:12]),
            _TAIL.pack(8, event.revision, len(metadata) + 1, 1),
            metadata,
        )
    )


def occurred_at(leaf: bytes) -> Instant:
    """Return when the event of a leaf occurred.

    Raises:
        UnstorableError: it is no leaf.
    """
    try:
        (since_2000,) = _INSTANT.unpack_from(leaf, _INSTANT_OFFSET)
    except StructError:
        raise UnstorableError("it is no leaf") from None
    return Instant(since_2000 + POSTGRES_EPOCH)


def is_leaf(record: bytes) -> bool:
    """Say whether bytes are divided into the fields of a leaf; not whether each may be as it is."""
    if record[:2] != len(COLUMNS).to_bytes(2, "big"):
        return False
    at, lengths = 2, []
    while at < len(record):
        lengths.append(int.from_bytes(record[at : at + 4], "big", signed=True))
        at += 4 + max(lengths[-1], 0)
    if at != len(record) or len(lengths) != len(COLUMNS) or min(lengths) < 0:
        return False
    return [*lengths[:3], lengths[-2]] == [2, 16, 8, 8] and lengths[-1] > 0


def _start(event_id_bits: int) -> bytes:
    return _START.pack(len(COLUMNS), 2, VERSION, 16) + event_id_bits.to_bytes(16, "big")


def _encoded(texts: tuple[str, ...]) -> bytes:
    parts = []
    for text in texts:
        encoded = text.encode()
        parts.append(len(encoded).to_bytes(4, "big"))
        parts.append(encoded)
    return b"".join(parts)
