"""AuditService over the wire: what it proves verifies, and what it cannot prove it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import grpc
import pytest

from licet.domain.merkle import leaf_hash
from licet.domain.merkle_proof import verify_consistency, verify_inclusion
from licet.domain.tlog_proof import consistency_proof, inclusion_proof
from licet.v1 import audit_service_pb2 as pb
from licet.v1 import authorization_pb2
from tests.fakes.api import refused
from tests.fakes.audit_serving import ServedProofs, serving_proofs
from tests.fakes.audit_verifier import run as run_verifier
from tests.fakes.postgres import Database, eventually
from tests.fakes.sealed_log import ORIGIN, SIGNER, SealedLog, sealed_log, some_events
from tests.fakes.serving import serving

KEY = SIGNER.key.text()


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[SealedLog]:
    with sealed_log(database, tmp_path) as running:
        yield running


@pytest.fixture
def proofs(log: SealedLog) -> Iterator[ServedProofs]:
    with serving_proofs(log.database, SIGNER.key.public_key) as served:
        yield served


def test_a_checkpoint_is_the_latest_or_that_of_a_size(log: SealedLog, proofs: ServedProofs) -> None:
    log.grow(20)
    old = log.note()
    log.grow(5)
    latest = proofs.stub.GetCheckpoint(pb.GetCheckpointRequest(), timeout=10)
    assert (latest.checkpoint.note, latest.public_key) == (log.note(), KEY)
    assert (latest.checkpoint.origin, latest.checkpoint.size) == (ORIGIN, 25)
    assert (latest.checkpoint.epoch, latest.checkpoint.HasField("created_at")) == (1, True)
    assert len(latest.checkpoint.root) == 32
    kept = proofs.stub.GetCheckpoint(pb.GetCheckpointRequest(size=20, epoch=1), timeout=10)
    assert kept.checkpoint.note == old
    absent = refused(
        lambda: proofs.stub.GetCheckpoint(pb.GetCheckpointRequest(size=21), timeout=10)
    )
    assert absent.code is grpc.StatusCode.NOT_FOUND


def test_every_event_is_proved_to_be_in_the_log(
    log: SealedLog, proofs: ServedProofs, tmp_path: Path
) -> None:
    identifiers = log.grow(600, batch=7)
    log.grow(13, writer=2)
    proof = ""
    for index in (0, 1, 6, 7, 255, 256, 511, 599):
        request = pb.ProveInclusionRequest(event_id=str(identifiers[index]))
        answer = proofs.stub.ProveInclusion(request, timeout=10)
        size, root = answer.checkpoint.size, answer.checkpoint.root
        assert (answer.leaf_index, size) == (index, 613)
        assert UUID(bytes=answer.leaf[12:28]) == identifiers[index]
        assert verify_inclusion(leaf_hash(answer.leaf), index, size, list(answer.hashes), root)
        text = inclusion_proof(answer.proof)
        assert (text.extra, text.note) == (answer.leaf, answer.checkpoint.note)
        proof = answer.proof
    file = tmp_path / "proof"
    file.write_text(proof, encoding="utf-8")
    assert run_verifier("inclusion", "--key", KEY, file).status == 0


def test_an_event_of_a_change_is_proved_though_numbers_are_missing(
    log: SealedLog, proofs: ServedProofs
) -> None:
    log.admin.execute("SELECT nextval('audit.change_event_seq')")
    for reason in ("A", "B", "C"):
        log.admin.execute("SELECT audit.record_own('audit.incident', %s, '{}')", [reason])
        log.admin.execute("SELECT nextval('audit.change_event_seq')")
    log.seal()
    log.sign()
    rows = log.admin.execute("SELECT event_id FROM audit.events ORDER BY event_id").fetchall()
    for index, (identifier,) in enumerate(rows):
        request = pb.ProveInclusionRequest(event_id=str(identifier))
        assert proofs.stub.ProveInclusion(request, timeout=10).leaf_index == index
    assert len(rows) == 3


def test_what_is_not_sealed_yet_can_be_asked_for_again(
    log: SealedLog, proofs: ServedProofs
) -> None:
    early = refused(lambda: proofs.stub.GetCheckpoint(pb.GetCheckpointRequest(), timeout=10))
    assert (early.reason, early.retry) == ("NOT_SEALED", True)
    log.grow(10)
    [stored] = log.ship(some_events(1))
    request = pb.ProveInclusionRequest(event_id=str(stored))
    for seals in (False, True):
        assert not seals or log.seal() == 1
        failed = refused(lambda: proofs.stub.ProveInclusion(request, timeout=10))
        assert failed.code is grpc.StatusCode.FAILED_PRECONDITION
        assert (failed.reason, failed.retry) == ("NOT_SEALED", True)
    log.sign()
    assert proofs.stub.ProveInclusion(request, timeout=10).leaf_index == 10


@pytest.mark.parametrize("unknown", [UUID(int=0), UUID(int=(1 << 128) - 1)])
def test_there_is_no_proof_of_what_is_not_there(
    log: SealedLog, proofs: ServedProofs, unknown: UUID
) -> None:
    log.grow(10)
    request = pb.ProveInclusionRequest(event_id=str(unknown))
    failed = refused(lambda: proofs.stub.ProveInclusion(request, timeout=10))
    assert (failed.code, failed.retry) == (grpc.StatusCode.NOT_FOUND, False)


def test_nothing_is_proved_of_what_was_altered(log: SealedLog, proofs: ServedProofs) -> None:
    identifiers = log.grow(10)
    log.tamper("UPDATE audit.events SET result = 'deny'")
    request = pb.ProveInclusionRequest(event_id=str(identifiers[3]))
    failed = refused(lambda: proofs.stub.ProveInclusion(request, timeout=10))
    assert (failed.code, failed.reason) == (grpc.StatusCode.DATA_LOSS, "NOT_AS_SEALED")
    exported = refused(lambda: list(proofs.stub.ExportAudit(pb.ExportAuditRequest(), timeout=10)))
    assert exported.reason == "NOT_AS_SEALED"
    log.tamper("UPDATE audit.batches SET leaf_hashes = sha256('x') || substring(leaf_hashes, 33)")
    consistency = pb.ProveConsistencyRequest(from_size=4)
    failed = refused(lambda: proofs.stub.ProveConsistency(consistency, timeout=10))
    assert failed.reason == "NOT_AS_SEALED"


def test_the_log_is_proved_to_have_only_grown(log: SealedLog, proofs: ServedProofs) -> None:
    roots: dict[int, bytes] = {}
    for size in (3, 256, 300, 700):
        log.grow(size - (max(roots) if roots else 0))
        found = proofs.stub.GetCheckpoint(pb.GetCheckpointRequest(), timeout=10)
        roots[found.checkpoint.size] = found.checkpoint.root
    for old, old_root in roots.items():
        for new, root in roots.items():
            if old > new:
                continue
            request = pb.ProveConsistencyRequest(from_size=old, to_size=new)
            answer = proofs.stub.ProveConsistency(request, timeout=10)
            assert verify_consistency(old, new, old_root, root, list(answer.hashes))
            assert consistency_proof(answer.proof).hashes == tuple(answer.hashes)
    ahead = pb.ProveConsistencyRequest(from_size=701)
    failed = refused(lambda: proofs.stub.ProveConsistency(ahead, timeout=10))
    assert (failed.reason, failed.retry) == ("NOT_SEALED", True)


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("GetCheckpoint", pb.GetCheckpointRequest(size=-1), "size"),
        ("GetCheckpoint", pb.GetCheckpointRequest(epoch=40_000), "epoch"),
        ("ProveInclusion", pb.ProveInclusionRequest(event_id="x"), "event_id"),
        ("ProveConsistency", pb.ProveConsistencyRequest(from_size=3, to_size=2), "from_size"),
        ("ProveConsistency", pb.ProveConsistencyRequest(to_size=-2), "to_size"),
        ("ExportAudit", pb.ExportAuditRequest(first_leaf=-1), "first_leaf"),
        ("ExportAudit", pb.ExportAuditRequest(first_leaf=9, end_leaf=9), "first_leaf"),
    ],
    ids=range(7),
)
def test_a_malformed_request_names_its_field(
    log: SealedLog, proofs: ServedProofs, method: str, request_: object, field: str
) -> None:
    log.grow(10)
    call = getattr(proofs.stub, method)
    failed = refused(
        lambda: list(call(request_, timeout=10)) if "Export" in method else call(request_)
    )
    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


@pytest.mark.parametrize(("first", "end"), [(0, 0), (0, 4097), (5, 300), (4095, 4200)])
def test_an_export_is_verified_by_those_who_have_nothing_of_licet(
    log: SealedLog, proofs: ServedProofs, tmp_path: Path, first: int, end: int
) -> None:
    log.grow(4200, batch=700)
    request = pb.ExportAuditRequest(first_leaf=first, end_leaf=end)
    messages = list(proofs.stub.ExportAudit(request, timeout=60))
    header = messages[0].header
    assert (header.first_leaf, header.end_leaf) == (first, end or 4200)
    files = {
        "archive": b"".join(message.archive for message in messages[1:]),
        "checkpoint": header.checkpoint.note.encode(),
        "cover": header.cover.encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    cover = ("--cover", tmp_path / "cover") if header.cover else ()
    arguments = ("--key", KEY, "--checkpoint", tmp_path / "checkpoint", *cover)
    verified = run_verifier("archive", "--json", *arguments, tmp_path / "archive")
    assert verified.status == 0, verified.stdout
    assert verified.report["leaves"] == (end or 4200) - first


def test_no_more_exports_run_than_there_are_places(log: SealedLog) -> None:
    log.grow(10)
    request = pb.ExportAuditRequest()
    with serving_proofs(log.database, exports=0) as full:
        failed = refused(lambda: list(full.stub.ExportAudit(request, timeout=10)))
        assert (failed.code, failed.retry) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert full.stub.GetCheckpoint(pb.GetCheckpointRequest(), timeout=10).checkpoint.size == 10
    with serving_proofs(log.database, exports=1) as served:
        for _ in range(3):  # each gives its place back

            def exported() -> bool:
                try:
                    return len(list(served.stub.ExportAudit(request, timeout=10))) == 2
                except grpc.RpcError:
                    return False

            assert eventually(exported)


def test_calls_about_the_log_bring_the_latest_checkpoint_along(
    database: Database, tmp_path: Path
) -> None:
    with sealed_log(database, tmp_path) as log:
        log.grow(10)
        log.seal()
        log.sign()
        [unsealed] = log.ship(some_events(1, 10))
        note = log.note()
    with serving(database) as served:
        request = authorization_pb2.QueryAuditRequest(page_size=50)

        def answer() -> tuple[authorization_pb2.QueryAuditResponse, dict[str, str]]:
            response, call = served.stub.QueryAudit.with_call(request, timeout=10)
            return response, {key: str(value) for key, value in call.trailing_metadata()}

        assert eventually(lambda: "licet-checkpoint" in answer()[1])
        page, metadata = answer()
        origin, size, root = metadata["licet-checkpoint"].split(" ")
        assert f"{origin}\n{size}\n{root}\n" in page.checkpoint
        assert page.checkpoint_size == int(size) >= 10
        assert note.startswith(f"{origin}\n")
        # Not all that the page has is under it yet: what this server has just written itself.
        assert str(unsealed) in {event.event_id for event in page.events}
        assert 0 <= page.unsealed_count < len(page.events) - 9

        grant = authorization_pb2.GrantRequest(
            principal="agent:a", actions=["read"], resource="doc:x"
        )
        _, call = served.stub.Grant.with_call(grant, timeout=10)
        assert "licet-checkpoint" in dict(call.trailing_metadata())
        decide = authorization_pb2.AuthorizeRequest(
            principal="agent:a", action="read", resource="doc:x"
        )
        _, call = served.stub.Authorize.with_call(decide, timeout=10)
        assert "licet-checkpoint" not in dict(call.trailing_metadata())
