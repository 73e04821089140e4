"""Which gRPC `hybrid.py` knows: what it uses of that is private, and may change with any release.

Whoever raises grpcio reads `grpc/_server.py` first, as docs/decisions/0035-hybrid-serving.md says.
"""

# ruff: noqa: ANN401, SLF001 - what is private has no types and is what this module is about
from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any, Final

import grpc

server: Final[Any] = import_module("grpc._server")
"""gRPC's server for Python, without types."""
core: Final[Any] = server.cygrpc
"""gRPC's core."""

KNOWN: Final = "1.85."
"""How the versions of grpcio begin whose source was read."""
_STATE: Final = {
    *("completion_queue", "lock", "maximum_concurrent_rpcs", "registered_method_handlers"),
    *("rpc_states", "server", "stage"),
}
_OPERATIONS: Final = "ReceiveCloseOnServer ReceiveMessage SendInitialMetadata SendMessage"
_FUNCTIONS: Final = """
_Context rpc_event state request_deserializer
_process_event_and_continue state event
_request_registered_call state method
"""  # with their parameters


def is_possible(module: Any = server, version: str = grpc.__version__) -> bool:
    """Say whether gRPC is as this module knows it."""
    try:
        functions = [line.split() for line in _FUNCTIONS.strip().splitlines()]
        state = module._ServerState(None, None, (), None, None, None)
        return (
            version.startswith(KNOWN)
            and all(list(signature(getattr(module, f[0])).parameters) == f[1:] for f in functions)
            and all(hasattr(module.cygrpc, f"{name}Operation") for name in _OPERATIONS.split())
            and vars(state).keys() >= _STATE
        )
    except (AttributeError, TypeError, ValueError):
        return False
