"""Hybrid serving: gRPC's serving thread answers what needs no waiting; threads of a pool, the rest.

This module, and no other, uses what is private in gRPC, where that is as it was when it was read
(docs/decisions/0035-hybrid-serving.md). It replaces nothing there: it is the pool that gRPC gives
calls to, and receives the message itself instead of having a thread wait for it. Invariants:

- Nothing that is raised here reaches the serving thread: it would end, and nobody would notice.
- Of a call, one message is under way: the next is received when the answer to the last has gone.
- `_RECEIVING` is due while one is being received, and at no other time: so gRPC forgets a call
  that is over, whoever still works on it.
"""

# ruff: noqa: ANN401, SLF001 - what is private has no types and is what this module is about
from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any, Final

import grpc
from typing_extensions import override

from licet.server.identity import want_at_once
from licet.server.lanes import Lane
from licet.server.replies import MAX_BYTES, Attempt, Hybrid, hybrid_of
from licet.server.status import internal

_log: Final = logging.getLogger(__name__)
_grpc: Final[Any] = import_module("grpc._server")

KNOWN: Final = "1.85."
"""How the versions of grpcio begin whose source was read."""
_RECEIVING: Final = "licet_receive_message"
_STATE: Final = {"callbacks", "client", "condition", "due", "initial_metadata_allowed"}
_FUNCTIONS: Final = """
_Context rpc_event state request_deserializer
_is_rpc_state_active state
_possibly_finish_call state token
_status rpc_event state serialized_response
_stream_response_in_pool rpc_event state behavior argument_thunk request_deserializer response_serializer
_unary_response_in_pool rpc_event state behavior argument_thunk request_deserializer response_serializer
"""  # noqa: E501 - with their parameters


def is_possible(server: Any = _grpc, version: str = grpc.__version__) -> bool:
    """Say whether gRPC is as this module knows it."""
    try:
        functions = [line.split() for line in _FUNCTIONS.strip().splitlines()]
        return (
            version.startswith(KNOWN)
            and all(list(signature(getattr(server, f[0])).parameters) == f[1:] for f in functions)
            and vars(server._RPCState()).keys() >= _STATE
        )
    except (AttributeError, TypeError, ValueError):
        return False


class HybridLane(Lane):
    """See the module."""

    @override
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin a call of gRPC, by its serving thread; or run anything else as any lane does."""
        # Not run by `fn`, the call's context: two threads cannot be in that, and messages overlap.
        # What gRPC gives: in_pool, rpc_event, state, behavior, thunk, deserializer, serializer.
        hybrid = hybrid_of(args[3]) if len(args) == 7 else None  # noqa: PLR2004 - these
        if hybrid is None:
            return super().submit(fn, *args, **kwargs)
        context = _grpc._Context(args[1], args[2], args[5])
        call: Any = _Call(hybrid, args[1], args[2], args[5], self.offer, context)
        call.begin()
        return call  # type: ignore[no-any-return] # gRPC only asks it to be told when it is over


@dataclass(slots=True, eq=False)
class _Call:
    """One call. A `Reply`."""

    _hybrid: Hybrid
    _event: Any
    _state: Any
    _deserialize: Callable[[bytes], Any]
    _offer: Callable[..., None]
    _context: grpc.ServicerContext
    _over: Callable[[Any], object] | None = None

    def add_done_callback(self, over: Callable[[Any], object]) -> None:
        self._over = over

    def begin(self) -> None:
        try:
            self._state.callbacks.append(self._finished)
            if self._hybrid.opened is None:
                self._receive()
            else:
                self._attempt(self._hybrid.opened, None)
        except BaseException:  # noqa: BLE001 - see the module
            self._fail()

    def send(self, message: bytes | None = None) -> None:
        try:
            if self._hybrid.opened is None:
                _grpc._status(self._event, self._state, message)
            else:
                self._receive(message)
        except Exception:  # noqa: BLE001 - the caller's thread has others to tell
            self._fail()

    proceed = send

    def end(self, status: grpc.Status) -> None:
        try:
            with self._state.condition:
                if _grpc._is_rpc_state_active(self._state):
                    self._context.set_code(status.code)
                    self._context.set_details(status.details)
                    self._context.set_trailing_metadata(status.trailing_metadata)
                    _grpc._status(self._event, self._state, None)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("a call could not be ended")
            self._event.call.cancel()

    def end_idle(self, status: grpc.Status) -> None:
        with self._state.condition:
            if _RECEIVING in self._state.due:
                self.end(status)

    def _receive(self, answer: bytes | None = None) -> None:
        """Receive a message, after an answer to the last one if there is one."""
        state, operations = self._state, [_grpc.cygrpc.ReceiveMessageOperation(0)]
        with state.condition:
            if not _grpc._is_rpc_state_active(state):
                return
            if answer is not None:
                operations.insert(0, _grpc.cygrpc.SendMessageOperation(answer, 0))
                if state.initial_metadata_allowed:
                    operations.insert(0, _grpc.cygrpc.SendInitialMetadataOperation(None, 0))
                    state.initial_metadata_allowed = False
            self._event.call.start_server_batch(operations, self._received)
            state.due.add(_RECEIVING)

    def _received(self, event: Any) -> Any:
        state = self._state
        try:
            with state.condition:
                state.due.remove(_RECEIVING)
            raw = event.batch_operations[-1].message()
            active = _grpc._is_rpc_state_active(state)
            if active and raw is None:
                self._half_closed()
            elif active:
                message = self._deserialize(raw)
                self._attempt(self._hybrid.message, message, at_once=len(raw) <= MAX_BYTES)
        except BaseException:  # noqa: BLE001 - see the module
            self._fail()
        with state.condition:
            if _RECEIVING in state.due:
                return None, ()
            state.due.add(_RECEIVING)
            return _grpc._possibly_finish_call(state, _RECEIVING)

    def _half_closed(self) -> None:
        """End a stream; or a call that has no message, in gRPC's words."""
        if self._hybrid.opened is None:
            method = self._event.call_details.method
            self._context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            self._context.set_details(f'"{method}" requires exactly one request message.')
        with self._state.condition:
            self._state.client = _grpc._CLOSED
            _grpc._status(self._event, self._state, None)

    def _attempt(self, step: Attempt, message: Any, *, at_once: bool = True) -> None:
        if at_once:
            want_at_once(self._context, at_once=True)
            at_once = step(message, self._context, self)
        if not at_once:
            self._offer(self._run, self.end, step, message)

    def _run(self, step: Attempt, message: Any) -> None:
        """Attempt it on a thread that may wait."""
        try:
            want_at_once(self._context, at_once=False)
            if self._context.is_active() and not step(message, self._context, self):
                self.end(internal())  # a bug: it may wait
        except BaseException:  # noqa: BLE001 - the client must not wait for ever
            self._fail()

    def _fail(self) -> None:
        _log.exception("answering a call failed on a bug")
        self.end(internal())

    def _finished(self) -> None:
        self._hybrid.closed(self)
        if self._over is not None:
            self._over(self)
