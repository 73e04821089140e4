"""AuditService alone, on a real port, over the audit log of a test's database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from typing_extensions import override

from licet.app.administration import AdminChange, AdminChanges
from licet.app.import_audit import ImportAudit
from licet.app.ports import Applied, Deadline
from licet.app.prove import ProveAudit
from licet.domain.audit_event import AuditEvent
from licet.replica.clock import SystemClock
from licet.server.audit_service import AuditService
from licet.server.interceptor import Interceptor
from licet.server.lanes import Lane, Shares
from licet.server.lifecycle import AUDIT_SERVICE
from licet.server.places import Places
from licet.server.streams import Streams
from licet.server.watchers import Watchers
from licet.storage.pool import Database as Pool
from licet.storage.pool import PoolLimits
from licet.storage.proofs import PostgresSealedLogs
from licet.storage.users import PostgresUsers
from licet.v1.audit_service_pb2_grpc import (
    AuditServiceStub,
    add_AuditServiceServicer_to_server,
)
from licet.writer.ids import TimeOrderedIds
from tests.fakes.callers import open_to_all
from tests.fakes.postgres import Database


@dataclass(frozen=True, slots=True)
class ServedProofs:
    """A server of proofs and a client of it."""

    address: str
    stub: AuditServiceStub
    pool: Pool


class _NoChanges(AdminChanges):
    """Makes none: what is served here is read only."""

    @override
    def make(
        self, change: AdminChange, raise_refusal: Callable[[str], None], deadline: Deadline
    ) -> Applied:
        raise AssertionError

    @override
    def commit(self, change: AdminChange, deadline: Deadline) -> Applied:
        raise AssertionError

    @override
    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        raise AssertionError


@contextmanager
def serving_proofs(
    database: Database,
    public_key: bytes | None = None,
    *,
    exports: int = 2,
    stuck_seconds: float = 60.0,
) -> Iterator[ServedProofs]:
    """Serve the proofs of a database's audit log on a free port of loopback."""
    pool = Pool(database.url, PoolLimits())
    pool.open(30.0)
    export_pool = ThreadPoolExecutor(exports + 4)
    places = Watchers(exports, stuck_seconds, "export the audit log of")
    places.start()
    server = grpc.server(
        ThreadPoolExecutor(4),
        interceptors=[
            Interceptor(
                *(open_to_all(), Streams(1), Shares(2), Lane(4, "rpc", 100)),
                {f"/{AUDIT_SERVICE}/ExportAudit": export_pool},
            )
        ],
    )
    prove = ProveAudit(PostgresSealedLogs(pool), public_key)
    clock = SystemClock()
    imports = ImportAudit(_NoChanges(), clock, TimeOrderedIds(clock), PostgresUsers(pool))
    service = AuditService(prove, places, imports, Places(1, "no change is made here"))
    add_AuditServiceServicer_to_server(service, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with grpc.insecure_channel(address) as channel:
            yield ServedProofs(address, AuditServiceStub(channel), pool)
    finally:
        server.stop(0).wait()
        places.stop()
        export_pool.shutdown(cancel_futures=True)
        pool.close()
