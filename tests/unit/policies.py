"""Policy documents for tests, and what they say of a request."""

from __future__ import annotations

from typing import Final

from licet.app.approval_ports import Approvals, Pending
from licet.app.authorize import Authorize
from licet.app.conditions import CompiledConditions, no_conditions
from licet.app.limit_ports import Limits
from licet.app.policy_ports import ActivePolicies
from licet.app.ports import CapabilitySets, Clock, Deadline
from licet.app.recording import AuditLog
from licet.domain.approval import Needed
from licet.domain.canonical_json import JsonValue, canonical
from licet.domain.capability_set import HeldCapability, OneUse
from licet.domain.decision import Judgement, Request
from licet.domain.document import DocumentError, Fault
from licet.domain.instant import Instant
from licet.domain.names import Action, Caller, Principal, Resource
from licet.domain.policy_set import PolicySet
from licet.policies.reading import compile_set
from tests.fakes.limits import NO_LIMITS
from tests.unit.builders import HOLDER, NOW, held

ANYTHING: Final = held(1, "doc:**", "*")
"""A capability for any action."""


class NoApprovals:
    """See `app.approval_ports.Approvals`: there are none, and none can be asked for."""

    def pending(
        self, _needed: Needed, _request: Request, _caller: Caller, _deadline: Deadline
    ) -> Pending:
        return Pending("")

    def use(self, _one: OneUse, _request: Request, _caller: Caller, _deadline: Deadline) -> bool:
        return False


def authorizing(  # noqa: PLR0913 - the ports
    sets: CapabilitySets,
    log: AuditLog,
    clock: Clock,
    policies: ActivePolicies,
    *,
    approvals: Approvals | None = None,
    limits: Limits = NO_LIMITS,
    conditions: CompiledConditions = no_conditions,
) -> Authorize:
    """Return the use case, with nothing behind the ports that a test is not about."""
    if approvals is None:
        approvals = NoApprovals()
    return Authorize(
        *(sets, log, clock, policies), approvals=approvals, limits=limits, conditions=conditions
    )


def policy_set(*policies: str) -> PolicySet:
    """Return a set of policies, each in the flow style of YAML and without its braces."""
    return compile_set(document(*policies), 3)


def document(*policies: str) -> str:
    """Return a document of policies, one a line from line 3 on."""
    if not policies:
        return "version: 1"
    return "version: 1\npolicies:\n" + "".join(f"  - {{{policy}}}\n" for policy in policies)


def faults(source: str) -> list[Fault]:
    """Return the faults of a document; none when it can be used."""
    try:
        compile_set(source)
    except DocumentError as exc:
        return list(exc.faults)
    return []


def question(
    resource: str = "doc:a/b",
    action: str = "read",
    principal: str = HOLDER,
    *,
    session_id: str = "",
    **context: JsonValue,
) -> Request:
    """Return a question with a context."""
    return Request(
        Principal(principal),
        Action(action),
        Resource(resource),
        canonical(context),
        session_id=session_id,
    )


def judged(
    policies: PolicySet,
    asked: Request,
    now: int = NOW,
    capability: HeldCapability = ANYTHING,
) -> Judgement:
    """Return what a set says of a question."""
    return policies.evaluate(asked, capability, Instant(now))
