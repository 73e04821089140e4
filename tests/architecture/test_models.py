"""The models and the list of what is checked of them fit each other, and the checker is understood.

The checker itself is run by `make model-quick` and `make model`, not by the tests.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from models import run
from models.checks import BASE, CHECKS, MUTANTS, WITNESSES, Check, Outcome

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
# Parameters and helpers of a model, not switches that a check must use.
PARAMETERS = {"NREP", "MAXCRASH", "MAXRESTART", "HOLDMAX", "WITNESS", "WAITT", "SUB"}


def switches(checks: tuple[Check, ...], model: str) -> set[str]:
    return {
        switch.partition("=")[0]
        for check in checks
        if check.model == model
        for switch in check.switches.split()
    }


def conditions(model: str) -> set[str]:
    """Return what a model asks the preprocessor for and does not define itself."""
    text = (MODELS / model).read_text(encoding="utf-8")
    asked = set(re.findall(r"(?:#ifn?def\s+|defined\()(\w+)", text))
    return asked - set(re.findall(r"#define\s+(\w+)", text)) - PARAMETERS


@pytest.mark.parametrize("model", sorted(path.name for path in MODELS.glob("*.pml")))
def test_every_switch_of_a_model_is_checked_and_every_switch_checked_is_there(model: str) -> None:
    assert switches(CHECKS, model) - PARAMETERS == conditions(model)


@pytest.mark.parametrize("model", sorted(path.name for path in MODELS.glob("*.pml")))
def test_a_model_has_a_base_and_a_safeguard_whose_removal_is_found(model: str) -> None:
    assert any(check.model == model for check in BASE)
    assert any(check.model == model and check.expected is Outcome.FOUND for check in MUTANTS)


def test_every_base_must_be_clean() -> None:
    assert {check.expected for check in BASE} == {Outcome.CLEAN}


def test_checks_have_names_and_switches_of_their_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert len({(check.model, check.switches) for check in CHECKS}) == len(CHECKS)


def test_every_witness_of_the_model_is_asked_for() -> None:
    text = (MODELS / "revocation.pml").read_text(encoding="utf-8")
    in_model = {int(number) for number in re.findall(r"\bWIT\((\d+),", text)}
    assert in_model == set(range(1, len(WITNESSES) + 1))


def test_the_quick_selection_has_a_base_and_several_mutants() -> None:
    quick = [check for check in CHECKS if check.is_quick]
    assert [check for check in quick if check in BASE and check.model == "revocation.pml"]
    assert 6 <= sum(check in MUTANTS for check in quick) <= 10


@pytest.mark.parametrize(
    "name",
    sorted(
        set(
            re.findall(
                r"(?:replica|writer|storage)/\w+\.py|migrations/[\w.]+\.sql",
                (MODELS / "revocation.pml").read_text(encoding="utf-8")
                + (MODELS / "failover.pml").read_text(encoding="utf-8"),
            )
        )
    ),
)
def test_the_code_that_a_model_names_is_there(name: str) -> None:
    assert (ROOT / name).exists() or (ROOT / "src/licet" / name).exists()


CLEAN = """
State-vector 92 byte, depth reached 1867, errors: 0
  3391296 states, stored
"""
FOUND = """
pan:1: assertion violated  !(sa) (at depth 812)
pan: wrote revocation.pml.trail
Warning: Search not completed
State-vector 92 byte, depth reached 1867, errors: 1
     6887 states, stored
"""
DEADLOCK = """
pan:1: invalid end state (at depth 12)
Warning: Search not completed
State-vector 92 byte, depth reached 12, errors: 1
       12 states, stored
"""
SHALLOW = "error: max search depth too small\n" + CLEAN
FULL = """
pan: reached -DMEMLIM bound
Warning: Search not completed
State-vector 92 byte, depth reached 1867, errors: 0
1.2e+07 states, stored
"""


@pytest.mark.parametrize(
    ("text", "outcome", "states"),
    [
        pytest.param(CLEAN, Outcome.CLEAN, 3_391_296, id="clean"),
        pytest.param(FOUND, Outcome.FOUND, 6887, id="an assertion fails"),
        pytest.param(DEADLOCK, Outcome.BROKEN, 12, id="a deadlock is no violation"),
        pytest.param(SHALLOW, Outcome.INCOMPLETE, 3_391_296, id="too shallow is not clean"),
        pytest.param(FULL, Outcome.INCOMPLETE, 12_000_000, id="out of memory is not clean"),
        pytest.param("Killed\n", Outcome.BROKEN, 0, id="nothing was said"),
    ],
)
def test_what_the_checker_prints_is_read(text: str, outcome: Outcome, states: int) -> None:
    assert run.reading(text)[:2] == (outcome, states)


def test_results_are_written_for_programs() -> None:
    result = run.Result(BASE[0], Outcome.INCOMPLETE, 7, 1.26, "memory")
    (row,) = json.loads(run.as_json([result]))
    assert row["name"] == BASE[0].name
    assert (row["outcome"], row["seconds"], row["is_right"]) == ("incomplete", 1.3, False)


def test_without_the_checker_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run.main(["--quick"]) == 2
    assert "apt-get install spin gcc" in capsys.readouterr().err
