"""The audit event of a decision, and its canonical bytes at the price of one formatted text.

Decisions are all but a few of the events. Their bytes are those of `audit_event.leaf_body`, as the
tests make sure.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

from licet.domain.audit_event import (
    POSTGRES_EPOCH,
    AuditEvent,
    EventType,
    Result,
    leaf_body,
)
from licet.domain.canonical_json import EMPTY, JsonObject
from licet.domain.decision import Decision, Request
from licet.domain.instant import Instant
from licet.domain.names import Caller

# Members of an enum are looked up the slow way.
_DECISION: Final = EventType.DECISION
_ALLOW: Final = Result.ALLOW
_DENY: Final = Result.DENY

_TIME: Final = Struct(">iq")  # occurred_at with its length
_TAIL: Final = Struct(">iqiB")  # revision with its length; length of metadata, its version
# The length of an ASCII text below 128 as the text whose UTF-8 is that length in four bytes.
_LENGTHS: Final = tuple(f"\0\0\0{chr(length)}" for length in range(128))
_VERSIONS: Final = 64
"""Of how many policy sets the metadata is remembered; nearly always one is in force."""


def decision_event(
    caller: Caller, now: Instant, request: Request, decision: Decision
) -> AuditEvent:
    """Return what is recorded of a decision. A plain ALLOW has no reason.

    A decision that policies were asked about names the set that they are of.
    """
    capability = decision.capability
    judgement = decision.judgement
    return AuditEvent(
        now,
        _DECISION,
        caller,
        request.principal,
        request.action,
        request.resource,
        capability.id if capability is not None else "",
        _ALLOW if decision.allowed else _DENY,
        "" if decision.allowed else decision.reason,
        "" if judgement is None else judgement.policy_id,
        request.session_id,
        request.trace_id,
        decision.revision,
        EMPTY if judgement is None else JsonObject(f'{{"policy_set": {judgement.version}}}'),
    )


def decision_body(caller: Caller, now: Instant, request: Request, decision: Decision) -> bytes:
    """Return what follows the id in the leaf of a decision, as `leaf_body` of its event."""
    principal, action, resource, _, _, session, trace, _, _ = request
    allowed, reason, capability, _, revision, judgement, _ = decision
    capability_id = "" if capability is None else capability.id
    if allowed:
        reason_text, outcome = "", "\0\0\0\5allow"
    else:
        reason_text, outcome = reason, "\0\0\0\4deny"
    policy_id, metadata = "", b"{}"
    if judgement is not None:
        policy_id, metadata = judgement.policy_id, _metadata(judgement.version)
    length = _LENGTHS
    try:
        texts = (
            f"\0\0\0\x08decision{length[len(caller)]}{caller}"
            f"{length[len(principal)]}{principal}{length[len(action)]}{action}"
            f"{length[len(resource)]}{resource}{length[len(capability_id)]}{capability_id}"
            f"{outcome}{length[len(reason_text)]}{reason_text}"
            f"{length[len(policy_id)]}{policy_id}"
            f"{length[len(session)]}{session}{length[len(trace)]}{trace}"
        )
    except IndexError:  # some text is longer
        return leaf_body(decision_event(caller, now, request, decision))
    if not texts.isascii():
        return leaf_body(decision_event(caller, now, request, decision))
    return b"".join(
        (
            _TIME.pack(8, now - POSTGRES_EPOCH),
            texts.encode(),
            _TAIL.pack(8, revision, len(metadata) + 1, 1),
            metadata,
        )
    )


@lru_cache(_VERSIONS)
def _metadata(version: int) -> bytes:
    return b'{"policy_set": %d}' % version
