"""Replays: what a policy set would have said of decisions on record, as the server tells it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import grpc

from licet.client import messages
from licet.client.errors import LicetCallError, call_error
from licet.v1 import decision_pb2
from licet.v1 import policy_pb2 as pb

_NAMES: Final = {
    decision_pb2.DECISION_ALLOW: "ALLOW",
    decision_pb2.DECISION_DENY: "DENY",
    decision_pb2.DECISION_UNSPECIFIED: "",
}


@dataclass(frozen=True, slots=True)
class ReplayedDecision:
    """A decision that would come out otherwise; the fields are those of the API.

    `would_be` and `would_be_reason` are empty, and `needs` is not, where that is not known.
    """

    event_id: str
    occurred_at: datetime
    principal: str
    action: str
    resource: str
    decision: str
    reason: str
    policy_id: str
    would_be: str
    would_be_reason: str
    would_be_policy_id: str
    detail: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """How far a replay has come; the counts are of all that was looked at so far.

    Attributes:
        decisions: those listed since the step before, newest first.
        looked_at: how many decisions.
        unchanged: would come out as they did.
        now_denied: ALLOW, and would be DENY.
        now_allowed: DENY, and would be ALLOW.
        not_known: depend on what is not on record.
        unlisted: would be listed, if more were wanted.
        needs: of how many of those not known what would have to be known.
        since: the first instant of the window.
        until: the instant after it.
        reached: back to when the log was looked at.
        is_last: nothing follows.
        is_complete: the whole window was looked at.
    """

    decisions: tuple[ReplayedDecision, ...]
    looked_at: int
    unchanged: int
    now_denied: int
    now_allowed: int
    not_known: int
    unlisted: int
    needs: dict[str, int]
    since: datetime
    until: datetime
    reached: datetime
    is_last: bool
    is_complete: bool


def steps(stream: Iterator[pb.ReplayPolicySetResponse]) -> Iterator[ReplayStep]:
    """Return the steps of a replay, the last one last.

    Raises:
        LicetCallError: while iterating, it failed, or ended before its last step.
    """
    try:
        for message in stream:
            yield _step(message)
            if message.is_last:
                return
    except grpc.RpcError as exc:
        raise call_error(exc) from exc
    raise LicetCallError("INTERNAL", "a replay ended without its last step")


def _step(message: pb.ReplayPolicySetResponse) -> ReplayStep:
    counts = message.counts
    return ReplayStep(
        decisions=tuple(map(_decision, message.decisions)),
        looked_at=counts.looked_at,
        unchanged=counts.unchanged,
        now_denied=counts.now_denied,
        now_allowed=counts.now_allowed,
        not_known=counts.not_known,
        unlisted=counts.unlisted,
        needs={need.what: need.decisions for need in counts.needs},
        since=messages.instant(getattr(message, "from")),
        until=messages.instant(message.to),
        reached=messages.instant(message.reached),
        is_last=message.is_last,
        is_complete=message.is_complete,
    )


def _decision(message: pb.ReplayedDecision) -> ReplayedDecision:
    return ReplayedDecision(
        event_id=message.event_id,
        occurred_at=messages.instant(message.occurred_at),
        principal=message.principal,
        action=message.action,
        resource=message.resource,
        decision=_NAMES[message.decision],
        reason=messages.reason_name(message.reason),
        policy_id=message.policy_id,
        would_be=_NAMES[message.would_be],
        would_be_reason=messages.reason_name(message.would_be_reason),
        would_be_policy_id=message.would_be_policy_id,
        detail=message.detail,
        needs=tuple(message.needs),
    )
