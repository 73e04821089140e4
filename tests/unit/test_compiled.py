"""Which modules run as C: those that pyproject.toml names, or none (decision 48)."""

from __future__ import annotations

import ast
import os
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from itertools import groupby
from pathlib import Path
from threading import local

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


def handlers(module: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each name that exceptions have in a function of a module, and their types."""
    for function in ast.walk(ast.parse((ROOT / "src/licet" / module).read_text())):
        if isinstance(function, ast.FunctionDef):
            named = sorted(
                (handler.name, ast.unparse(handler.type))
                for handler in ast.walk(function)
                if isinstance(handler, ast.ExceptHandler) and handler.name and handler.type
            )
            for name, of in groupby(named, lambda handler: handler[0]):
                yield f"{module}: {function.name}: {name}", [caught for _, caught in of]


def test_no_name_is_of_exceptions_of_two_types() -> None:
    # Compiled, it is of the first type, and one of the other raises TypeError.
    found = dict(pair for module in named() for pair in handlers(module))
    assert found
    assert {where: types for where, types in found.items() if len(set(types)) > 1} == {}


def test_no_generator_holds_anything_while_it_waits() -> None:
    # Compiled, one that is dropped halfway leaves no `with`, and does nothing of its `finally`.
    # Who enters a context manager leaves it.
    held = [
        f"{module}: {function.name}"
        for module in named()
        for function in ast.walk(ast.parse((ROOT / "src/licet" / module).read_text()))
        if isinstance(function, ast.FunctionDef)
        and "contextmanager" not in map(ast.unparse, function.decorator_list)
        for block in ast.walk(function)
        if isinstance(block, ast.With | ast.Try)
        and any(isinstance(inner, ast.Yield | ast.YieldFrom) for inner in ast.walk(block))
    ]
    assert held == []


def nested(function: ast.AST) -> Iterator[ast.FunctionDef | ast.Lambda]:
    """Yield the functions within one, and not those within these."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef | ast.Lambda):
            yield child
        else:
            yield from nested(child)


def test_no_function_within_another_keeps_itself_alive() -> None:
    # Compiled, one that is named by another one, or by itself, stands in what both have of the
    # function around them: a cycle, which keeps a call, and its stream, until it is looked for.
    kept = [
        f"{module}: {function.name}: {name.id}"
        for module in named()
        for function in ast.walk(ast.parse((ROOT / "src/licet" / module).read_text()))
        if isinstance(function, ast.FunctionDef)
        for inner in nested(function)
        for name in ast.walk(inner)
        if isinstance(name, ast.Name)
        and name.id in {one.name for one in nested(function) if isinstance(one, ast.FunctionDef)}
    ]
    assert kept == []


def classes(module: str) -> Iterator[type]:
    """Yield the classes that a module defines."""
    full = "licet." + module.removesuffix(".py").replace("/", ".")
    for found in vars(import_module(full)).values():
        if isinstance(found, type) and found.__module__ == full:
            yield found


def is_of_c(base: type) -> bool:
    module = sys.modules[base.__module__]
    return not (base.__flags__ & _HEAP_TYPE and getattr(module, "__file__", None))


def test_no_class_derives_from_one_in_c() -> None:
    # Compiled, its attributes would lie where those of its base are: of `threading.local`, all
    # threads had the same. Errors, enums and named tuples are what mypyc knows.
    bases = {
        (found.__name__, base.__name__)
        for module in named()
        for found in classes(module)
        if not issubclass(found, tuple | str | BaseException)
        for base in found.__mro__[1:-1]
        if is_of_c(base)
    }
    assert bases == set()
    assert is_of_c(local)


_HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: made by a `class` statement, or as one."""


def test_the_version_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"licet {__version__}{', compiled' if EXPECTED else ''}\n"
