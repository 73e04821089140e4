"""What becomes of a DENY with APPROVAL_REQUIRED: one ALLOW of an approval, or a pending one.

The rules are in `domain/approval.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from licet.app.approval_ports import Approvals, Pending
from licet.app.limit_ports import Limits
from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.approval import MAX_PENDING, approvable, needed, used
from licet.domain.capability_set import CapabilitySet
from licet.domain.condition import Evaluate
from licet.domain.decision import Decision, Reason, Request
from licet.domain.instant import Instant
from licet.domain.names import Caller, CapabilityId
from licet.domain.policy_facts import NO_ROLES
from licet.domain.policy_set import PolicySet, limited
from licet.domain.token_bucket import Refusal


class Settled(NamedTuple):
    """What came of a request that needs an approval.

    Attributes:
        decision: the answer; an ALLOW is committed and not on record yet.
        approval_id: with a DENY, the approval to wait for; empty: none.
        judged: what the policies have judged, by the ordinary capability.
        roles: those that count as having approved it.
    """

    decision: Decision
    approval_id: str
    judged: Decision
    roles: frozenset[str] = NO_ROLES


class Settling:
    """Settles the requests of one call. Not for several threads."""

    def __init__(  # noqa: PLR0913, PLR0917 - what the requests of a call share
        self,
        approvals: Approvals,
        limits: Limits,
        policies: PolicySet,
        caller: Caller,
        now: Instant,
        earliest: Instant,
        evaluate: Evaluate,
        deadline: Deadline,
    ) -> None:
        """Take what all of them are decided by."""
        self._approvals = approvals
        self._limits = limits
        self._policies = policies
        self._caller = caller
        self._now = now
        self._earliest = earliest
        self._evaluate = evaluate
        self._deadline = deadline
        # What an earlier request of the call has tried to use: this call holds no second one.
        self._tried: set[CapabilityId] = set()
        self._asked = 0

    def __call__(self, held: CapabilitySet, request: Request, denied: Decision) -> Settled:
        """Settle a request that policies deny with APPROVAL_REQUIRED.

        Raises:
            NotAtOnceError: the deadline is `AT_ONCE`, and memory cannot tell; nothing has happened.
            NotPermittedError, UnavailableError: see `Approvals.use`.
        """
        if self._deadline is AT_ONCE and any(held.for_one_use(request.action, request.resource)):
            raise NotAtOnceError
        found = approvable(
            *(held, self._policies, request, self._now, self._earliest),
            *(self._evaluate, self._tried),
        )
        for one, judged in found:
            if judged.allowed:
                demands = () if judged.judgement is None else judged.judgement.demands
                taken = self._limits.take(demands, self._deadline) if demands else None
                if isinstance(taken, Refusal):
                    refused = limited(judged, taken)
                    return Settled(refused, "", refused, one.roles)
                # Before it is asked for: whatever comes of that, it is not asked for twice.
                self._tried.add(one.capability.id)
                if self._approvals.use(one, request, self._caller, self._deadline):
                    return Settled(used(one, judged, self._now), "", judged, one.roles)
                if taken is not None:
                    taken.give_back()
            elif judged.reason is not Reason.APPROVAL_REQUIRED:
                return Settled(judged, "", judged, one.roles)
        pending = self._pending(request, denied)
        return Settled(_noted(denied, pending.note), pending.approval_id, denied)

    def _pending(self, request: Request, denied: Decision) -> Pending:
        self._asked += 1
        if self._asked > MAX_PENDING:
            return Pending("", f"one call asks for {MAX_PENDING} approvals at most")
        wanted = needed(self._policies, denied, request, self._now, self._earliest)
        return self._approvals.pending(wanted, request, self._caller, self._deadline)


def _noted(denied: Decision, note: str) -> Decision:
    judgement = denied.judgement
    if not note or judgement is None:
        return denied
    return denied._replace(judgement=judgement._replace(detail=f"{judgement.detail}; {note}"))
