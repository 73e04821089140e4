"""The command `licet`; it starts at `main.py`, and each group of commands is a module.

No module that is imported to parse a command line imports gRPC or PostgreSQL: what a command
needs is imported when it runs.
"""

from __future__ import annotations
