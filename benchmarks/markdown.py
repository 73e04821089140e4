"""Prints the last run's figures as the tables of docs/benchmarks.md.

`python -m benchmarks.markdown`, after a run.
"""

from __future__ import annotations

import json
from itertools import groupby

from benchmarks.report import RESULTS, cells, figure_of


def main() -> None:
    """Print a table for each section."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    figures = [figure_of(fields) for fields in content["figures"]]
    for section, members in groupby(figures, key=lambda figure: figure.section):
        print(
            f"\n### {section}\n\n| figure | median | quartiles | target | |\n|---|---|---|---|---|"
        )
        for figure in members:
            print(f"| {' | '.join(cells(figure))} |".replace("|  |", "| |"))


if __name__ == "__main__":
    main()
