"""What a server takes at once, and what gRPC is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from licet.server import strangers

# Calls that wait to be told that there are too many.
_REFUSED: Final = 4096


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


def most_calls(limits: ServerLimits) -> int:
    """Return how many calls there may be, whatever they are: gRPC refuses more by itself.

    That is only for memory, and above everything that is refused with a reason: gRPC tells health
    from nothing else.
    """
    waiting = 2 * limits.calls + strangers.MOST + _REFUSED
    streams = limits.streams + limits.watchers + limits.exports + limits.replays
    return waiting + limits.mutations + streams


def options(limits: ServerLimits, *, has_age: bool) -> list[tuple[str, int]]:
    """Return gRPC's options; `has_age`: connections are kept for so many seconds only."""
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
