"""Decisions on a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import grpc

from licet.client import messages
from licet.client.errors import call_error
from licet.client.requests import AuthorizeRequest
from licet.client.results import Decision
from licet.v1 import authorization_pb2 as pb


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
    try:
        for response in call:
            yield from map(messages.decision, response.responses)
        if failures:
            raise failures[0]
    except grpc.RpcError as exc:
        raise call_error(exc) from exc
    finally:
        # A stream that is left half read can keep the interpreter from ending.
        call.cancel()
