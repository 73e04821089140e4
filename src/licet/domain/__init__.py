"""What licet does, without I/O: names, patterns, capabilities, decisions, audit events, errors."""

from __future__ import annotations
