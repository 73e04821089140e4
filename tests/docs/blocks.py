"""The fenced blocks of README, CONTRIBUTING and docs/, found by language tag.

What a tag means to the tests of this folder:

- `bash`: run as it stands, in the order of the page, against a served licet; only the address is
  changed. `exit=N` after the tag: that is the status it ends with.
  `folder=NAME`: it needs files, and servers that have them: a test of its own runs it in a folder.
- `json` right after `bash`: a part of what the command printed, the last object or, where several
  are shown, the first ones; ids, instants and revisions are examples: only their form is compared.
- `python`, `js`: run, each block a program of its own.
- `sql`: run as the database's administrator.
- `yaml`: a policy document that can be used, or cases for one that pass with the document before.
- `sh`: not run, because it needs docker, git or another database: only make's targets are checked.
- `text`, `toml`, `proto`: not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from typing_extensions import override

ROOT: Final = Path(__file__).parents[2]
DOCUMENTED_ADDRESS: Final = "127.0.0.1:50051"

LANGUAGES: Final = {"bash", "json", "python", "js", "sql", "yaml", "sh", "text", "toml", "proto"}

_FENCE = re.compile(r"^```(\S*) *(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        page: the page's path from the root.
        line: of the fence, counted from one.
        language: the tag.
        attributes: what follows the tag.
        text: what is between the fences.
    """

    page: str
    line: int
    language: str
    attributes: str
    text: str

    @override
    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def exit_status(self) -> int:
        """The status that the commands end with."""
        wanted = re.search(r"exit=(\d+)", self.attributes)
        return int(wanted.group(1)) if wanted else 0


def pages() -> list[Path]:
    """Return every page, README first."""
    return [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def page_names() -> list[str]:
    """Return every page's path from the root."""
    return [str(page.relative_to(ROOT)) for page in pages()]


@cache
def text_of(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str, *languages: str) -> list[Block]:
    """Return the blocks of a page in these languages, or in any, in order."""
    return [b for b in _blocks(page) if not languages or b.language in languages]


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages in these languages."""
    return [block for page in page_names() for block in blocks_of(page, *languages)]


def _blocks(page: str) -> Iterator[Block]:
    text = text_of(page)
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found.group(1), found.group(2), found.group(3))


def tables_of(page: str) -> list[list[list[str]]]:
    """Return the tables of a page: rows of cells, the heading first and the ruler left out."""
    tables: list[list[list[str]]] = []
    inside = False
    for line in text_of(page).splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            tables.append([])
            inside = True
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not all(set(cell) <= set("-: ") and cell for cell in cells):
            tables[-1].append(cells)
    return tables


def table_of(page: str, first_heading: str) -> list[list[str]]:
    """Return the rows, without heading, of the one table whose first column has this heading."""
    [table] = [t for t in tables_of(page) if t and t[0][0] == first_heading]
    return table[1:]


def code_in(cell: str) -> list[str]:
    """Return what stands between backticks in a cell."""
    return re.findall(r"`([^`]*)`", cell)
