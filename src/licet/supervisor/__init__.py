"""Starts, watches, restarts and drains the workers of one host; no gRPC in its process."""

from __future__ import annotations

from licet.supervisor.fleet import Fleet, WorkerError
from licet.supervisor.port import reserved_port

__all__ = ["Fleet", "WorkerError", "reserved_port"]
