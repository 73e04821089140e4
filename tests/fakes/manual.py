"""A clock that is moved by hand."""

from __future__ import annotations


class ManualClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        """Start at 100, so that nothing works by chance because the time is 0."""
        self.now = 100.0

    def __call__(self) -> float:
        """Read it."""
        return self.now
