"""Prints the last run's figures as the tables of docs/benchmarks.md.

`python -m benchmarks.markdown`, after a run.
"""

from __future__ import annotations

import json

from benchmarks.report import JSON, RESULTS, markdown


def main() -> None:
    """Print a table for each section."""
    print(markdown(json.loads((RESULTS / JSON).read_text(encoding="utf-8"))), end="")


if __name__ == "__main__":
    main()
