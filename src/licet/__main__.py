"""`python -m licet` is `licet`."""

from __future__ import annotations

import sys

from licet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
