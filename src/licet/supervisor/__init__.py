"""Starts, watches, restarts and drains the workers of one host; no gRPC in its process."""

from __future__ import annotations

from licet.supervisor.cores import CoresError, check_cores, core_of, keep_to
from licet.supervisor.fleet import Fleet, Patience, WorkerError
from licet.supervisor.port import reserved_port
from licet.supervisor.reports import Reports, follow_supervisor
from licet.supervisor.turns import Turns
from licet.supervisor.worker import Worker

__all__ = [
    "CoresError",
    "Fleet",
    "Patience",
    "Reports",
    "Turns",
    "Worker",
    "WorkerError",
    "check_cores",
    "core_of",
    "follow_supervisor",
    "keep_to",
    "reserved_port",
]
