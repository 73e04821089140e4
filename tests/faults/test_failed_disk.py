"""A disk that fails to write: what cannot be recorded is refused, and another process is needed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from licet.client import Client, LicetCallError
from tests.fakes.api import all_stored, refused
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.fakes.terminal import running

PATIENCE = 40.0
# Python runs this in every process before anything else.
SITECUSTOMIZE = """
import errno, os
sync = os.fdatasync
def fdatasync(descriptor):
    if os.path.exists(os.environ["BROKEN_DISK"]):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    sync(descriptor)
os.fdatasync = fdatasync
"""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Provide the name of a file that breaks the disk of `settings` while it exists."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    return tmp_path / "broken"


def settings(database: Database, broken: Path, workers: int) -> dict[str, str]:
    return {
        "BROKEN_DISK": str(broken),
        "PYTHONPATH": str(broken.parent),
        "LICET_DATABASE_URL": database.url,
        "LICET_STATE_DIR": str(broken.parent / "state"),
        "LICET_LISTEN": "127.0.0.1:0",
        "LICET_WORKERS": str(workers),
        "LICET_DRAIN_SECONDS": "1",
    }


def decide(address: str) -> str:
    with Client(address, timeout=5) as client:
        return client.authorize("agent:a", "read", "doc:x").decision_id


def can_decide(address: str) -> bool:
    try:
        decide(address)
    except LicetCallError:
        return False
    return True


@pytest.mark.timeout(120)
def test_a_process_whose_disk_failed_ends_and_the_next_one_stores_what_it_had(
    database: Database, broken: Path
) -> None:
    variables = settings(database, broken, 1)
    with running("serve", variables=variables) as server:
        address = server.lines_until("Ctrl-C")[0].split()[-1]
        answered = [decide(address) for _ in range(5)]
        broken.touch()
        with pytest.raises(LicetCallError, match="UNAVAILABLE"):
            decide(address)
        assert server.process.wait(PATIENCE) == 2
        assert "no decision can be recorded by this process: writing to the disk failed" in (
            server.errors
        )
    broken.unlink()
    with running("serve", variables=variables) as server:
        address = server.lines_until("Ctrl-C")[0].split()[-1]
        answered.append(decide(address))
        assert all_stored(database, answered)


@pytest.mark.timeout(180)
def test_workers_whose_disk_failed_are_replaced_until_it_is_mended(
    database: Database, broken: Path
) -> None:
    with running("serve", variables=settings(database, broken, 2)) as server:
        address = server.lines_until("Ctrl-C")[0].split()[-1]
        answered = [decide(address) for _ in range(5)]
        broken.touch()
        assert eventually(lambda: not can_decide(address), PATIENCE)
        assert eventually(lambda: "ended with code 2" in server.errors, PATIENCE)
        assert not can_decide(address)
        broken.unlink()
        assert eventually(lambda: can_decide(address), PATIENCE)
        answered.append(decide(address))
        assert all_stored(database, answered)


def test_a_server_whose_disk_failed_says_that_it_does_not_serve(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with serving(database) as served:
        assert is_serving(served)
        monkeypatch.setattr(os, "fdatasync", fail)
        refusal = refused(lambda: served.authorize("agent:a", "read", "doc:x"))
        assert (refusal.code, refusal.retry) == (grpc.StatusCode.UNAVAILABLE, True)
        monkeypatch.undo()
        # The kernel may have dropped what it could not write: no later sync makes up for that.
        assert eventually(lambda: not is_serving(served))
        refusal = refused(lambda: served.authorize("agent:a", "read", "doc:x"))
        assert refusal.code is grpc.StatusCode.UNAVAILABLE


def is_serving(served: Served) -> bool:
    stub: Any = served.health  # the published stubs know none of its methods
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
