"""What the pages' examples run with: a served licet, its command, and a grpcurl."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.fakes.terminal import without_settings

GRPCURL_VARIABLE = "LICET_TEST_GRPCURL"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a folder with the programs that the pages call."""
    folder = tmp_path_factory.mktemp("programs")
    stand_in = shlex.join([sys.executable, str(Path(__file__).with_name("grpcurl.py"))])
    grpcurl = os.environ.get(GRPCURL_VARIABLE, stand_in)
    for name, command in (
        ("grpcurl", grpcurl),
        ("licet", shlex.join([sys.executable, "-m", "licet"])),
    ):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    return folder


@pytest.fixture
def environment(programs: Path) -> dict[str, str]:
    """Provide the environment of the pages' programs: see `without_settings`."""
    return without_settings() | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
