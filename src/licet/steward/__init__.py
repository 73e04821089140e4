"""Looks after the audit log: what seals it, and proves it."""

from __future__ import annotations
