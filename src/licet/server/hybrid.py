"""Hybrid serving: gRPC's serving thread answers what needs no waiting; threads of a lane, the rest.

This module, and no other, uses what is private in gRPC, where that is as it was when it was read
(docs/decisions/0035-hybrid-serving.md). It replaces nothing there: of a few methods it takes the
calls itself, as the tag that gRPC's serving thread hands each event to. Invariants:

- Nothing that is raised here reaches the serving thread: it would end, and nobody would notice.
- Of a call, one message is under way: the next is received when the answer to the last has gone.
- A call is among gRPC's as long as an operation of it is under way, and no longer: so gRPC stops
  when the last is over, and forgets one that is over, whoever still works on it.
"""

# ruff: noqa: ANN401, SLF001 - what is private has no types and is what this module is about
from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from inspect import signature
from threading import Lock
from typing import Any, Final, TypeAlias

import grpc
from typing_extensions import override

from licet.domain.errors import ExhaustedError
from licet.server.identity import want_at_once
from licet.server.lanes import TOO_MANY
from licet.server.replies import MAX_BYTES, Attempt, Hybrid
from licet.server.status import internal, status_of

_log: Final = logging.getLogger(__name__)
_grpc: Final[Any] = import_module("grpc._server")
_core: Final[Any] = _grpc.cygrpc

KNOWN: Final = "1.85."
"""How the versions of grpcio begin whose source was read."""
_STATE: Final = frozenset(
    {"completion_queue", "maximum_concurrent_rpcs", "registered_method_handlers", "rpc_states"}
    | {"server"}
)
_FUNCTIONS: Final = """
_Context rpc_event state request_deserializer
_process_event_and_continue state event
_request_registered_call state method
"""  # with their parameters
_OPERATIONS: Final = (
    *("ReceiveCloseOnServerOperation", "ReceiveMessageOperation", "SendInitialMetadataOperation"),
    *("SendMessageOperation", "SendStatusFromServerOperation"),
)
_OK: Final[Any] = grpc.StatusCode.OK.value[0]
_CONTINUE: Final = (None, ())
_Told: TypeAlias = "tuple[object, Iterable[Callable[[], object]]]"
"""What gRPC wants of a tag: the call that is over, and what to run then."""


def is_possible(server: Any = _grpc, version: str = grpc.__version__) -> bool:
    """Say whether gRPC is as this module knows it."""
    try:
        functions = [line.split() for line in _FUNCTIONS.strip().splitlines()]
        state = server._ServerState(None, None, (), None, None, None)
        return (
            version.startswith(KNOWN)
            and all(list(signature(getattr(server, f[0])).parameters) == f[1:] for f in functions)
            and all(hasattr(server.cygrpc, name) for name in _OPERATIONS)
            and vars(state).keys() >= _STATE
        )
    except (AttributeError, TypeError, ValueError):
        return False


def take_over(
    server: grpc.Server, methods: Mapping[str, Callable[[Any], Hybrid]]
) -> Callable[[], None]:
    """Take the calls of some methods, which were added to a server that is not started.

    Args:
        server: gRPC's.
        methods: of each, what says how it is answered, from the handler that was added.

    Returns:
        What begins it, once the server has started. Calls that come before wait for it.
    """
    state: Any = server._state  # type: ignore[attr-defined]
    handlers = state.registered_method_handlers
    served = [_Method(state, name, hybrid(handlers.pop(name))) for name, hybrid in methods.items()]

    def begin() -> None:
        for one in served:
            if one.expect():
                state.rpc_states.add(one)  # gRPC has not stopped before it is told that this has

    return begin


class _Method:
    """A method; the tag with which its calls come."""

    def __init__(self, state: Any, name: str, hybrid: Hybrid) -> None:
        self._name = name
        self._state = state
        # Read and changed by the serving thread alone, but for the method's own place.
        self._calls: set[object] = state.rpc_states
        self.hybrid = hybrid

    def expect(self) -> bool:
        """Have the next call come here. False: the server is going, and there is none."""
        state = self._state
        with state.lock:
            if state.stage is not _grpc._ServerStage.STARTED:
                return False
            queue = state.completion_queue
            state.server.request_registered_call(queue, queue, self._name, self)
        return True

    def forget(self, call: object) -> None:
        """Have gRPC not wait for a call."""
        self._calls.discard(call)

    def __call__(self, event: Any) -> _Told:
        """Begin a call."""
        if not event.success:
            return self, ()  # the server is going
        try:
            call = _Call(self, event)
            most = self._state.maximum_concurrent_rpcs
            is_full = most is not None and len(self._calls) >= most
            self._calls.add(call)
            if is_full:
                call.end(status_of(ExhaustedError(TOO_MANY)))
            else:
                call.begin()
        except BaseException:  # noqa: BLE001 - see the module
            _log.exception("a call could not be begun")
        try:
            return _CONTINUE if self.expect() else (self, ())
        except BaseException:  # noqa: BLE001 - see the module
            _log.critical("no more calls of %s are taken", self._name, exc_info=True)
        return self, ()


