"""How a call fails: one exception, with all that the server says."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from licet.domain.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    UnconfirmedError,
    Violation,
)

INVALID_ARGUMENT: Final = grpc.StatusCode.INVALID_ARGUMENT.name
OUTCOME_UNKNOWN: Final = OutcomeUnknownError.reason
UNCONFIRMED: Final = UnconfirmedError.reason


class LicetCallError(Exception):
    """A call was not answered: no decision was taken, and a DENY is not among these.

    A Grant or Revoke that failed changed nothing, unless `reason` is OUTCOME_UNKNOWN or the
    connection was lost (UNAVAILABLE without a reason): repeat it with the same `request_id`. With
    UNCONFIRMED the change is committed, and a replica may not know of it for a moment longer.

    Attributes:
        code: the name of the gRPC status code, such as `NOT_FOUND`.
        message: a sentence for people.
        reason: for programs; empty when no licet answered.
        violations: which fields of the request break which rules.
        retry_after: when the server says that the same call may succeed later. With
            RESOURCE_EXHAUSTED, the client has waited for it up to three times already, as far as
            the timeout allowed; whoever asks less needs no repetitions. A stream is not repeated.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        reason: str = "",
        violations: tuple[Violation, ...] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.violations = violations
        self.retry_after = retry_after


def invalid(field: str, rule: str) -> LicetCallError:
    """Return the error of a request that cannot even be sent."""
    return LicetCallError(
        INVALID_ARGUMENT,
        f"{field} {rule}",
        reason=InvalidRequestError.reason,
        violations=(Violation(field, rule),),
    )


def call_error(error: grpc.RpcError) -> LicetCallError:
    """Return what an RPC failed with, its details unpacked."""
    bad, info, retry = BadRequest(), ErrorInfo(), RetryInfo()
    for detail in _status(error).details:
        for known in (bad, info, retry):
            if detail.TypeName() == known.DESCRIPTOR.full_name:
                detail.Unpack(known)
    return LicetCallError(
        error.code().name,
        error.details() or "",
        reason=info.reason,
        violations=tuple(Violation(v.field, v.description) for v in bad.field_violations),
        retry_after=retry.retry_delay.ToTimedelta() if retry.HasField("retry_delay") else None,
    )


def _status(call: grpc.RpcError) -> Status:
    try:
        # What a channel raises is a Call as well; its stubs do not say so.
        return rpc_status.from_call(cast("grpc.Call", call)) or Status()
    except (ValueError, DecodeError):
        return Status()  # something between us and licet answered
