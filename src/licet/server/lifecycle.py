"""The gRPC server: built, started, watched and drained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from typing import Final, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from licet.domain.errors import UnavailableError
from licet.server import approval_service, connections, hybrid, known_grpc, strangers
from licet.server.approval_service import ApprovalService
from licet.server.attempts import Attempts
from licet.server.audit_service import AuditService
from licet.server.authority import Authority
from licet.server.identity_service import CHANGES, IdentityService
from licet.server.interceptor import Interceptor
from licet.server.lanes import Lane, Shares
from licet.server.places import Places
from licet.server.policy_service import PolicyService
from licet.server.service import AuthorizationService, UseCases
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
# Calls that wait to be told that there are too many.
_REFUSED: Final = 4096
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


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What the server takes at once.

    Attributes:
        threads: decisions that run at once; half as many reads do.
        calls: decisions under way at once, those that wait included, and as many reads.
        mutations: changes at once, those that wait for the replicas included.
        streams: streams open at once.
        streams_per_caller: of those, watches, exports and replays together, that one caller has.
        watchers: clients that watch changes at once.
        exports: clients that export the audit log at once.
        replays: clients that replay decisions at once.
        message_bytes: the largest message, either way.
        connections: open at once.
        connection_calls: calls at once on one connection.
        shares_port: other workers of this host listen on the same port.
        connection_seconds: how long a connection is kept where the port is shared, or clients have
            certificates.
        hybrid: decisions from memory hold no thread, nor do changes that wait, where gRPC's
            version is known.
        waits_for_disk: decisions leave when they are on the disk.
    """

    threads: int = 16
    calls: int = 1024
    mutations: int = 256
    streams: int = 256
    streams_per_caller: int = 128
    watchers: int = 64
    exports: int = 4
    replays: int = 2
    message_bytes: int = 4 * 1024 * 1024
    connections: int = 4096
    connection_calls: int = 256
    shares_port: bool = False
    connection_seconds: float = 30.0
    hybrid: bool = True
    waits_for_disk: bool = True


class Server:
    """Serves the use cases on one address."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it serves, where and how
        self,
        use_cases: UseCases,
        authority: Authority,
        address: str,
        limits: ServerLimits,
        is_ready: Callable[[], bool],
        add_services: AddServices | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        """Bind the address.

        `is_ready` says whether decisions can be taken; it may block for a bounded time.
        `add_services` adds further services: a benchmark's, to compare with. Without `tls`, serve
        in plain text.

        Raises:
            UnavailableError: the address cannot be bound.
        """
        self.authority = authority
        """Who is let in; read by metrics."""
        self._is_ready = is_ready
        self._limits = limits
        self.tls = tls
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
        self.port = self._bound(address)
        self._draining = Event()
        self._prober = Thread(target=self._probe, name="licet-health", daemon=True)

    def _serving(self, use_cases: UseCases) -> grpc.Server:
        """Return gRPC's server with all our services, bound to no address."""
        limits, tls = self._limits, self.tls
        service = AuthorizationService(use_cases, self.mutations, self._watchers)
        shared = (self.authority, self._streams, self.shares, self.decisions)
        interceptor = Interceptor(*shared, self._pools)
        server = grpc.server(
            self.decisions,
            interceptors=[interceptor],
            maximum_concurrent_rpcs=_most(limits),
            options=_options(
                limits, has_age=limits.shares_port or (tls is not None and tls.verifies_clients)
            ),
        )
        pb_grpc.add_AuthorizationServiceServicer_to_server(service, server)
        if self._is_hybrid:
            changing = self._pools[f"/{SERVICE}/Grant"]
            taken = Attempts(*shared, changing).of_service(
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
        reflection.enable_server_reflection(
            (
                *SERVICES,
                *(health.SERVICE_NAME, reflection.SERVICE_NAME),
            ),
            server,
        )
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

    def hand_over(self, hurried: Callable[[float], bool]) -> None:
        """Leave the port and every connection to the others that share it; serve all the while.

        New connections go to the others. Of those that are, each reaches its age and is told to go
        (GOAWAY); its client makes another one for its next call. A call that comes after gRPC was
        told to stop would be cancelled, whatever the client: so first they all have to be gone.
        Streams that are open stay, on connections without new calls. Then `drain`.

        Args:
            hurried: waits for so many seconds at most, and says whether to give this up.
        """
        connections.drop_new(self.port)
        if hurried(connections.SETTLE_SECONDS):
            return
        connections.close_listeners(self.port)
        end = monotonic() + self._limits.connection_seconds * _AGE_JITTER + _GOAWAY_SECONDS
        while connections.established(self.port) and monotonic() < end:
            if hurried(_LOOK_SECONDS):
                return

    def drain(self, grace_seconds: float) -> None:
        """Say NOT_SERVING, refuse new calls, let those that run end within the grace.

        Then cancel them. Streams, which might never end, are told to go on elsewhere.
        """
        self._draining.set()
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


def _most(limits: ServerLimits) -> int:
    """Return how many calls there may be, whatever they are: gRPC refuses more by itself.

    That is only for memory, and above everything that is refused with a reason: gRPC tells health
    from nothing else.
    """
    waiting = 2 * limits.calls + strangers.MOST + _REFUSED
    streams = limits.streams + limits.watchers + limits.exports + limits.replays
    return waiting + limits.mutations + streams


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


def _options(limits: ServerLimits, *, has_age: bool) -> list[tuple[str, int]]:
    return [
        # Two servers on one port would each get a part of the calls: what workers of one
        # supervisor want, and what nobody else would notice.
        ("grpc.so_reuseport", int(limits.shares_port)),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_concurrent_streams", limits.connection_calls),
        # One more is closed at once, before TLS.
        ("grpc.max_allowed_incoming_connections", limits.connections),
        # A client may ping an idle connection this often before it is taken for a flood.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        # A client that vanished without a word gives its streams back within a minute.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # So that others can take the connections; and where clients have certificates, so that
        # those of a CA that is trusted no more are gone soon.
        *([("grpc.max_connection_age_ms", int(limits.connection_seconds * 1000))] * has_age),
    ]
