"""The channel and its retries."""

from __future__ import annotations

import json
from itertools import chain, repeat
from threading import Event
from time import monotonic
from typing import Final, TypeVar

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from licet.client.errors import OUTCOME_UNKNOWN, UNCONFIRMED, LicetCallError, call_error
from licet.v1 import audit_service_pb2, authorization_pb2, identity_pb2

SERVICE: Final = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"].full_name
AUDIT_SERVICE: Final = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name
IDENTITY_SERVICE: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name
HEALTH_OF_SERVICE: Final = HealthCheckRequest(service=SERVICE)

# Every call may be repeated: reads and decisions change nothing, and mutations carry a request_id.
# CANCELLED is what a server that shuts down answers to a call that arrives too late. A stream is
# left out: its requests are used up as they are sent.
_REPEATABLE: Final = (
    "Authorize",
    "BatchAuthorize",
    "GetCapability",
    "Grant",
    "ListCapabilities",
    "QueryAudit",
    "Revoke",
)
_REPEATABLE_CALLERS: Final = (
    "CreateApiKey",
    "GetCaller",
    "ListApiKeys",
    "RevokeApiKey",
    "RotateApiKey",
)
_REPEATABLE_PROOFS: Final = ("GetCheckpoint", "ProveInclusion", "ProveConsistency")
_SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [
                *({"service": SERVICE, "method": method} for method in _REPEATABLE),
                *({"service": AUDIT_SERVICE, "method": method} for method in _REPEATABLE_PROOFS),
                *(
                    {"service": IDENTITY_SERVICE, "method": method}
                    for method in _REPEATABLE_CALLERS
                ),
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                # ABORTED: the call lost a race and changed nothing.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED", "ABORTED"],
            },
        }
    ],
    # Where most calls fail, repeating each would make it worse.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}
_OPTIONS: Final = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # A server that restarts is back in a moment; the default would wait for a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A connection that died without a word is noticed while a call waits on it.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # As much as a server can be set to send.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)
_BACKOFF_SECONDS: Final = (0.05, 0.1, 0.2, 0.4)
_LONGEST_BACKOFF_SECONDS: Final = 1.0
_LEAST_TIMEOUT_SECONDS: Final = 0.001
# What says nothing of an earlier attempt.
_TRANSIENT: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED"})

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def open_channel(address: str) -> grpc.Channel:
    """Return a channel, which connects with the first call."""
    return grpc.insecure_channel(address, options=_OPTIONS)


def health_check(
    channel: grpc.Channel,
) -> grpc.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]:
    """Return the call that asks for health."""
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )


def read(
    method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, timeout: float
) -> _Response:
    """Make a call that changes nothing.

    Raises:
        LicetCallError: it was not answered.
    """
    try:
        return method(request, timeout=timeout)
    except grpc.RpcError as exc:
        raise call_error(exc) from exc


def change(
    method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, timeout: float
) -> _Response:
    """Make a call that changes something and may be repeated, until its outcome is known.

    Raises:
        LicetCallError: it failed; with OUTCOME_UNKNOWN, it happened whole or not at all; with
            UNCONFIRMED, it happened and is not confirmed by every replica.
    """
    end = monotonic() + timeout
    pause = Event()  # never set: a bounded wait
    unknown: LicetCallError | None = None
    for backoff in chain(_BACKOFF_SECONDS, repeat(_LONGEST_BACKOFF_SECONDS)):
        try:
            return method(request, timeout=max(end - monotonic(), _LEAST_TIMEOUT_SECONDS))
        except grpc.RpcError as exc:
            error, cause = _honest(call_error(exc)), exc
        if error.reason in {OUTCOME_UNKNOWN, UNCONFIRMED}:
            unknown = error
        elif unknown is None or error.code not in _TRANSIENT:
            # A server that refuses now knows of no earlier success under the same request_id.
            raise error from cause
        if monotonic() + backoff >= end:
            raise unknown from cause
        pause.wait(backoff)
    raise AssertionError  # the backoffs never end


def _honest(error: LicetCallError) -> LicetCallError:
    """Say OUTCOME_UNKNOWN where the deadline passed before the server had answered."""
    if error.code != grpc.StatusCode.DEADLINE_EXCEEDED.name or error.reason:
        return error
    return LicetCallError(
        error.code,
        "the deadline passed before the outcome was known: it happened whole or not at all",
        reason=OUTCOME_UNKNOWN,
    )
