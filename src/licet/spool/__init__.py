"""Takes decisions on record and ships them to PostgreSQL."""

from __future__ import annotations
