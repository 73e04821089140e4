"""The section on a Unix socket: its calls are made in the folder of one."""

from __future__ import annotations

from pathlib import Path

from tests.docs.blocks import blocks_of
from tests.docs.test_tls import PAGE, run
from tests.fakes.callers import calling, make_key
from tests.fakes.postgres import Database
from tests.fakes.serving import serving


def test_the_calls_are_answered(
    database: Database, tmp_path: Path, environment: dict[str, str]
) -> None:
    [block] = [b for b in blocks_of(PAGE, "bash") if b.attributes == "folder=socket"]
    with serving(database) as served, calling(served.address) as admin:
        key = make_key(admin, "admin").token
    with serving(database, listen="none", socket=tmp_path / "licet.sock"):
        printed = run(block, tmp_path, environment | {"LICET_API_KEY": key})
    assert printed.startswith("SERVING")
    assert "licet.v1.AuthorizationService" in printed
    assert "key:" in printed
