"""What the documentation says of when an attack is found is so, whoever finds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import table_of
from tests.fakes.postgres import Database
from tests.fakes.sealed_log import SealedLog, sealed_log
from tests.integration.tamper_matrix import MORE, NAMES, Detection, attacked
from tests.integration.test_audit_tampering import ATTACKS

WITHIN = {row[0]: row[2] for row in table_of("docs/audit-verification.md", "a superuser ...")}


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[SealedLog]:
    with sealed_log(database, tmp_path) as running:
        yield running


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_on_what_is_sealed_is_on_record_in_time(log: SealedLog, name: str) -> None:
    found = attacked(log, name)
    assert found.within is not None
    assert WITHIN[name].split(";")[0] == NAMES[found.within]


@pytest.mark.parametrize("attack", MORE, ids=lambda attack: attack.__name__)
def test_an_attack_on_the_rest_is_found_where_it_can_be(
    log: SealedLog, attack: Callable[[SealedLog], Detection]
) -> None:
    found = attack(log)
    assert found.by
    said = WITHIN[found.attack]
    assert (
        said == "the next `verify` with it" if found.within is None else NAMES[found.within] in said
    )
