"""The one way in which the embedded PostgreSQL fails."""

from __future__ import annotations


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot run here; the message tells a person why, and what to do.

    No server is left running and no lock is held.
    """
