"""`licet audit new-epoch`: for the operator, when the audit log is not signed any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import count, rows
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.sealing import assert_whole, metadata_of
from tests.fakes.serving import serving
from tests.fakes.terminal import Finished, run

SIGNED = "SELECT coalesce(max(tree_size), 0) FROM audit.checkpoints WHERE epoch = %s"


def new_epoch(database: Database, folder: Path, *arguments: str) -> Finished:
    variables = {"LICET_DATABASE_URL": database.url, "LICET_STATE_DIR": str(folder)}
    return run("audit", "new-epoch", *arguments, variables=variables)


def serve_a_while(database: Database, folder: Path, epoch: int = 1) -> None:
    """Decide something, and wait until it is signed."""
    with serving(database, state_dir=folder) as served:
        before = count(database, SIGNED, epoch)
        served.stub.Authorize(
            pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x"), timeout=10
        )
        assert eventually(lambda: count(database, SIGNED, epoch) > before, 30)


def test_a_service_on_a_restored_database_is_signed_again_after_it(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    serve_a_while(database, tmp_path)
    [(origin,)] = rows(database, "SELECT origin FROM audit.log")
    healthy = new_epoch(database, tmp_path, "--reason", "why not")
    assert (healthy.status, healthy.out) == (2, "")
    assert healthy.err.startswith(f"licet: nothing is wrong with {origin}")
    with cluster.database(database, same_log=True) as restored:
        serve_a_while(database, tmp_path)
        with serving(restored, state_dir=tmp_path) as served:
            stored = "SELECT count(*) FROM audit.events"
            before, signed = count(restored, stored), count(restored, SIGNED, 1)
            assert eventually(lambda: not count(restored, "SELECT count(*) FROM audit.queue"), 30)
            begun = new_epoch(restored, tmp_path, "--reason", "restored from Tuesday", "--json")
            assert (begun.status, begun.err) == (0, "")
            assert begun.object["epoch"] == 2
            assert begun.object["origin"] == f"{origin}/epoch2"
            assert begun.object["key"].startswith(f"{origin}/epoch2+")
            assert begun.object["cause"].split(":")[0] in {"ROLLBACK", "FORK"}
            # The same servers go on, and sign again.
            assert served.authorize("agent:a", "read", "doc:x").decision_id
            assert eventually(lambda: count(restored, SIGNED, 2) > 1, 30)
            assert count(restored, stored) > before
            assert count(restored, SIGNED, 1) == signed
        assert_whole(restored)
        [facts] = metadata_of(restored, "audit.epoch")
        assert facts["reason"] == "restored from Tuesday"


def test_a_host_that_has_lost_everything_makes_a_new_key(
    database: Database, tmp_path: Path
) -> None:
    serve_a_while(database, tmp_path / "old")
    lost = new_epoch(database, tmp_path / "new", "--reason", "the machine burned")
    assert lost.status == 2
    assert "signing.key is missing" in lost.err
    begun = new_epoch(database, tmp_path / "new", "--reason", "the machine burned", "--new-key")
    assert (begun.status, begun.err) == (0, "")
    assert begun.out.startswith("epoch 2 of the audit log began; its public key is ")
    serve_a_while(database, tmp_path / "new", 2)
    assert_whole(database)


@pytest.mark.parametrize("reason", ["", " ", "two\nlines", "x" * 1001])
def test_a_reason_is_one_line(database: Database, tmp_path: Path, reason: str) -> None:
    done = new_epoch(database, tmp_path, "--reason", reason)
    assert (done.status, done.out) == (2, "")
    assert done.err == "licet: --reason must be one line of 1 to 1000 characters\n"


def test_without_a_reason_or_a_database_it_says_so(tmp_path: Path) -> None:
    assert new_epoch(Database("none", ""), tmp_path).status == 2
    url = "postgresql://127.0.0.1:1/licet?connect_timeout=2"
    done = new_epoch(Database("none", url), tmp_path, "--reason", "x")
    assert (done.status, done.out) == (2, "")
    assert done.err == "licet: the database cannot be reached\n"
