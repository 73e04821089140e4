"""The page on imports: its file is imported, and says of itself what the page shows."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.docs.blocks import blocks_of
from tests.docs.grpcurl import objects
from tests.docs.test_commands import differences
from tests.fakes.serving import Served

PAGE = "docs/import.md"


def test_the_page_is_run_and_what_it_shows_is_printed(
    served: Served, tmp_path: Path, environment: dict[str, str]
) -> None:
    printed, compared = "", 0
    for block in blocks_of(PAGE):
        if block.language == "bash":
            assert block.attributes.startswith("folder=import"), block
            done = subprocess.run(
                ["/usr/bin/env", "bash", "-e", "-c", block.text],
                cwd=tmp_path,
                env=environment | {"LICET_ADDRESS": served.address},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == block.exit_status, f"{block}: {done.stdout}{done.stderr}"
            printed = done.stdout
        elif block.language == "json":
            (shown,), found = list(objects(block.text)), list(objects(printed))
            assert differences(shown, found[-1]) == [], block
            compared += 1
    assert compared == len(blocks_of(PAGE, "json")) > 4
