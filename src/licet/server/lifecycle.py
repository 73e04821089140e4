"""The gRPC server: built, started, watched and drained."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from time import monotonic
from typing import Final, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from licet.domain.errors import UnavailableError
from licet.server import approval_service, connections, hybrid, known_grpc
from licet.server.approval_service import ApprovalService
from licet.server.attempts import Attempts
from licet.server.audit_service import AuditService
from licet.server.authority import Authority
from licet.server.identity_service import CHANGES, IdentityService
from licet.server.interceptor import Interceptor
from licet.server.lanes import Lane, Shares
from licet.server.limits import ServerLimits, most_calls, options
from licet.server.places import Places
from licet.server.policy_service import PolicyService
from licet.server.service import AuthorizationService, UseCases
from licet.server.socket_file import SocketFile
from licet.server.spans import SpanInterceptor, Spans
from licet.server.streams import Streams
from licet.server.tls import ServerTls
from licet.server.watchers import Watchers
from licet.v1 import (
    approval_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    authorization_pb2,
    identity_pb2,
    identity_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
)
from licet.v1 import authorization_pb2_grpc as pb_grpc

_log: Final = logging.getLogger(__name__)

SERVICE: Final = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"].full_name
AUDIT_SERVICE: Final = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name
IDENTITY_SERVICE: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name
POLICY_SERVICE: Final = policy_pb2.DESCRIPTOR.services_by_name["PolicyService"].full_name
APPROVAL_SERVICE: Final = approval_service.SERVICE
SERVICES: Final = (SERVICE, AUDIT_SERVICE, IDENTITY_SERVICE, POLICY_SERVICE, APPROVAL_SERVICE)
_PROBE_SECONDS: Final = 1.0
# gRPC makes each connection's age longer or shorter by a tenth, so that they do not go together.
_AGE_JITTER: Final = 1.1
# A client has its GOAWAY and has said so: a round trip.
_GOAWAY_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.5
# Whoever shows the sockets of the others is to show another one first.
_UNSEEN_SECONDS: Final = 2.0
_SHOWN_SECONDS: Final = 0.05
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


READS: Final = (
    f"/{SERVICE}/GetCapability",
    f"/{SERVICE}/ListCapabilities",
    f"/{SERVICE}/QueryAudit",
    f"/{AUDIT_SERVICE}/GetCheckpoint",
    f"/{AUDIT_SERVICE}/ProveInclusion",
    f"/{AUDIT_SERVICE}/ProveConsistency",
    *(
        f"/{IDENTITY_SERVICE}/{method}"
        for method in (
            *("ListApiKeys", "GetUser", "ListUsers", "ListSuspensions"),
            *("ListBootstrapTokens", "GetAgent", "ListAgents"),
        )
    ),
    f"/{POLICY_SERVICE}/GetPolicySet",
    f"/{POLICY_SERVICE}/ListPolicySets",
    f"/{APPROVAL_SERVICE}/ListApprovals",
    f"/{APPROVAL_SERVICE}/GetApproval",
)
"""Methods that read, on threads of their own; see `pools_of` for the others that have some."""


AddServices: TypeAlias = Callable[[grpc.Server], None]
"""Adds services of its own to a server that is not started yet."""


class Server:
    """Serves the use cases on one address."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it serves, where and how
        self,
        use_cases: UseCases,
        authority: Authority,
        address: str | None,
        limits: ServerLimits,
        is_ready: Callable[[], bool],
        add_services: AddServices | None = None,
        tls: ServerTls | None = None,
        file: SocketFile | None = None,
        spans: Spans | None = None,
    ) -> None:
        """Bind the address; None: only the Unix socket, if there is a `file` for one.

        That is bound in plain text, and shown to clients by `start`; where the port is shared, by
        whoever knows all processes, from when this one has started.

        `is_ready` says whether decisions can be taken; it may block for a bounded time.
        `add_services` adds further services: a benchmark's, to compare with. Without `tls`, serve
        in plain text; without `spans`, nothing is traced.

        Raises:
            UnavailableError: the address or the socket cannot be bound.
        """
        self.authority = authority
        """Who is let in; read by metrics."""
        self._is_ready = is_ready
        self._limits = limits
        self.tls = tls
        self.spans = spans
        self._health = health.HealthServicer()
        self._is_hybrid = limits.hybrid and _knows_grpc()
        self.decisions = Lane(limits.threads, "rpc", limits.calls, holds=limits.waits_for_disk)
        """The threads of decisions; read by metrics, as the following are."""
        self.reads = Lane(max(limits.threads // 2, 1), "read", limits.calls)
        self.mutations = Places(limits.mutations, "too many changes are being made")
        self.shares = Shares(limits.streams_per_caller)
        self._pools = {**pools_of(limits), **dict.fromkeys(READS, self.reads)}
        self._watch = use_cases.watch
        self._watchers = Watchers(limits.watchers)
        self._exports = Watchers(limits.exports, doing="export the audit log of")
        self._replays = Watchers(limits.replays, doing="replay decisions on")
        self._streams = Streams(limits.streams)
        self._take_calls: Callable[[], None] = lambda: None
        self._grpc = self._serving(use_cases)
        if add_services is not None:
            add_services(self._grpc)
        self._set_health(_NOT_SERVING)
        self.port = 0 if address is None else self._bound(address)
        """The TCP port; 0: there is none."""
        self._file = file
        self._bind_socket()
        self._draining = Event()
        self._prober = Thread(target=self._probe, name="licet-health", daemon=True)

    def _serving(self, use_cases: UseCases) -> grpc.Server:
        """Return gRPC's server with all our services, bound to no address."""
        limits, tls, spans = self._limits, self.tls, self.spans
        service = AuthorizationService(use_cases, self.mutations, self._watchers)
        shared = (self.authority, self._streams, self.shares, self.decisions)
        interceptor = Interceptor(*shared, self._pools)
        server = grpc.server(
            self.decisions,
            interceptors=[interceptor] if spans is None else [SpanInterceptor(spans), interceptor],
            maximum_concurrent_rpcs=most_calls(limits),
            options=options(
                limits, has_age=limits.shares_port or (tls is not None and tls.verifies_clients)
            ),
        )
        pb_grpc.add_AuthorizationServiceServicer_to_server(service, server)
        if self._is_hybrid:
            changing = self._pools[f"/{SERVICE}/Grant"]
            taken = Attempts(*shared, changing, spans=spans).of_service(
                SERVICE, service.hybrid(), service.hybrid_changes(changing)
            )
            self._take_calls = hybrid.take_over(server, taken)
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(
            AuditService(use_cases.prove, self._exports, use_cases.import_audit, self.mutations),
            server,
        )
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(
            IdentityService(use_cases.identity, self.mutations), server
        )
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(
            PolicyService(use_cases.policies, use_cases.replay, self.mutations, self._replays),
            server,
        )
        approval_pb2_grpc.add_ApprovalServiceServicer_to_server(
            ApprovalService(use_cases.approvals, self.mutations), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        return server

    def _bound(self, address: str) -> int:
        """Listen, and return the port. Raises UnavailableError."""
        try:
            if self.tls is None:
                return self._grpc.add_insecure_port(address)
            return self._grpc.add_secure_port(address, self.tls.credentials())
        except RuntimeError as exc:
            message = f"cannot listen on {address}: is another server running there?"
            raise UnavailableError(message) from exc

    def _bind_socket(self) -> None:
        """Listen on a Unix socket that nobody finds yet, if there is to be one."""
        if self._file is None:
            return
        try:
            self._grpc.add_insecure_port(self._file.target(os.getpid()))
            self._file.permit(os.getpid())
        except (RuntimeError, OSError) as exc:
            message = f"LICET_SOCKET: cannot listen on {self._file.bound(os.getpid())}"
            raise UnavailableError(message) from exc

    def _show_socket(self) -> None:
        if self._file is None or self._limits.shares_port:
            return
        try:
            self._file.show(os.getpid())
        except OSError as exc:
            raise UnavailableError(f"LICET_SOCKET: {exc}") from exc

    @property
    def watchers(self) -> Watchers:
        """Those who watch changes; read by metrics."""
        return self._watchers

    @property
    def exports(self) -> Watchers:
        """Those who export the audit log; read by metrics."""
        return self._exports

    @property
    def replays(self) -> Watchers:
        """Those who replay decisions; read by metrics."""
        return self._replays

    @property
    def streams(self) -> Streams:
        """The open streams of decisions; read by metrics."""
        return self._streams

    def start(self) -> None:
        """Serve. Health says SERVING as soon as the first probe succeeded."""
        self._set_health(_SERVING if self._is_ready() else _NOT_SERVING)
        self._watchers.start()
        self._exports.start()
        self._replays.start()
        if self.tls is not None:
            self.tls.start()
        self._grpc.start()
        self._take_calls()
        self._prober.start()
        self._show_socket()

    def hand_over(self, hurried: Callable[[float], bool]) -> None:
        """Leave port, socket and connections to the others that share them; serve all the while.

        New connections go to the others. Of those that are, each reaches its age and is told to go
        (GOAWAY); its client makes another one for its next call. A call that comes after gRPC was
        told to stop would be cancelled, whatever the client: so first they all have to be gone.
        Streams that are open stay, on connections without new calls. Then `drain`.

        Args:
            hurried: waits for so many seconds at most, and says whether to give this up.
        """
        places: list[int | str] = [self.port] if self.port else []
        connections.drop_new(*places)
        if self._file is not None:
            places.append(str(self._file.bound(os.getpid())))
            unseen = monotonic() + _UNSEEN_SECONDS
            while self._file.shows(os.getpid()) and monotonic() < unseen:
                if hurried(_SHOWN_SECONDS):
                    return
        if hurried(connections.SETTLE_SECONDS):
            return
        connections.close_listeners(*places)
        end = monotonic() + self._limits.connection_seconds * _AGE_JITTER + _GOAWAY_SECONDS
        while connections.established(*places) and monotonic() < end:
            if hurried(_LOOK_SECONDS):
                return

    def drain(self, grace_seconds: float) -> None:
        """Say NOT_SERVING, refuse new calls, let those that run end within the grace.

        Then cancel them. Streams, which might never end, are told to go on elsewhere.
        """
        self._draining.set()
        if self._file is not None:
            self._file.remove()
        self.authority.strangers.end()
        self._health.enter_graceful_shutdown()
        self._watch.close()
        self._watchers.drain()
        self._exports.drain()
        self._replays.drain()
        stopped = self._grpc.stop(grace_seconds)
        self._streams.end(stopped)
        stopped.wait()
        self._watchers.stop()
        self._exports.stop()
        self._replays.stop()
        if self.tls is not None:
            self.tls.stop()
        for pool in {*self._pools.values(), self.authority.strangers.lane}:
            pool.shutdown(wait=False, cancel_futures=True)
        self._prober.join(_PROBE_SECONDS)

    def _probe(self) -> None:
        serving: bool | None = None
        while not self._draining.wait(_PROBE_SECONDS):
            ready = self._is_ready()
            if ready != serving:
                serving = ready
                self._set_health(_SERVING if ready else _NOT_SERVING)
                (_log.info if ready else _log.error)(
                    "health: %s", "SERVING" if ready else "NOT_SERVING"
                )

    def _set_health(self, status: int) -> None:
        for service in ("", *SERVICES):
            self._health.set(service, status)


def pools_of(limits: ServerLimits) -> dict[str, ThreadPoolExecutor]:
    """Return the pools of the methods that have one of their own."""
    # A few more threads than places, so that who is over the limit can be told.
    stream, watch, export, replay, mutation = (
        ThreadPoolExecutor(places + 4, thread_name_prefix=f"licet-{kind}")
        for kind, places in (
            ("stream", limits.streams),
            ("watch", limits.watchers),
            ("export", limits.exports),
            ("replay", limits.replays),
            ("mutation", limits.mutations),
        )
    )
    return {
        f"/{SERVICE}/StreamAuthorize": stream,
        f"/{SERVICE}/WatchChanges": watch,
        f"/{SERVICE}/Grant": mutation,
        f"/{SERVICE}/Revoke": mutation,
        f"/{AUDIT_SERVICE}/ExportAudit": export,
        f"/{AUDIT_SERVICE}/ImportAudit": mutation,
        **{f"/{IDENTITY_SERVICE}/{method}": mutation for method in CHANGES},
        f"/{POLICY_SERVICE}/PutPolicySet": mutation,
        f"/{POLICY_SERVICE}/RollbackPolicySet": mutation,
        f"/{POLICY_SERVICE}/TestPolicySet": mutation,
        f"/{APPROVAL_SERVICE}/ResolveApproval": mutation,
        f"/{POLICY_SERVICE}/ReplayPolicySet": replay,
    }


def _knows_grpc() -> bool:
    if known_grpc.is_possible():
        return True
    _log.warning(
        "grpcio %s is not known: each decision is handed to a thread, and holds it",
        grpc.__version__,
    )
    return False
