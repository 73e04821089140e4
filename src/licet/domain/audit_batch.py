"""Batches: what one transaction stored of one writer, as it is queued for sealing.

Between the transaction that stores events and the one that seals them, whoever may write to the
database could change them unseen. So a batch carries a message authentication code by a key that is
not in the database; it is checked when the batch is sealed.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple
from uuid import UUID

from licet.domain.audit_event import event_id, occurred_at
from licet.domain.instant import Instant

MAC_KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
CHANGES_WRITER: Final = 0
"""The writer of the events that are stored in the transaction of a change."""

_MAC_CONTEXT: Final = b"licet audit batch v1\n"
_COUNT: Final = Struct(">Q")


class Batch(NamedTuple):
    """Events of one writer, all stored by one transaction.

    Attributes:
        writer_id: the writer.
        first_id: the lowest of their ids; those of the batch are all from here to `last_id`.
        last_id: the highest.
        min_at: the earliest instant of theirs.
        max_at: the latest.
        events: how many there are.
        digest: SHA-256 of their leaves, concatenated in the order of the ids.
        mac: the id of a key and the code by it; None of the events of changes.
    """

    writer_id: int
    first_id: UUID
    last_id: UUID
    min_at: Instant
    max_at: Instant
    events: int
    digest: bytes
    mac: bytes | None = None

    def is_intact(self, leaves: Sequence[bytes], keys: MacKeys) -> bool:
        """Say whether these are the events that the writer stored.

        Args:
            leaves: of the events as they are read back, in the order of their ids.
            keys: those that writers use.
        """
        if len(leaves) != self.events or digest(leaves) != self.digest:
            return False
        return self.writer_id == CHANGES_WRITER if self.mac is None else keys.verify(self)


def digest(leaves: Iterable[bytes]) -> bytes:
    """Return SHA-256 of leaves, concatenated: a leaf tells its own length."""
    return sha256(b"".join(leaves)).digest()


def batch_of(writer_id: int, first: int, leaves: Sequence[bytes]) -> Batch:
    """Describe consecutive events of a writer, from sequence `first` on."""
    instants = [occurred_at(leaf) for leaf in leaves]
    return Batch(
        writer_id,
        UUID(int=event_id(writer_id, first)),
        UUID(int=event_id(writer_id, first + len(leaves) - 1)),
        min(instants),
        max(instants),
        len(leaves),
        digest(leaves),
    )


class MacKeys:
    """The keys that authenticate batches: one to write with, and others to read with."""

    def __init__(self, key: bytes, retired: Iterable[bytes] = ()) -> None:
        """Take the key in use and those that were, each of 32 bytes."""
        self._keys: Mapping[bytes, bytes] = {_key_id(old): old for old in (*retired, key)}
        self._key = key

    def authenticated(self, batch: Batch) -> Batch:
        """Return the batch with its code."""
        return batch._replace(mac=_key_id(self._key) + _code(self._key, batch))

    def verify(self, batch: Batch) -> bool:
        """Say whether the batch has the code of one of the keys. Takes the same time either way."""
        mac = batch.mac or b""
        key = self._keys.get(mac[:KEY_ID_BYTES])
        return key is not None and hmac.compare_digest(mac[KEY_ID_BYTES:], _code(key, batch))


def _key_id(key: bytes) -> bytes:
    if len(key) != MAC_KEY_BYTES:
        message = f"a key of batches has {MAC_KEY_BYTES} bytes, not {len(key)}"
        raise ValueError(message)
    return sha256(b"licet audit key\n" + key).digest()[:KEY_ID_BYTES]


def _code(key: bytes, batch: Batch) -> bytes:
    ids = batch.first_id.bytes + batch.last_id.bytes
    return hmac.digest(key, _MAC_CONTEXT + ids + _COUNT.pack(batch.events) + batch.digest, "sha256")
