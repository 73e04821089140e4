"""Policy documents in their own formats: YAML, CEL, time zones. What they mean is in the core."""

from __future__ import annotations
