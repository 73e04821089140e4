"""A short run of everything at once; `make chaos` is the long one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.fleet import ROOT, python_environment

_SECONDS = 100.0


@pytest.mark.timeout(_SECONDS + 20)
def test_the_promise_holds_whatever_goes_wrong() -> None:
    # In a process of its own, because it forks while it is a client. The choices are the same
    # every time; when exactly they fall is not.
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.run", "--minutes=0.25", "--workers=2", "--seed=20010"],
        cwd=ROOT,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 violations" in done.stdout
    for answer in ("grant OK", "revoke OK", "authorize ALLOW", "authorize DENY"):
        assert answer in done.stdout
