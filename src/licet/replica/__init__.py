"""What a replica answers from: the capability sets in its memory."""

from __future__ import annotations