class _Call(_grpc._Context):  # type: ignore[misc] # see above
    """One call: its context, which answers what it is asked from `_rpc_event`; and a `Reply`."""

    def __init__(self, method: _Method, event: Any) -> None:
        super().__init__(event, None, None)
        self._method = method
        self._operate = event.call.start_server_batch
        # Guards the following; held for microseconds.
        self._mutex = Lock()
        self._under_way = 0  # batches of operations
        self._is_receiving = False
        self._is_watched = False  # whether the client's going is told
        self._is_answered = False  # whether initial metadata has gone
        self._is_cancelled = False
        self._has_status = False
        self._ending: list[Callable[[], object]] | None = []

    @override
    def is_active(self) -> bool:
        return not (self._is_cancelled or self._has_status)

    @override
    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._mutex:
            if self._ending is None:
                return False
            self._ending.append(callback)
            return True

    def begin(self) -> None:
        try:
            opened = self._method.hybrid.opened
            if opened is None:
                self._receive()
            else:
                self._watch()
                self._ending = [self._closed]
                self._attempt(opened, b"")
        except BaseException:  # noqa: BLE001 - see the module
            self._fail()

    def proceed(self) -> None:
        self.send(None)

    def send(self, message: bytes | None) -> None:
        try:
            if self._method.hybrid.opened is None:
                self._finish(_OK, b"", None, message)
            else:
                self._receive(message)
        except Exception:  # noqa: BLE001 - the caller's thread has others to tell
            self._fail()

    def end(self, status: grpc.Status) -> None:
        try:
            details = status.details.encode()
            self._finish(status.code.value[0], details, status.trailing_metadata)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("a call could not be ended")
            self._give_up()

    def end_idle(self, status: grpc.Status) -> None:
        if self._is_receiving:
            self.end(status)

    def _finish(
        self, code: Any, details: bytes, metadata: Any, message: bytes | None = None
    ) -> None:
        """End the call: the answer if there is one, and its status."""
        operations = [_core.SendStatusFromServerOperation(metadata, code, details, 0)]
        if message is not None:
            operations.append(_core.SendMessageOperation(message, 0))
        with self._mutex:
            if self._is_cancelled or self._has_status:
                return
            if not self._is_answered:
                operations.append(_core.SendInitialMetadataOperation(None, 0))
            if not self._is_watched:
                operations.append(_core.ReceiveCloseOnServerOperation(0))
            self._operate(operations, self._done)
            self._under_way += 1
            self._has_status = True

    def _receive(self, answer: bytes | None = None) -> None:
        """Receive a message, after an answer to the last one if there is one."""
        operations = [_core.ReceiveMessageOperation(0)]
        with self._mutex:
            if self._is_cancelled or self._has_status:
                return
            if answer is not None:
                operations.insert(0, _core.SendMessageOperation(answer, 0))
                if not self._is_answered:
                    operations.insert(0, _core.SendInitialMetadataOperation(None, 0))
                    self._is_answered = True
            self._operate(operations, self._received)
            self._under_way += 1
            self._is_receiving = True

    def _watch(self) -> None:
        """Be told if the client goes: worth its price where an answer takes a while."""
        with self._mutex:
            if not (self._is_watched or self._has_status):
                self._operate((_core.ReceiveCloseOnServerOperation(0),), self._gone)
                self._under_way += 1
                self._is_watched = True

    def _gone(self, event: Any) -> _Told:
        self._is_cancelled = event.batch_operations[0].cancelled()
        return self._done(event)

    def _received(self, event: Any) -> _Told:
        self._is_receiving = False
        try:
            raw = event.batch_operations[-1].message()
            if raw is None:
                self._half_closed()
            elif self.is_active():
                self._attempt(self._method.hybrid.message, raw)
        except BaseException:  # noqa: BLE001 - see the module
            self._fail()
        return self._done(event)

    def _done(self, _event: Any) -> _Told:
        with self._mutex:
            self._under_way -= 1
            if self._under_way or not (self._is_cancelled or self._has_status):
                return _CONTINUE
            ending, self._ending = self._ending, None
        return self, ending or ()

    def _half_closed(self) -> None:
        """End a stream; or a call that has no message, in gRPC's words."""
        if self._method.hybrid.opened is not None:
            self._finish(_OK, b"", None)
        else:
            self._finish(
                grpc.StatusCode.UNIMPLEMENTED.value[0],
                b"\"b''\" requires exactly one request message.",
                None,
            )

    def _give_up(self) -> None:
        self.cancel()
        with self._mutex:
            is_over = not self._under_way and self._ending is not None
            if is_over:
                self._ending = None  # nothing will be heard of it
        if is_over:
            self._method.forget(self)

    def _attempt(self, step: Attempt, raw: bytes) -> None:
        hybrid = self._method.hybrid
        if len(raw) <= MAX_BYTES:
            want_at_once(self, at_once=True)
            if step(hybrid.deserialize(raw), self, self):
                return
        self._watch()
        hybrid.elsewhere(self)(self._run, self.end, step, raw)

    def _run(self, step: Attempt, raw: bytes) -> None:
        """Attempt it on a thread that may wait."""
        try:
            want_at_once(self, at_once=False)
            if self.is_active() and not step(self._method.hybrid.deserialize(raw), self, self):
                self.end(internal())  # a bug: it may wait
        except BaseException:  # noqa: BLE001 - the client must not wait for ever
            self._fail()

    def _fail(self) -> None:
        _log.exception("answering a call failed on a bug")
        self.end(internal())

    def _closed(self) -> None:
        self._method.hybrid.closed(self)
