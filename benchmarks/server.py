"""The server under load, in processes of its own: licet as `licet serve` runs it, or less of it.

`python -m benchmarks.server VARIANT FOLDER` takes its settings from the environment, leaves in the
folder what its clients need, prints a line that ends in its port, and serves until its standard
input ends, which it does with whoever started it, however that ends.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Final
from uuid import uuid4

import grpc
import trustme
from google.protobuf.empty_pb2 import Empty
from typing_extensions import override

from licet import config
from licet.bootstrap.process import Licet, settle
from licet.bootstrap.steward import StewardProcess
from licet.replica.clock import DatabaseClock
from licet.replica.coherence import Memory, Replica
from licet.replica.feed import MemoryFeed
from licet.replica.lease import Lease, boottime
from licet.storage.replicas import PostgresReplicaSession

NO_OP: Final = "licet.bench.NoOp"
NO_OP_METHOD: Final = f"/{NO_OP}/Call"

SOCKET: Final = "socket"
"""In the folder of a server on a Unix socket: that."""
AUTHORITY: Final = "authority.pem"
"""In the folder of a server with TLS: who has signed its certificate."""
CLIENT_CERTIFICATE: Final = "client.pem"
CLIENT_KEY: Final = "client.key"
"""In the folder of a server whose clients have certificates: one of them, with its key."""
_CLIENT: Final = "gate"

ENVIRONMENT: Final = {"GRPC_EXPERIMENTS": "-event_engine_listener"}
"""As `licet serve` has it."""


class Variant(StrEnum):
    """What serves."""

    LICET = "licet"
    """One of several workers, with an RPC that does nothing."""
    UNSYNCED = "unsynced"
    """The same, and decisions on record survive the process's end, but not the machine's."""
    SOCKET = "socket"
    """The second, on a Unix socket as well."""
    TLS = "tls"
    """The first, with a certificate of a CA that nobody knows."""
    MTLS = "mtls"
    """The second, with TLS for clients that have a certificate, too."""
    WITHOUT_PROTOCOL = "without-protocol"
    """The same, but for the replica protocol."""
    STEWARD = "steward"
    """What seals and signs, beside servers of the first two kinds."""
    SUPERVISED = "supervised"
    """`licet serve` itself, with as many workers as LICET_WORKERS says."""
    STOCK = "stock"
    """Nothing but the RPC that does nothing, on gRPC's server as it comes."""


class WithoutProtocol(Licet):
    """Licet with a lease that nobody has to renew: what the replica protocol costs is missing here.

    It never learns of a change, so that nothing but a comparison may use it.
    """

    @override
    def _replica(
        self,
        url: str,
        memory: Memory,
        feed: MemoryFeed,
        lease: Lease,
        clock: DatabaseClock,
    ) -> Replica:
        incarnation, seconds = uuid4(), self._settings.lease_seconds
        session = PostgresReplicaSession(url, socket.gethostname(), seconds, boottime, clock.sample)
        replica = Replica(lambda: session, memory, lease, lambda: incarnation, seconds, (feed,))
        # What it needs to answer from memory: the revision, and the database's clock.
        replica.advance(session)
        session.deregister(incarnation)  # nobody has to wait for it
        session.close()
        lease.extend(inf)
        return replica


def add_no_op(server: grpc.Server) -> None:
    """Add an RPC that does nothing, the way generated code adds those of licet."""
    handlers = {
        "Call": grpc.unary_unary_rpc_method_handler(
            _answer, Empty.FromString, Empty.SerializeToString
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NO_OP, handlers),))
    server.add_registered_method_handlers(NO_OP, handlers)


def _answer(_request: Empty, _context: grpc.ServicerContext) -> Empty:
    return Empty()


def main(variant: Variant, folder: Path) -> None:
    """Serve."""
    match variant:
        case Variant.LICET:
            _serve(Licet)
        case Variant.UNSYNCED:
            _serve(Licet, audit_durability="none")
        case Variant.SOCKET:
            _serve(Licet, socket=folder / SOCKET, audit_durability="none")
        case Variant.TLS:
            _serve(Licet, **_tls(folder))
        case Variant.MTLS:
            _serve(Licet, audit_durability="none", **_tls(folder), **_client_tls(folder))
        case Variant.WITHOUT_PROTOCOL:
            _serve(WithoutProtocol)
        case Variant.STEWARD:
            _keep()
        case Variant.SUPERVISED:
            _supervise()
        case Variant.STOCK:
            _serve_stock()


def _serve_stock() -> None:
    server = grpc.server(ThreadPoolExecutor())
    add_no_op(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


def _tls(folder: Path) -> dict[str, object]:
    """Make a CA and a certificate of the server, and return the settings that name them."""
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(folder / AUTHORITY)
    client = authority.issue_cert(common_name=_CLIENT, key_type=trustme.KeyType.ECDSA)
    client.cert_chain_pems[0].write_to_path(folder / CLIENT_CERTIFICATE)
    client.private_key_pem.write_to_path(folder / CLIENT_KEY)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made.cert_chain_pems[0].write_to_path(certificate)
    made.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return {"tls_cert_file": certificate, "tls_key_file": key}


def _client_tls(folder: Path) -> dict[str, object]:
    callers = folder / "callers.toml"
    callers.write_text(
        f'[[caller]]\nname = "service:gate"\ncommon_name = "{_CLIENT}"\nscopes = ["admin"]\n',
        encoding="utf-8",
    )
    return {"tls_client_ca_file": folder / AUTHORITY, "tls_callers_file": callers}


def _serve(composition: type[Licet], **overrides: object) -> None:
    licet = composition(config.load(**overrides), add_services=add_no_op, has_steward=False).start()
    settle()
    try:
        print(licet.server.port, flush=True)
        sys.stdin.read()
    finally:
        licet.stop()


def _keep() -> None:
    steward = StewardProcess(config.load()).start()
    try:
        print("steward:0", flush=True)
        sys.stdin.read()
    finally:
        steward.stop()


def _supervise() -> None:
    command = [sys.executable, "-m", "licet", "serve"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as serve:
        # Whoever reads it is to see the end of `licet serve`, not of this process.
        os.close(sys.stdout.fileno())
        sys.stdin.read()
        serve.terminate()


if __name__ == "__main__":
    main(Variant(sys.argv[1]), Path(sys.argv[2]))
