"""Starts, watches, restarts and drains the workers of one host; no gRPC in its process."""

from __future__ import annotations

from licet.supervisor.fleet import Fleet, Patience, WorkerError
from licet.supervisor.port import reserved_port
from licet.supervisor.reports import Reports, follow_supervisor
from licet.supervisor.worker import Worker, own_core

__all__ = [
    "Fleet",
    "Patience",
    "Reports",
    "Worker",
    "WorkerError",
    "follow_supervisor",
    "own_core",
    "reserved_port",
]
