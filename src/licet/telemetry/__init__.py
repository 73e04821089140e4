"""What licet tells its operators: logs."""

from __future__ import annotations
