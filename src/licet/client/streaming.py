"""Decisions on a stream."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
from typing import Any, Final
from weakref import WeakSet

import grpc

from licet.client import messages
from licet.client.errors import call_error
from licet.client.requests import AuthorizeRequest
from licet.client.results import Decision
from licet.v1 import authorization_pb2 as pb

# Streams that were left half read. While the interpreter ends, gRPC's threads have stopped, and to
# cancel one then may wait for them for ever; so it is done before.
_open: Final[WeakSet[Any]] = WeakSet()


@atexit.register
def _cancel() -> None:
    for call in list(_open):
        call.cancel()


def authorize(
    method: grpc.StreamStreamMultiCallable[pb.StreamAuthorizeRequest, pb.StreamAuthorizeResponse],
    requests: Iterable[AuthorizeRequest],
    timeout: float | None,
) -> Iterator[Decision]:
    """See `Client.authorize_stream`."""
    failures: list[Exception] = []

    def outgoing() -> Iterator[pb.StreamAuthorizeRequest]:
        # Runs on a thread of gRPC, which would only log what is raised.
        try:
            for request in requests:
                yield pb.StreamAuthorizeRequest(requests=[messages.authorize_request(request)])
        except Exception as exc:  # noqa: BLE001 - raised below, once everything before is answered
            failures.append(exc)

    call = method(outgoing(), timeout=timeout)
    _open.add(call)
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
        _open.discard(call)
