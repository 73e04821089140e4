"""Which gRPC status each error has; the only place that knows both.

Every status carries google.rpc details.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Final, NamedTuple, cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from licet.domain.errors import (
    ConflictError,
    DeadlineError,
    ExhaustedError,
    ForbiddenError,
    HistoryUnconfirmedError,
    InvalidRequestError,
    LicetError,
    NotAsSealedError,
    NotFoundError,
    NotPermittedError,
    NotSealedError,
    OutcomeUnknownError,
    OutOfRangeError,
    PreconditionError,
    RateLimitedError,
    RefusedError,
    RequestIdReusedError,
    SlowConsumerError,
    UnauthenticatedError,
    UnavailableError,
    UnconfirmedError,
)

DOMAIN: Final = "licet"
"""ErrorInfo.domain of every error."""

CODES: Final[dict[type[LicetError], int]] = {
    InvalidRequestError: Code.INVALID_ARGUMENT,
    UnauthenticatedError: Code.UNAUTHENTICATED,
    ForbiddenError: Code.PERMISSION_DENIED,
    NotFoundError: Code.NOT_FOUND,
    NotPermittedError: Code.PERMISSION_DENIED,
    PreconditionError: Code.FAILED_PRECONDITION,
    HistoryUnconfirmedError: Code.FAILED_PRECONDITION,
    NotSealedError: Code.FAILED_PRECONDITION,
    NotAsSealedError: Code.DATA_LOSS,
    RequestIdReusedError: Code.ALREADY_EXISTS,
    ConflictError: Code.ABORTED,
    OutOfRangeError: Code.OUT_OF_RANGE,
    ExhaustedError: Code.RESOURCE_EXHAUSTED,
    RateLimitedError: Code.RESOURCE_EXHAUSTED,
    SlowConsumerError: Code.RESOURCE_EXHAUSTED,
    UnavailableError: Code.UNAVAILABLE,
    DeadlineError: Code.DEADLINE_EXCEEDED,
    OutcomeUnknownError: Code.DEADLINE_EXCEEDED,
    UnconfirmedError: Code.DEADLINE_EXCEEDED,
}

_RETRY_MILLISECONDS: Final[dict[type[LicetError], int]] = {
    ConflictError: 20,
    NotSealedError: 1000,
    ExhaustedError: 1000,
    SlowConsumerError: 20,
    UnavailableError: 250,
}

_PARTS: Final = 100

INTERNAL_MESSAGE: Final = "internal error"
"""All that a client learns of a bug; the log has the rest."""


def status_of(error: LicetError) -> grpc.Status:
    """Return the status of an error, with its details."""
    if isinstance(error, UnauthenticatedError):
        # The same for all, and made once: a flood of them should cost little.
        return _unauthenticated(error.message)
    if isinstance(error, RateLimitedError):
        return _rate_limited(error.limit, error.message, ceil(error.seconds * _PARTS))
    details: list[Message] = [_info(error)]
    if isinstance(error, InvalidRequestError):
        violations = [
            BadRequest.FieldViolation(field=v.field, description=v.rule) for v in error.violations
        ]
        details.append(BadRequest(field_violations=violations))
    delay = _RETRY_MILLISECONDS.get(type(error))
    if delay is not None:
        details.append(_retry(delay))
    return _status(CODES[type(error)], error.message, details)


@lru_cache(1)
def _unauthenticated(message: str) -> grpc.Status:
    info = ErrorInfo(reason=UnauthenticatedError.reason, domain=DOMAIN)
    return _status(CODES[UnauthenticatedError], message, [info])


# One for each hundredth of a second, because those who are limited come often; rounded up, so that
# who waits as long gets through.
@lru_cache(256)
def _rate_limited(limit: str, message: str, hundredths: int) -> grpc.Status:
    info = ErrorInfo(reason=RateLimitedError.reason, domain=DOMAIN, metadata={"limit": limit})
    retry = _retry(hundredths * 1000 // _PARTS)
    return _status(CODES[RateLimitedError], message, [info, retry])


def internal() -> grpc.Status:
    """Return the status of a bug."""
    return _status(
        Code.INTERNAL, INTERNAL_MESSAGE, [ErrorInfo(reason=LicetError.reason, domain=DOMAIN)]
    )


class _Bare(NamedTuple):
    code: grpc.StatusCode
    details: str
    trailing_metadata: None = None


def no_message() -> grpc.Status:
    """Return the status of a call that has no message, as gRPC has it."""
    what = "\"b''\" requires exactly one request message."
    return cast("grpc.Status", _Bare(grpc.StatusCode.UNIMPLEMENTED, what))


def _retry(milliseconds: int) -> RetryInfo:
    delay = Duration(nanos=milliseconds % 1000 * 1_000_000, seconds=milliseconds // 1000)
    return RetryInfo(retry_delay=delay)


def _info(error: LicetError) -> ErrorInfo:
    if isinstance(error, OutOfRangeError):
        return ErrorInfo(reason=error.code, domain=DOMAIN, metadata=error.facts)
    reason = error.code if isinstance(error, RefusedError | ForbiddenError) else error.reason
    return ErrorInfo(reason=reason, domain=DOMAIN)


def _status(code: int, message: str, details: list[Message]) -> grpc.Status:
    packed = []
    for detail in details:
        container = Any()
        container.Pack(detail)
        packed.append(container)
    return rpc_status.to_status(Status(code=code, message=message, details=packed))
