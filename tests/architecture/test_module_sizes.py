"""Modules and functions stay small enough to be read whole; generated code is not read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = "*_pb2*.py"

MODULE_LINES = 400
FUNCTION_LINES = 60


def modules(folder: str) -> list[str]:
    return sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*.py")
        if not path.match(GENERATED)
    )


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring, which may take the room it needs."""
    end = function.end_lineno or function.lineno
    lines = end - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def too_long(source: str, limit: int) -> list[str]:
    """Name each function of a module that has more lines than the limit."""
    return [
        f"{function.name} at line {function.lineno}: {length(function)} lines"
        for function in functions(ast.parse(source))
        if length(function) > limit
    ]


@pytest.mark.parametrize(
    "module", [*modules("src"), *modules("tests"), *modules("benchmarks"), *modules("models")]
)
def test_a_module_is_short(module: str) -> None:
    assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) <= MODULE_LINES


@pytest.mark.parametrize("module", modules("src"))
def test_the_functions_of_a_source_module_are_short(module: str) -> None:
    assert too_long((ROOT / module).read_text(encoding="utf-8"), FUNCTION_LINES) == []


def test_the_sources_are_found() -> None:
    assert "src/licet/__init__.py" in modules("src")
    assert not any("_pb2" in module for module in modules("src"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    a\n    b\n", []),
        ("def f():\n    a\n    b\n    c\n", ["f at line 1: 4 lines"]),
        ('def f():\n    """One.\n\n    Two.\n    """\n    a\n    b\n', []),
        ("class A:\n    async def f(\n        self\n    ):\n        a\n", ["f at line 2: 4 lines"]),
        ("def f():\n    def g(): a\n    g\n", []),
    ],
)
def test_a_functions_lines_are_counted_without_its_docstring(
    source: str, expected: list[str]
) -> None:
    assert too_long(source, 3) == expected
