"""The shell commands on every page, run in order as they stand, and what they are said to print."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.docs.blocks import (
    DOCUMENTED_ADDRESS,
    LANGUAGES,
    ROOT,
    Block,
    blocks,
    blocks_of,
    page_names,
    text_of,
)
from tests.docs.grpcurl import objects
from tests.fakes.serving import Served

PAGES = [page for page in page_names() if blocks_of(page, "bash")]

# What differs from one run to the next; of these only the form is compared.
EXAMPLES = (
    re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),  # an id
    re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),  # an instant
    re.compile(r"\d+"),  # a revision
)
NOT_RUN = {"cp", "createdb", "docker", "install", "licet", "make", "mv", "pg_dump", "pg_restore"}


class Page:
    """Runs the blocks of a page in order, with what one leaves for the next."""

    def __init__(self, served: Served, environment: dict[str, str]) -> None:
        self._address = served.address
        self._environment = environment | {
            "LICET_ADDRESS": served.address,
            "LICET_DATABASE_URL": served.database.url,
        }
        self._printed = ""

    def run(self, block: Block) -> None:
        script = block.text.replace(DOCUMENTED_ADDRESS, self._address)
        script = script.replace(".venv/bin/licet", "licet")
        script = script.replace(".venv/bin/python", shlex.quote(sys.executable))
        identifier = re.search(r'"id": "([^"]+)"', self._printed)
        if identifier is not None:
            script = re.sub(
                r"^(\w+)=\S+( +# the id that Grant printed)$",
                rf"\1={identifier.group(1)}\2",
                script,
                flags=re.MULTILINE,
            )
        for name, value in re.findall(r"^([A-Z]+)=(\S+)", script, re.MULTILINE):
            self._environment[name] = value
        done = subprocess.run(
            ["/usr/bin/env", "bash", "-e", "-o", "pipefail", "-c", script],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == block.exit_status, f"{block}: {done.stdout}{done.stderr}"
        self._printed = done.stdout

    def compare(self, block: Block) -> None:
        printed, shown = list(objects(self._printed)), list(objects(block.text))
        # The last of what was printed; of a stream, as many of the first as are shown.
        compared = printed[-1:] if len(shown) == 1 else printed[: len(shown)]
        assert differences(shown, compared) == [], f"{block}"


def differences(shown: object, printed: object, path: str = "answer") -> list[str]:
    """Name each place at which what a page shows is not a part of what was printed."""
    if isinstance(shown, dict) and isinstance(printed, dict):
        missing = [f"{path}.{key} was not printed" for key in shown.keys() - printed.keys()]
        inside = (differences(shown[k], printed[k], f"{path}.{k}") for k in shown if k in printed)
        return missing + [found for part in inside for found in part]
    if isinstance(shown, list) and isinstance(printed, list):
        if len(shown) != len(printed):
            return [f"{path} has {len(printed)} items"]
        pairs = enumerate(zip(shown, printed, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{path}[{i}]")]
    if isinstance(shown, str) and isinstance(printed, str):
        for example in EXAMPLES:
            if example.fullmatch(shown) and example.fullmatch(printed):
                return []
    return [] if shown == printed else [f"{path} is {printed!r}, not {shown!r}"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, served: Served, environment: dict[str, str]) -> None:
    # For the commands that read the database and not the service.
    environment = environment | {"LICET_DATABASE_URL": served.database.url}
    running = Page(served, environment)
    is_run = False
    for block in blocks_of(page):
        match block.language:
            case "bash":
                is_run = "folder=" not in block.attributes
                if is_run:
                    running.run(block)
            case "json" if is_run:
                running.compare(block)
            case "json":
                pass
            case _:
                is_run = False


def test_every_page_that_has_commands_is_run() -> None:
    assert {"README.md", "docs/api-guide.md", "docs/operations.md"} <= set(PAGES)


def test_every_block_has_a_tag_that_says_what_is_done_with_it() -> None:
    assert {block.language for block in blocks()} <= LANGUAGES


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_what_is_not_run_needs_more_than_a_licet(block: Block) -> None:
    for line in block.text.replace("\\\n", "").splitlines():
        words = [word for word in line.split() if not re.match(r"[A-Z_]+=", word)]
        assert words[0] in NOT_RUN, line
        if words[0] == "licet":
            assert words[1] in {"migrate", "serve"}, "any other command can be run: tag it bash"


def test_every_target_of_make_that_a_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    code = [text for page in page_names() for text in re.findall(r"`([^`\n]+)`", text_of(page))]
    code += [line for block in blocks("sh") for line in block.text.splitlines()]
    named = {m.group(1) for text in code if (m := re.search(r"\bmake ([a-z][a-z-]*)", text))}
    assert {"run", "test", "check", "example"} <= named <= targets


def test_a_shown_answer_must_be_a_part_of_the_printed_one() -> None:
    printed = {"a": [{"b": "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f", "c": "x"}], "d": "7"}
    shown = {"a": [{"b": "01a20120-3fdf-7000-9a1c-4266f5ae7d20"}], "d": "12"}
    assert differences(shown, printed) == []
    assert differences({"a": []}, printed) == ["answer.a has 1 items"]
    assert differences({"a": [{"c": "y"}]}, printed) == ["answer.a[0].c is 'x', not 'y'"]
    assert differences({"e": 1}, printed) == ["answer.e was not printed"]
    assert differences({"d": "x"}, printed) == ["answer.d is '7', not 'x'"]
