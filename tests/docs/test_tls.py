"""The section on TLS: its commands make the files, and the calls that it shows succeed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.docs.blocks import DOCUMENTED_ADDRESS, Block, blocks_of
from tests.fakes.postgres import Database
from tests.fakes.serving import serving

PAGE = "docs/operations.md"


def run(block: Block, folder: Path, environment: dict[str, str], address: str = "") -> str:
    done = subprocess.run(
        ["/usr/bin/env", "bash", "-e", "-c", block.text.replace(DOCUMENTED_ADDRESS, address)],
        cwd=folder,
        env=environment | {"LICET_ADDRESS": address},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_files_are_made_and_used(
    database: Database, tmp_path: Path, environment: dict[str, str]
) -> None:
    making, calling = [b for b in blocks_of(PAGE, "bash") if "folder=tls" in b.attributes]
    run(making, tmp_path, environment)
    [line] = [b.text for b in blocks_of(PAGE, "sh") if "LICET_TLS" in b.text]
    settings = {
        name.lower(): tmp_path / value
        for name, value in re.findall(r"LICET_(TLS_[A-Z_]+)=(\S+)", line)
    }
    assert len(settings) == 4
    settings["tls_callers_file"].write_text(table(), encoding="utf-8")
    with serving(database, **settings) as served:
        printed = run(calling, tmp_path, environment, served.address)
    assert printed.startswith("SERVING")
    assert "licet.v1.AuthorizationService" in printed
    assert "service:gateway" in printed


def table() -> str:
    [text] = [b.text for b in blocks_of(PAGE, "toml") if "[[caller]]" in b.text]
    return text


def test_a_block_that_needs_a_folder_is_run_by_a_test_that_has_one() -> None:
    attributes = {b.attributes for b in blocks_of(PAGE, "bash") if "folder=" in b.attributes}
    assert attributes == {"folder=tls", "folder=socket"}
