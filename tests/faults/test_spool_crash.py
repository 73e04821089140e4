"""SIGKILL in the middle of writing: what was told is on record, and nothing is that was not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from licet.spool.folder import SpoolFolder
from licet.spool.reader import DamageKind, SpoolReader
from licet.spool.writer import Durability
from tests.fakes import spool_writer
from tests.fakes.spool import leaf, recover, runs
from tests.fakes.spool_writer import TOLD, WRITER_ID, body

KILLS = 20
STRACE = shutil.which("strace")


def command(root: Path, durability: Durability) -> list[str]:
    """Return what starts a process that writes and tells until it ends."""
    assert spool_writer.__file__ is not None
    return [sys.executable, spool_writer.__file__, str(root), durability.value]


def as_told(output: bytes) -> dict[int, int]:
    """Return the events that a process told of, whole."""
    return dict(TOLD.iter_unpack(output[: len(output) // TOLD.size * TOLD.size]))


def assert_recovered(root: Path, told: dict[int, int]) -> None:
    """Recover a spool: what was told is there, and all that is there was appended, once."""
    found, damages = recover(root)
    assert sorted(found) == list(range(1, len(found) + 1))
    numbers = {sequence: int(content[28:].split()[0]) for sequence, content in found.items()}
    assert len(set(numbers.values())) == len(numbers)
    for sequence, content in found.items():
        assert content == leaf(sequence, body(numbers[sequence]), WRITER_ID)
    assert {sequence: numbers.get(sequence) for sequence in told} == told
    assert [damage for damage in damages if damage.kind is not DamageKind.TORN_TAIL] == []


def killed(root: Path, durability: Durability, after: int) -> dict[int, int]:
    """Let a process write until it has told some events, kill it, and return what it told."""
    with subprocess.Popen(command(root, durability), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = process.stdout.read(after * TOLD.size)
        process.kill()
        told += process.stdout.read()
    return as_told(told)


@pytest.mark.parametrize("kill", range(KILLS))
def test_what_a_killed_process_told_is_recovered(tmp_path: Path, kill: int) -> None:
    durability = (Durability.NONE, Durability.GROUP)[kill % 2]
    told = killed(tmp_path, durability, Random(kill).randrange(1, 1500))
    assert told
    assert_recovered(tmp_path, told)


@pytest.mark.skipif(STRACE is None, reason="an extra, where strace is installed")
@pytest.mark.parametrize(
    "fault", ["signal=KILL:when=4", "error=EIO:when=4+", "error=ENOSPC:when=4+"]
)
@pytest.mark.parametrize("call", ["fallocate", "fdatasync", "fsync", "renameat"])
def test_whichever_system_call_fails_or_is_the_last_one_nothing_told_is_lost(
    tmp_path: Path, call: str, fault: str
) -> None:
    """As `test_spool_faults.py`, but for the kernel's own calls and in a process of its own."""
    assert STRACE is not None
    inject = ["-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}"]
    root = tmp_path / "spool"
    process = subprocess.run(
        [STRACE, *inject, *command(root, Durability.GROUP)],
        capture_output=True,
        check=False,
        timeout=50,
    )
    assert process.returncode != 0 or b"UnavailableError" in process.stderr
    assert_recovered(root, as_told(process.stdout))


def test_an_adopter_reads_what_was_not_shipped_and_removes_the_rest(tmp_path: Path) -> None:
    told = killed(tmp_path, Durability.NONE, 500)
    folder = SpoolFolder.adopt(tmp_path)
    assert folder is not None
    assert folder.writer_id == WRITER_ID
    reader = SpoolReader(folder, 200)
    positions = [run.first + n for run in runs(reader) for n in range(len(run.leaves))]
    assert positions == list(range(201, reader.position + 1))
    assert reader.position >= max(told)
    reader.close()
    folder.remove()
    assert list(tmp_path.iterdir()) == []
