"""The pages as pages: links that lead somewhere, decisions that have their form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, page_names, text_of

DECISIONS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs/decisions").glob("*.md"))


def prose_of(page: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: str) -> set[str]:
    """Return what the headings of a page can be linked by, as forges make it of them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", page_names())
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose_of(page)):
        if re.match(r"[a-z]+://", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors_of(str(found.resolve().relative_to(ROOT))), target


@pytest.mark.parametrize("page", page_names())
def test_every_file_of_the_code_that_is_named_is_there(page: str) -> None:
    named = re.findall(r"`((?:src|tests|tools|benchmarks|models)/[\w/-]+\.py)`", prose_of(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", page_names())
def test_every_page_begins_with_its_title_and_has_no_other(page: str) -> None:
    assert len(re.findall(r"^# ", prose_of(page), re.MULTILINE)) == 1
    assert text_of(page).startswith("# ")


@pytest.mark.parametrize("page", DECISIONS)
def test_a_decision_has_its_parts(page: str) -> None:
    headings = re.findall(r"^## (.+)$", text_of(page), re.MULTILINE)
    assert headings == [
        "Context",
        "Options",
        "Decision",
        "Consequences",
        "What would change our mind",
    ]
    number = int(Path(page).name[:4])
    assert text_of(page).startswith(f"# {number}. ")


def test_decisions_are_numbered_without_a_gap_and_all_are_in_the_index() -> None:
    numbers = [int(Path(page).name[:4]) for page in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))
    index = text_of("docs/README.md")
    for page in DECISIONS:
        title = text_of(page).partition("\n")[0].partition(". ")[2]
        assert f"[{title}]({Path(page).relative_to('docs')})" in index
