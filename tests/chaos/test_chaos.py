"""A short run of everything at once; `make chaos` is the long one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.fleet import ROOT, python_environment
from tests.chaos.history import Operation, check
from tests.chaos.run import Plan, run_on
from tests.fakes.postgres import Database

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


@pytest.mark.timeout(_SECONDS + 20)
@pytest.mark.parametrize(
    ("safeguard", "faults"),
    [
        pytest.param("wait", ["slow"], id="a change does not wait for the replicas"),
        pytest.param("lease", ["away"], id="memory is used when the lease is over"),
        pytest.param("evict", [], id="a change is not applied to memory"),
        pytest.param("discard", [], id="what was read before a change is stored after it"),
        pytest.param("evict-before-acknowledging", [], id="acknowledged before it is applied"),
    ],
)
def test_workers_without_a_safeguard_are_found(
    database: Database, safeguard: str, faults: list[str]
) -> None:
    plan = Plan(
        seconds=60, workers=2, seed=1, faults=faults, without=safeguard, until_violation=True
    )
    violations = check(run_on(database.url, None, plan).calls)
    assert violations
    assert violations[0].calls[-1].operation is Operation.AUTHORIZE
