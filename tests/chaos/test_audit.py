"""Crashes under load, the short form; `make chaos` has the long one."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.chaos.fleet import ROOT, python_environment


@pytest.mark.timeout(300)
def test_what_was_answered_is_stored_and_sealed_whatever_crashes() -> None:
    command = [sys.executable, "-m", "tests.chaos.audit", "--events=3000", "--seed=20011"]
    crashes = ["--workers=3", "--everything=1", "--database=1", "--pauses=1"]
    done = subprocess.run(
        [*command, *crashes],
        cwd=ROOT,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answered, stored = map(int, re.findall(r"(\d+) (?:decisions were|are stored)", done.stdout))
    assert stored >= answered >= 3000
