"""Workers that lack a safeguard must be found by the history checker; run by `make chaos`.

Not a part of `make test`: a missing safeguard shows in most runs, and not in every one. That each
safeguard is needed at all, and that its absence breaks the promise, the models show for certain.
"""

from __future__ import annotations

import pytest

from tests.chaos.history import Operation, check
from tests.chaos.run import Plan, run_on
from tests.fakes.postgres import Database

_SECONDS = 100.0


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
