"""Between AuditService's messages and the core's values: requests checked, answers rendered."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import quote
from uuid import UUID

from licet.app.prove import Consistency, Export, Inclusion, StoredCheckpoint
from licet.domain.errors import InvalidRequestError
from licet.server.render import timestamp
from licet.v1 import audit_service_pb2 as pb

CHECKPOINT_METADATA: Final = "licet-checkpoint"
_MAX_EPOCH: Final = (1 << 15) - 1
_PRINTABLE: Final = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"


def event_id(message: pb.ProveInclusionRequest) -> UUID:
    """Check a ProveInclusionRequest. Raises InvalidRequestError."""
    text = message.event_id
    try:
        identifier = UUID(text)
    except ValueError:
        identifier = None
    if identifier is None or str(identifier) != text.lower():
        raise InvalidRequestError.of("event_id", "must be a UUID")
    return identifier


def epoch(number: int) -> int:
    """Check an epoch; 0 is the current one. Raises InvalidRequestError."""
    if not 0 <= number <= _MAX_EPOCH:
        raise InvalidRequestError.of("epoch", f"must be 0 to {_MAX_EPOCH}")
    return number


def size(number: int, field: str) -> int:
    """Check a number of leaves. Raises InvalidRequestError."""
    if number < 0:
        raise InvalidRequestError.of(field, "must not be negative")
    return number


def checkpoint(found: StoredCheckpoint, public_key: str) -> pb.GetCheckpointResponse:
    """Render a checkpoint and the public key."""
    return pb.GetCheckpointResponse(checkpoint=_checkpoint(found), public_key=public_key)


def inclusion(proof: Inclusion) -> pb.ProveInclusionResponse:
    """Render the proof that an event is in the log."""
    return pb.ProveInclusionResponse(
        leaf=proof.leaf or b"",
        leaf_index=proof.leaf_index,
        checkpoint=_checkpoint(proof.checkpoint),
        hashes=proof.hashes,
        proof=proof.text(),
    )


def consistency(proof: Consistency) -> pb.ProveConsistencyResponse:
    """Render the proof that the log only grew."""
    return pb.ProveConsistencyResponse(
        checkpoint=_checkpoint(proof.checkpoint), hashes=proof.hashes, proof=proof.text()
    )


def export(export: Export) -> Iterator[pb.ExportAuditResponse]:
    """Render an export, a message at a time."""
    yield pb.ExportAuditResponse(
        header=pb.ExportHeader(
            checkpoint=_checkpoint(export.checkpoint),
            first_leaf=export.first,
            end_leaf=export.end,
            cover=export.cover,
        )
    )
    for piece in export.archive:
        yield pb.ExportAuditResponse(archive=piece)


def checkpoint_metadata(found: StoredCheckpoint | None) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata that lets every client keep checkpoints."""
    if found is None:
        return ()
    return _metadata(found)


@lru_cache(maxsize=1)  # sent with every answer to a change, and another one about once a second
def _metadata(found: StoredCheckpoint) -> tuple[tuple[str, str], ...]:
    # Metadata is printable ASCII; an origin is nearly always, and escaped where it is not.
    return ((CHECKPOINT_METADATA, quote(found.line, safe=_PRINTABLE + " ")),)


def _checkpoint(found: StoredCheckpoint) -> pb.Checkpoint:
    return pb.Checkpoint(
        note=found.note,
        origin=found.origin,
        size=found.size,
        root=found.root,
        epoch=found.epoch,
        created_at=timestamp(found.created_at),
    )
