"""Proofs about the audit log, from its server. Verify them: `licet.domain` has what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import grpc

from licet.client import messages, transport
from licet.client.errors import LicetCallError, call_error
from licet.v1 import audit_service_pb2 as pb
from licet.v1.audit_service_pb2_grpc import AuditServiceStub


@dataclass(frozen=True, slots=True)
class LogCheckpoint:
    """A checkpoint of the log, and the key that its server says it has.

    Attributes:
        note: the signed note; what else is here is in it, or not signed.
        origin: which log it is.
        size: how many leaves it has.
        root: their root hash.
        epoch: of the log.
        created_at: when it was signed.
        public_key: as the server says; empty when it does not know, or was not asked.
    """

    note: str
    origin: str
    size: int
    root: bytes
    epoch: int
    created_at: datetime
    public_key: str = ""


@dataclass(frozen=True, slots=True)
class LogProof:
    """A proof, and the checkpoint that it leads to.

    Attributes:
        text: the proof as a file.
        checkpoint: it.
        hashes: the proof's.
        leaf: the event's bytes; empty for a proof of consistency, and when they are archived.
        leaf_index: of the leaf; 0 for a proof of consistency.
    """

    text: str
    checkpoint: LogCheckpoint
    hashes: tuple[bytes, ...]
    leaf: bytes = b""
    leaf_index: int = 0


@dataclass(frozen=True, slots=True)
class LogExport:
    """Leaves of the log.

    Attributes:
        checkpoint: what they are verified against.
        first_leaf: the index of the first.
        end_leaf: the index behind the last.
        cover: the hashes that stand for all others; empty when there are none.
        archive: the pieces of the archive, as they come. Raises LicetCallError.
    """

    checkpoint: LogCheckpoint
    first_leaf: int
    end_leaf: int
    cover: str
    archive: Iterator[bytes]


class Proofs:
    """The calls of AuditService. `timeout` is in seconds, where it is not the client's."""

    def __init__(self, channel: grpc.Channel, seconds: Callable[[float | None], float]) -> None:
        """Call through a client's channel, within its time."""
        self._stub = AuditServiceStub(channel)
        self._seconds = seconds

    def checkpoint(
        self, size: int = 0, *, epoch: int = 0, timeout: float | None = None
    ) -> LogCheckpoint:
        """Read the checkpoint of a size; 0: the latest one. Raises LicetCallError."""
        request = messages.build(pb.GetCheckpointRequest, size=size, epoch=epoch)
        answer = transport.read(self._stub.GetCheckpoint, request, self._seconds(timeout))
        return _checkpoint(answer.checkpoint, answer.public_key)

    def inclusion(self, event_id: str, *, timeout: float | None = None) -> LogProof:
        """Have it proved that an event is in the log.

        Raises:
            LicetCallError: NOT_FOUND: there is none. FAILED_PRECONDITION, NOT_SEALED: not yet.
        """
        request = messages.build(pb.ProveInclusionRequest, event_id=event_id)
        answer = transport.read(self._stub.ProveInclusion, request, self._seconds(timeout))
        checkpoint = _checkpoint(answer.checkpoint)
        hashes = tuple(answer.hashes)
        return LogProof(answer.proof, checkpoint, hashes, answer.leaf, answer.leaf_index)

    def consistency(
        self, from_size: int, to_size: int = 0, *, epoch: int = 0, timeout: float | None = None
    ) -> LogProof:
        """Have it proved that the log only grew since it had `from_size`. Raises LicetCallError."""
        request = messages.build(
            pb.ProveConsistencyRequest, from_size=from_size, to_size=to_size, epoch=epoch
        )
        answer = transport.read(self._stub.ProveConsistency, request, self._seconds(timeout))
        return LogProof(answer.proof, _checkpoint(answer.checkpoint), tuple(answer.hashes))

    def export(
        self,
        first_leaf: int = 0,
        end_leaf: int = 0,
        *,
        epoch: int = 0,
        timeout: float | None = None,
    ) -> LogExport:
        """Begin to export leaves; 0 for the end: all under the latest checkpoint.

        `timeout` is for all of it; unlimited if omitted.

        Raises:
            LicetCallError: it was not begun; or while the archive is iterated, it ended too early.
        """
        request = messages.build(
            pb.ExportAuditRequest, epoch=epoch, first_leaf=first_leaf, end_leaf=end_leaf
        )
        stream = _failing_here(self._stub.ExportAudit(request, timeout=timeout))
        header = next(stream).header
        return LogExport(
            _checkpoint(header.checkpoint),
            header.first_leaf,
            header.end_leaf,
            header.cover,
            (message.archive for message in stream),
        )


def _failing_here(stream: Iterator[pb.ExportAuditResponse]) -> Iterator[pb.ExportAuditResponse]:
    try:
        first = next(stream, None)
        if first is None or not first.HasField("header"):
            raise LicetCallError("INTERNAL", "an export does not begin with its header")
        yield first
        yield from stream
    except grpc.RpcError as exc:
        raise call_error(exc) from exc


def _checkpoint(message: pb.Checkpoint, public_key: str = "") -> LogCheckpoint:
    return LogCheckpoint(
        note=message.note,
        origin=message.origin,
        size=message.size,
        root=message.root,
        epoch=message.epoch,
        created_at=messages.instant(message.created_at),
        public_key=public_key,
    )
