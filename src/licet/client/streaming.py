"""Decisions on a stream."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
from threading import Event
from time import monotonic
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import grpc

from licet.client import messages
from licet.client.errors import call_error
from licet.client.requests import AuthorizeRequest
from licet.client.results import Decision
from licet.v1 import authorization_pb2 as pb

_END_SECONDS: Final = 1.0


class _Threads(NamedTuple):
    """When gRPC's threads have done with a stream: that which sends, and that which receives."""

    sent: Event
    received: Event


# Streams that were left half read. While the interpreter ends, gRPC's threads stop wherever they
# are, and who needs what one of them holds waits for ever; so they are to have done before.
_open: Final[WeakKeyDictionary[Any, _Threads]] = WeakKeyDictionary()


@atexit.register
def _cancel() -> None:
    streams = list(_open.items())
    for call, _ in streams:
        call.cancel()
    end = monotonic() + _END_SECONDS  # a request that never comes is waited for no longer
    for _, threads in streams:
        for done in threads:
            done.wait(max(end - monotonic(), 0.0))


def authorize(
    method: grpc.StreamStreamMultiCallable[pb.StreamAuthorizeRequest, pb.StreamAuthorizeResponse],
    requests: Iterable[AuthorizeRequest],
    timeout: float | None,
) -> Iterator[Decision]:
    """See `Client.authorize_stream`."""
    failures: list[Exception] = []
    threads = _Threads(Event(), Event())

    def outgoing() -> Iterator[pb.StreamAuthorizeRequest]:
        # Runs on a thread of gRPC, which would only log what is raised.
        try:
            for request in requests:
                yield pb.StreamAuthorizeRequest(requests=[messages.authorize_request(request)])
        except Exception as exc:  # noqa: BLE001 - raised below, once everything before is answered
            failures.append(exc)
        finally:
            threads.sent.set()

    call = method(outgoing(), timeout=timeout)
    if call.add_callback(threads.received.set):
        _open[call] = threads
    try:
        for response in call:
            yield from map(messages.decision, response.responses)
        if failures:
            raise failures[0]
    except grpc.RpcError as exc:
        raise call_error(exc) from exc
    finally:
        # A stream that is left half read goes on otherwise.
        call.cancel()
        _open.pop(call, None)
