"""Hybrid serving: gRPC's serving thread answers what needs no waiting; threads of a lane, the rest.

It alone uses what is private in gRPC (`known_grpc.py`, docs/decisions/0043), and replaces nothing.

- Nothing that is raised here reaches the serving thread: it would end, and nobody would notice.
- Of a call, one message is under way: the next is received when the answer to the last has gone.
- A call is among gRPC's until it has ended and no batch of its operations is under way: so gRPC
  stops when the last is over, and forgets one that is over, whoever still works on it.
"""

# ruff: noqa: ANN401, SLF001 - what is private has no types and is what this module is about
from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final

import grpc

from licet.server.bunches import EXPECTED, Bunch
from licet.server.known_grpc import core as _core
from licet.server.known_grpc import server as _grpc
from licet.server.replies import Answers, CallState, Makes, as_sent, failed

_log: Final = logging.getLogger(__name__)
_NOTHING: Final = (None, ())  # what gRPC wants of a tag: what is over, and what to run then


def take_over(server: grpc.Server, methods: Mapping[str, Makes]) -> Callable[[], None]:
    """Take the calls of methods of a server that is not started; return what begins it then."""
    handlers = (state := server._state).registered_method_handlers  # type: ignore[attr-defined]
    bunch = Bunch()
    taken = [_Method(state, n, makes(handlers.pop(n)), bunch) for n, makes in methods.items()]

    def begin() -> None:
        for method in taken:
            with state.lock:  # before a stop, or after it: then there is nothing to be told of
                if all(method.expect() for _ in range(EXPECTED)):
                    state.rpc_states.add(method)  # gRPC stops when it is told that this has

    return begin  # calls that come before wait for it


class _Method:
    """A method; the tag with which its calls come."""

    def __init__(self, state: Any, name: str, answers: Answers, bunch: Bunch) -> None:
        self._name, self._state, self.answers, self.bunch = name, state, answers, bunch
        self.is_stream = answers.is_stream
        self._expected = EXPECTED  # changed by the serving thread alone
        self.send = _Call.proceed if self.is_stream else _Call.finish

    def expect(self) -> bool:
        """Have the next call come here. False: the server is going, and there is none."""
        state, queue = self._state, self._state.completion_queue
        with state.lock:
            if is_serving := state.stage is _grpc._ServerStage.STARTED:
                state.server.request_registered_call(queue, queue, self._name, self)
        return is_serving

    def __call__(self, event: Any) -> Any:
        """Begin a call."""
        if event.success:
            self._begin(event)
            try:
                if self.expect():
                    return _NOTHING
            except BaseException:  # noqa: BLE001 - see the module
                _log.critical("fewer calls of %s are taken", self._name, exc_info=True)
        self._expected -= 1
        return (None if self._expected else self), ()

    def _begin(self, event: Any) -> None:
        try:
            (calls := self._state.rpc_states).add(call := _Call(self, event))
            has_room = len(calls) <= self._state.maximum_concurrent_rpcs
            try:
                (self.answers.begin if has_room else self.answers.refuse)(call)
            except BaseException:  # noqa: BLE001 - see the module
                failed(call)
            self.bunch.begun(call, is_awaited=call._is_receiving and not self.is_stream)
        except BaseException:  # noqa: BLE001 - see the module
            _log.exception("a call of %s could not be begun", self._name)
            event.call.cancel()  # raises nothing


class _Call(CallState, _grpc._Context):  # type: ignore[misc] # see above
    """A `Call`, and its own context: what that is asked, it answers from `_rpc_event`."""

    _under_way = 0  # batches of operations
    _is_receiving = _is_watched = _has_metadata = False
    licet_at_once = licet_counted = licet_is_stranger = False  # for `identity.py`: misses cost

    def __init__(self, method: _Method, event: Any) -> None:
        self._rpc_event, self._method = event, method
        self._operate = event.call.start_server_batch
        self._mutex = Lock()  # guards its state; held for microseconds

    def _start(self, operations: Any, tag: Callable[[Any], Any]) -> None:
        if error := self._operate(operations, tag):  # then the tag never comes
            raise RuntimeError(f"gRPC refused a batch of operations: {error}")
        self._under_way += 1

    def send(self, message: bytes) -> None:
        (method := self._method).bunch.send(self, message, is_stream=method.is_stream)

    def deliver(self, message: bytes) -> None:
        try:
            self._method.send(self, message)
        except BaseException:  # noqa: BLE001 - see the module
            failed(self)

    def mark(self) -> None:
        with self._mutex:
            self._start((), self._met)

    def proceed(self, answer: bytes | None = None) -> None:
        operations = [_core.ReceiveMessageOperation(0)]
        with self._mutex:
            if self._is_cancelled or self._status:
                return
            if answer is not None:
                operations.append(_core.SendMessageOperation(answer, 0))
                if not self._has_metadata:
                    operations.append(_core.SendInitialMetadataOperation(None, 0))
                    self._has_metadata = True
            self._start(operations, self._received)
            self._is_receiving = True

    def end(self, status: grpc.Status) -> None:
        try:
            self.finish(None, as_sent(status))
        except BaseException:  # noqa: BLE001 - see the module
            _log.exception("a call could not be ended")
            self._give_up()

    def _give_up(self) -> None:
        try:
            self.cancel()
            with self._mutex:
                self._is_cancelled = True
                if self._ending is not None:
                    self._start((), self._done)  # so that it is forgotten as any other is
        except BaseException:  # noqa: BLE001 - see the module
            _log.exception("a call could not be given up")

    def end_idle(self, status: grpc.Status) -> None:
        with self._mutex:
            is_idle, self._is_receiving = self._is_receiving, False
        if is_idle:
            self.end(status)

    def watch(self) -> None:
        with self._mutex:
            if self.is_active() and not self._is_watched:
                self._start((_core.ReceiveCloseOnServerOperation(0),), self._gone)
                self._is_watched = True

    def finish(self, answer: bytes | None = None, status: Any = None) -> None:
        operations = [_core.SendStatusFromServerOperation(*(status := status or self._ok), 0)]
        if answer is not None:
            operations.append(_core.SendMessageOperation(answer, 0))
        with self._mutex:
            if self._is_cancelled or self._status:
                return
            if not self._has_metadata:
                operations.append(_core.SendInitialMetadataOperation(None, 0))
            if not self._is_watched:
                operations.append(_core.ReceiveCloseOnServerOperation(0))
            self._start(operations, self._done)
            self._status = status

    def _met(self, event: Any) -> Any:
        self._method.bunch.flush()
        return self._done(event)

    def _received(self, event: Any) -> Any:
        (method := self._method).bunch.awaited.discard(self)
        with self._mutex:
            is_wanted, self._is_receiving = self._is_receiving and self.is_active(), False
        try:
            if is_wanted:
                method.answers.receive(self, event.batch_operations[0].message())
        except BaseException:  # noqa: BLE001 - see the module
            failed(self)
        return self._done(event)

    def _gone(self, event: Any) -> Any:
        return self._done(event, is_cancelled=event.batch_operations[0].cancelled())

    def _done(self, _event: Any, *, is_cancelled: bool = False) -> Any:
        with self._mutex:
            self._under_way -= 1
            self._is_cancelled |= is_cancelled
            if self._under_way or self._ending is None or self.is_active():
                return _NOTHING
            ending, self._ending = self._ending, None
        return self, ending or ()
