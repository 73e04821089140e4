"""The signer's memory when its process is killed or the disk fails, at every call of the kernel."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from licet.steward.state_file import StateFile
from tests.fakes import state_writer
from tests.fakes.state_writer import signed

STRACE = shutil.which("strace")
KILLS = 8


def _command(path: Path) -> list[str]:
    assert state_writer.__file__ is not None
    return [sys.executable, state_writer.__file__, str(path)]


def _assert_remembered(path: Path, told: bytes) -> None:
    """Check that what was told is remembered, or what came next, and that it goes on from there."""
    last = int(told.split(b"\n")[-2])
    state = StateFile(path)
    found = state.read()
    assert found in {signed(last), signed(last + 1)}
    state.write(signed(last + 2))
    assert state.read() == signed(last + 2)


@pytest.mark.parametrize("kill", range(KILLS))
def test_what_a_killed_signer_told_is_remembered(tmp_path: Path, kill: int) -> None:
    path = tmp_path / "signed.json"
    with subprocess.Popen(_command(path), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = Random(kill).randrange(1, 200)
        told = b"".join(process.stdout.readline() for _ in range(lines))
        process.kill()
        told += process.stdout.read()
    _assert_remembered(path, told)


@pytest.mark.skipif(STRACE is None, reason="an extra, where strace is installed")
@pytest.mark.parametrize(
    "fault", ["signal=KILL:when=7", "error=EIO:when=7+", "error=ENOSPC:when=7"]
)
@pytest.mark.parametrize("call", ["openat", "write", "fsync", "rename"])
def test_whichever_system_call_fails_or_is_the_last_one_nothing_signed_is_forgotten(
    tmp_path: Path, call: str, fault: str
) -> None:
    assert STRACE is not None
    path, fresh = tmp_path / "signed.json", tmp_path / ".signed.json.new"
    where = [word for file in (path, fresh, tmp_path) for word in ("-P", str(file))]
    inject = ["-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}"]
    process = subprocess.run(
        [STRACE, *inject, *where, *_command(path)], capture_output=True, check=False, timeout=50
    )
    assert process.returncode != 0
    assert fault.startswith("signal") or b"StateFileError" in process.stderr
    _assert_remembered(path, process.stdout)
