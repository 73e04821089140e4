"""How a command fails."""

from __future__ import annotations


class CommandError(Exception):
    """The command cannot do what it was asked; the message is one line for a person."""
