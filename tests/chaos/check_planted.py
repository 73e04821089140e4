"""Workers that lack a safeguard must be found by the history checker; run by `make chaos`.

Not a part of `make test`: a missing safeguard shows in most runs, and not in every one. That each
safeguard is needed at all, and that its absence breaks the promise, the models show for certain.
"""

from __future__ import annotations

import pytest

from tests.chaos.history import STALE, check
from tests.chaos.run import Plan, run_on
from tests.fakes.postgres import Database

_SECONDS = 320.0


@pytest.mark.timeout(_SECONDS + 20)
@pytest.mark.parametrize(
    ("safeguard", "faults"),
    [
        pytest.param("wait", ["slow"], id="a change does not wait for the replicas"),
        pytest.param("lease", ["away"], id="memory is used when the lease is over"),
        pytest.param("evict", [], id="a change is not applied to memory"),
        pytest.param("discard", [], id="what was read before a change is stored after it"),
        pytest.param("evict-before-acknowledging", [], id="acknowledged before it is applied"),
        pytest.param("margin", ["away"], id="the lease of a silent replica is not waited for"),
        pytest.param("join", [], id="a read that began before the request is shared with it"),
        pytest.param("lease-before-entry", ["away"], id="the entry is looked up before the lease"),
        pytest.param("lease-from-sending", ["away", "stall"], id="a lease counts from the answer"),
    ],
)
def test_workers_without_a_safeguard_are_found(
    database: Database, safeguard: str, faults: list[str]
) -> None:
    plan = Plan(
        seconds=180, workers=2, seed=1, faults=faults, without=safeguard, until_violation=True
    )
    violations = check(run_on(database.url, None, plan).calls)
    assert any(violation.rule == STALE for violation in violations)
