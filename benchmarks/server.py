"""The server under load, a process of its own: licet as `licet serve` runs it, and one RPC more.

`python -m benchmarks.server CORE` takes its settings from the environment, prints its port, and
serves until its standard input ends, which it does with whoever started it, however that ends.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import grpc
from google.protobuf.empty_pb2 import Empty

from licet import config
from licet.bootstrap import Licet, settle

NO_OP: Final = "licet.bench.NoOp"
NO_OP_METHOD: Final = f"/{NO_OP}/Call"

ENVIRONMENT: Final = {"GRPC_EXPERIMENTS": "-event_engine_listener"}
"""As `licet serve` has it."""


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


def main(core: int) -> None:
    """Serve on one core."""
    os.sched_setaffinity(0, {core})
    licet = Licet(config.load(), add_services=add_no_op).start()
    settle()
    try:
        print(licet.server.port, flush=True)
        sys.stdin.read()
    finally:
        licet.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
