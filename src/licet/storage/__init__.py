"""PostgreSQL: the one that holds the truth, the embedded one, and its schema."""

from __future__ import annotations
