"""Replays from protobuf to the core's values, checked once, and back; and how slow they are."""

from __future__ import annotations

from threading import Event
from time import monotonic
from typing import Final

from licet.app.replay import MAX_DECISIONS, Counts, Flip, ReplayCommand, Step
from licet.domain import names
from licet.domain.audit_event import Result
from licet.domain.decision import Reason
from licet.domain.errors import InvalidRequestError
from licet.domain.policy_replay import Outcome
from licet.server import convert
from licet.server.policies import document
from licet.server.render import REASONS, timestamp
from licet.v1 import decision_pb2
from licet.v1 import policy_pb2 as pb

DEFAULT_DECISIONS: Final = 1_000_000
DEFAULT_LISTED: Final = 1000
MAX_LISTED: Final = 100_000
_LONGEST_BREATH: Final = 0.005
_UNKNOWN: Final = decision_pb2.DECISION_UNSPECIFIED
_DECISIONS: Final = {
    Outcome.ALLOW: decision_pb2.DECISION_ALLOW,
    Outcome.DENY: decision_pb2.DECISION_DENY,
    Outcome.NOT_KNOWN: _UNKNOWN,
}
_BY_NAME: Final = {reason.value: REASONS[reason] for reason in Reason}


class Breath:
    """Rests as long as was worked since the last rest: half of a core at most.

    The threads of decisions wait for Python's lock as long as this one works without a rest, and
    not for the five milliseconds after which Python takes it away.
    """

    def __init__(self) -> None:
        """Begin to work."""
        self._pause = Event()  # never set: a bounded wait
        self._since = monotonic()

    def __call__(self) -> None:
        """Rest."""
        self._pause.wait(min(monotonic() - self._since, _LONGEST_BREATH))
        self._since = monotonic()


def replay(message: pb.ReplayPolicySetRequest) -> ReplayCommand:
    """Check a ReplayPolicySetRequest. Raises InvalidRequestError."""
    return ReplayCommand(
        source=document(message.document, "document", is_required=False),
        since=convert.instant(message, "from", getattr(message, "from"), up=True),
        until=convert.instant(message, "to", message.to, up=True),
        principal=names.principal(message.principal) if message.principal else None,
        at_most=_count(message.max_decisions, "max_decisions", MAX_DECISIONS, DEFAULT_DECISIONS),
        listed=_count(message.max_listed, "max_listed", MAX_LISTED, DEFAULT_LISTED),
        lists_unknown=message.list_not_known,
    )


def step(done: Step) -> pb.ReplayPolicySetResponse:
    """Render how far a replay has come."""
    message = pb.ReplayPolicySetResponse(
        decisions=map(_flip, done.flips),
        counts=_counts(done.counts),
        to=timestamp(done.until),
        reached=timestamp(done.reached),
        is_last=done.is_last,
        is_complete=done.is_complete,
    )
    getattr(message, "from").CopyFrom(timestamp(done.since))
    return message


def _counts(counts: Counts) -> pb.ReplayCounts:
    return pb.ReplayCounts(
        looked_at=counts.looked_at,
        unchanged=counts.same,
        now_denied=counts.now_denied,
        now_allowed=counts.now_allowed,
        not_known=counts.not_known,
        unlisted=counts.unlisted,
        needs=[pb.ReplayNeed(what=what, decisions=number) for what, number in counts.needs.items()],
    )


def _flip(flip: Flip) -> pb.ReplayedDecision:
    event, verdict = flip.event.event, flip.verdict
    allowed = event.result is Result.ALLOW
    return pb.ReplayedDecision(
        event_id=flip.event.event_id,
        occurred_at=timestamp(event.occurred_at),
        principal=event.principal,
        action=event.action,
        resource=event.resource,
        decision=decision_pb2.DECISION_ALLOW if allowed else decision_pb2.DECISION_DENY,
        reason=_reason(Reason.GRANTED if allowed else event.reason),
        policy_id=event.policy_id,
        would_be=_DECISIONS[verdict.outcome],
        would_be_reason=_reason(verdict.reason),
        would_be_policy_id=verdict.policy_id,
        detail=verdict.detail,
        needs=verdict.needs,
    )


def _reason(text: str) -> decision_pb2.Reason.ValueType:
    return _BY_NAME.get(text, decision_pb2.REASON_UNSPECIFIED)


def _count(number: int, field: str, most: int, default: int) -> int:
    if not 0 <= number <= most:
        raise InvalidRequestError.of(field, f"must be 0 to {most}")
    return number or default
