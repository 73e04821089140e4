"""Answers that hold no thread while they wait for the disk.

gRPC's threads end a call when its handler returns. Only a handler that is registered as "not
blocking" may return before, and end the call from any thread; but what gRPC gives it to send a
message with waits until that is sent, and the thread that syncs must wait for no client. So this
module, and no other, calls the function of grpc that its own threads end a call with, which is
private. It looks first whether that is as it knows it; if not, answers wait in their threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import Any, Final, Generic, TypeAlias, TypeVar

import grpc

from licet.app.recording import Acknowledge
from licet.domain.errors import UnavailableError
from licet.server.status import status_of

_log: Final = logging.getLogger(__name__)
_server: Final = import_module("grpc._server")

_FINISH: Final = ["rpc_event", "state", "serialized_response"]
_CONTEXT: Final = {"_rpc_event", "_state"}


End: TypeAlias = Callable[[None], None]
"""Ends a call without a message; given by grpc."""

Deferred: TypeAlias = Callable[[Any, grpc.ServicerContext, End], None]
"""Handles a call: raises and leaves nobody who could answer, or leaves it to a `Reply`."""

_Answer = TypeVar("_Answer")


class Reply(Generic[_Answer]):
    """Answers one call."""

    __slots__ = ("_context", "_end", "_message", "_render")

    def __init__(
        self, context: grpc.ServicerContext, end: End, render: Callable[[_Answer], bytes]
    ) -> None:
        """Answer the call of `context`."""
        self._context = context
        self._end = end
        self._render = render
        self._message = b""

    def prepare(self, answer: _Answer) -> Acknowledge:
        """Render the answer, and return what sends it if nothing prevents it."""
        self._message = self._render(answer)
        return self._told

    def _told(self, error: UnavailableError | None) -> None:
        context: Any = self._context
        try:
            if error is None:
                _server._status(context._rpc_event, context._state, self._message)  # noqa: SLF001 - see the module
            else:
                self._refuse(error)
        except Exception:  # noqa: BLE001 - the client must not wait for ever, nor other clients
            _log.exception("an answer could not be sent")
            context.cancel()

    def _refuse(self, error: UnavailableError) -> None:
        status = status_of(error)
        self._context.set_code(status.code)
        self._context.set_details(status.details)
        self._context.set_trailing_metadata(status.trailing_metadata)
        self._end(None)


def is_possible(server: ModuleType = _server) -> bool:
    """Say whether grpc is as this module knows it."""
    try:
        return (
            list(signature(server._status).parameters) == _FINISH  # noqa: SLF001 - see the module
            and server._Context.__annotations__.keys() >= _CONTEXT  # noqa: SLF001 - see the module
        )
    except (AttributeError, TypeError, ValueError):
        return False
