"""The channel and its retries."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from itertools import chain, count, repeat
from pathlib import Path
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

# Every call may be repeated: reads change nothing, a decision that is asked for again takes a token
# or uses an approval and never allows more for it, and mutations carry a request_id.
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
    "ActivateAgent",
    "AgentHeartbeat",
    "CreateBootstrapToken",
    "DeactivateAgent",
    "GetAgent",
    "ListAgents",
    "ListBootstrapTokens",
    "RegisterAgent",
    "RevokeBootstrapToken",
    "RotateAgentToken",
    "CreateApiKey",
    "GetCaller",
    "ListApiKeys",
    "RevokeApiKey",
    "RotateApiKey",
)
_REPEATABLE_AUDIT: Final = ("GetCheckpoint", "ImportAudit", "ProveInclusion", "ProveConsistency")
_SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [
                *({"service": SERVICE, "method": method} for method in _REPEATABLE),
                *({"service": AUDIT_SERVICE, "method": method} for method in _REPEATABLE_AUDIT),
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
_EXHAUSTED: Final = grpc.StatusCode.RESOURCE_EXHAUSTED.name
# What says nothing of an earlier attempt.
_TRANSIENT: Final = frozenset(
    {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", _EXHAUSTED}
)
# How often a server is asked that says when to ask again.
_MOST_ATTEMPTS: Final = 4
# By how much longer than that is waited, by chance, so that not all come back at once.
_SPREAD: Final = 0.2

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


@dataclass(frozen=True, slots=True)
class Tls:
    """How to call a licet by TLS. The files are PEM, and read once, by the client that is made.

    Attributes:
        ca_file: the CAs that may have signed the server's certificate, or that certificate itself.
            The public ones are in a file of the system, on Debian
            /etc/ssl/certs/ca-certificates.crt.
        cert_file: this client's certificate and its chain, where the server asks for one.
        key_file: the certificate's private key; both or none.
        server_name: the name in the server's certificate, where it is not that of the address.
    """

    ca_file: str | os.PathLike[str]
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Refuse a half of a pair. Raises ValueError."""
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("a client's certificate and its key go together")


def open_channel(address: str, tls: Tls | None = None) -> grpc.Channel:
    """Return a channel, which connects with the first call; without `tls`, in plain text.

    Raises:
        OSError: a file of `tls` cannot be read.
    """
    if tls is None:
        return grpc.insecure_channel(address, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        Path(tls.ca_file).read_bytes(),
        None if tls.key_file is None else Path(tls.key_file).read_bytes(),
        None if tls.cert_file is None else Path(tls.cert_file).read_bytes(),
    )
    name = tls.server_name
    override = () if name is None else (("grpc.ssl_target_name_override", name),)
    return grpc.secure_channel(address, credentials, options=(*_OPTIONS, *override))


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
    """Make a call that changes nothing; again, if the server says when, and that is in time.

    Raises:
        LicetCallError: it was not answered.
    """
    end = monotonic() + timeout
    pause = Event()  # never set: a bounded wait
    for attempt in count(1):
        try:
            return method(request, timeout=max(end - monotonic(), _LEAST_TIMEOUT_SECONDS))
        except grpc.RpcError as exc:
            error, cause = call_error(exc), exc
        wait = _told_to_wait(error)
        if wait is None or attempt >= _MOST_ATTEMPTS or monotonic() + wait >= end:
            raise error from cause
        pause.wait(wait)
    raise AssertionError  # the attempts never end


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
    backoffs = chain(_BACKOFF_SECONDS, repeat(_LONGEST_BACKOFF_SECONDS))
    for attempt, backoff in enumerate(backoffs, start=1):
        try:
            return method(request, timeout=max(end - monotonic(), _LEAST_TIMEOUT_SECONDS))
        except grpc.RpcError as exc:
            error, cause = _honest(call_error(exc)), exc
        told = _told_to_wait(error)
        wait = backoff if told is None else max(told, backoff)
        if error.reason in {OUTCOME_UNKNOWN, UNCONFIRMED}:
            unknown = error
        elif unknown is None and (told is None or attempt >= _MOST_ATTEMPTS):
            raise error from cause
        elif error.code not in _TRANSIENT:
            # A server that refuses now knows of no earlier success under the same request_id.
            raise error from cause
        if monotonic() + wait >= end:
            raise (unknown or error) from cause
        pause.wait(wait)
    raise AssertionError  # the backoffs never end


def _told_to_wait(error: LicetCallError) -> float | None:
    """Return for how many seconds to wait because the server asks for it; None: it does not.

    What has a code that the channel repeats was repeated by that already.
    """
    if error.code != _EXHAUSTED or error.retry_after is None:
        return None
    spread = random.uniform(1.0, 1.0 + _SPREAD)  # noqa: S311 - nothing is secret about it
    return error.retry_after.total_seconds() * spread


def _honest(error: LicetCallError) -> LicetCallError:
    """Say OUTCOME_UNKNOWN where the deadline passed before the server had answered."""
    if error.code != grpc.StatusCode.DEADLINE_EXCEEDED.name or error.reason:
        return error
    return LicetCallError(
        error.code,
        "the deadline passed before the outcome was known: it happened whole or not at all",
        reason=OUTCOME_UNKNOWN,
    )
