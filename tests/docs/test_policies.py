"""The policy documents of the page can be used, its cases pass, and its commands run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from licet.domain.policy_facts import VARIABLES
from licet.policies.reading import built_in_names
from tests.docs.blocks import blocks_of, code_in, table_of
from tests.fakes.serving import Served

PAGE = "docs/policies.md"


def test_the_commands_of_the_page_run_on_its_documents(
    tmp_path: Path, environment: dict[str, str], served: Served
) -> None:
    printed = printed_by("policies", tmp_path, environment | {"LICET_ADDRESS": served.address})

    assert "no-agent-deletes" in printed
    assert "4 of 4 policies were reached" in printed
    assert "version 3 holds from revision" in printed
    assert "back to 1: too early" in printed


@pytest.mark.timeout(120)
def test_an_approval_is_given_as_the_page_says(
    tmp_path: Path, environment: dict[str, str], served: Served
) -> None:
    printed = printed_by("approvals", tmp_path, environment | {"LICET_ADDRESS": served.address})

    assert "DENY APPROVAL_REQUIRED" in printed
    assert "restart the gate" in printed
    assert "APPROVED: agent:worker-17 execute tool:shell" in printed
    assert "ALLOW GRANTED" in printed
    assert "that was the one use" in printed
    assert "REJECTED: agent:worker-17 execute tool:shell" in printed


def printed_by(folder: str, tmp_path: Path, environment: dict[str, str]) -> str:
    """Run the commands of a folder on the documents of the page; return what they print."""
    for block in blocks_of(PAGE, "yaml"):
        name = re.fullmatch(r"file=([a-z.]+)", block.attributes)
        assert name is not None, f"{block}: no file"
        (tmp_path / name[1]).write_text(block.text, encoding="utf-8")
    printed = ""
    for block in blocks_of(PAGE, "bash"):
        if block.attributes == f"folder={folder}":
            finished = subprocess.run(
                ["/bin/bash", "-euc", block.text],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=50,
            )
            assert finished.returncode == 0, f"{block}: {finished.stdout}{finished.stderr}"
            printed += finished.stdout
    return printed


def test_the_built_in_sets_and_the_variables_are_those_of_the_page() -> None:
    rows = table_of(PAGE, "name")
    assert {name for row in rows for name in code_in(row[0])} == set(built_in_names())
    shown = {name for row in table_of(PAGE, "variable") for name in code_in(row[0])}
    assert shown == set(VARIABLES)
