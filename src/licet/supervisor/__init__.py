"""Starts, watches, restarts and drains the workers of one host; no gRPC in its process."""

from __future__ import annotations

from licet.supervisor.fleet import Fleet, WorkerError
from licet.supervisor.port import reserved_port
from licet.supervisor.worker import Worker, announce_ready, follow_supervisor, is_worker

__all__ = [
    "Fleet",
    "Worker",
    "WorkerError",
    "announce_ready",
    "follow_supervisor",
    "is_worker",
    "reserved_port",
]
