"""Changes authorization state.

Sends mutations, finds out what became of them, and evicts before it answers.
"""

from __future__ import annotations
