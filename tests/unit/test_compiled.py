"""Which modules run as C: those that pyproject.toml names, or none (decision 48)."""

from __future__ import annotations

import os
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from licet import __version__, is_compiled
from licet.cli.main import main

ROOT = Path(__file__).parents[2]
EXPECTED = "LICET_TEST_COMPILED" in os.environ
"""Set by `make test-compiled`: so that it cannot test the Python once more."""


def named() -> list[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        hatch = tomllib.load(file)["tool"]["hatch"]
    modules: list[str] = hatch["build"]["targets"]["wheel"]["hooks"]["custom"]["modules"]
    return modules


def test_the_modules_that_are_named_exist_once_each_in_order() -> None:
    modules = named()
    assert modules == sorted(set(modules))
    assert [name for name in modules if not (ROOT / "src/licet" / name).is_file()] == []


def test_all_of_them_are_compiled_or_none() -> None:
    files = {
        name: import_module("licet." + name.removesuffix(".py").replace("/", ".")).__file__ or ""
        for name in named()
    }
    assert [name for name, file in files.items() if file.endswith(".so") != EXPECTED] == []
    assert is_compiled() == EXPECTED


def test_the_version_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"licet {__version__}{', compiled' if EXPECTED else ''}\n"
