"""What becomes of a request that needs an approval, decided on what is told of the outside."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import pytest

from licet.app.approval_ports import Pending
from licet.app.approving import Settled, Settling
from licet.app.authorize import Answer
from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.app.recording import Acknowledge
from licet.domain import approval
from licet.domain.approval import MAX_PENDING, Needed
from licet.domain.canonical_json import canonical
from licet.domain.capability_set import NEVER, CapabilitySet, HeldCapability, OneUse
from licet.domain.condition import cannot_tell
from licet.domain.decision import Reason, Request, decide
from licet.domain.errors import UnavailableError
from licet.domain.instant import Instant
from licet.domain.names import Action, Caller, Principal
from licet.domain.pattern import ResourcePattern
from tests.fakes.limits import NO_LIMITS, Tokens
from tests.unit.builders import CALLER, HOLDER, NOW, PATIENT, StillClock, held, identifier
from tests.unit.policies import authorizing, policy_set, question
from tests.unit.test_authorize import Log

SHELL: Final = "name: shell, require: {approval: security}"
OPS: Final = "name: ops, match: {actions: [read]}, require: {approval: sre}"
PARENT: Final = held(1, "doc:**", "read write")
ASKED: Final = question("doc:a/b")


class Told:
    """See `app.approval_ports.Approvals`: uses what can be used, and says what was asked for."""

    def __init__(self, *usable: int) -> None:
        self.usable = {identifier(number) for number in usable}
        self.used: list[str] = []
        self.asked: list[Needed] = []

    def pending(self, needed: Needed, _r: Request, _c: Caller, deadline: Deadline) -> Pending:
        if deadline is AT_ONCE:
            raise NotAtOnceError
        self.asked.append(needed)
        return Pending(f"a{len(self.asked)}", "as told")

    def use(self, one: OneUse, _r: Request, _c: Caller, _d: Deadline) -> bool:
        self.used.append(one.capability.id)
        if one.capability.id in self.usable:
            self.usable.remove(one.capability.id)
            return True
        return False


class Known:
    """See `ports.CapabilitySets`: what one principal holds."""

    def __init__(self, has: CapabilitySet) -> None:
        self._has = has

    def get(self, principal: Principal, _: Deadline) -> CapabilitySet:
        assert principal == HOLDER
        return self._has

    def get_many(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        return {principal: self.get(principal, deadline) for principal in principals}


def one_use(
    number: int,
    *roles: str,
    resource: str = "doc:a/b",
    expires_at: int = NEVER,
    not_before: int = 0,
) -> OneUse:
    """Return a capability for one use, a child of the parent."""
    child = HeldCapability(
        identifier(number),
        ResourcePattern(resource),
        (Action("read"),),
        Instant(not_before),
        Instant(expires_at),
    )
    return OneUse(child, PARENT.id, frozenset(roles))


def settle(  # noqa: PLR0913 - what may be told
    told: Told,
    *approvals: OneUse,
    policies: tuple[str, ...] = (SHELL,),
    asked: Request = ASKED,
    parent: HeldCapability = PARENT,
    deadline: Deadline = PATIENT,
    settling: Settling | None = None,
) -> Settled:
    """Settle a request of who holds the parent and these."""
    compiled = policy_set(*policies)
    has = CapabilitySet(HOLDER, 7, [parent], for_one_use=approvals)
    denied = compiled.judge(decide(has, asked, NOW), asked, NOW)
    assert denied.reason is Reason.APPROVAL_REQUIRED
    if settling is None:
        settling = Settling(told, NO_LIMITS, compiled, CALLER, NOW, NOW, cannot_tell, deadline)
    return settling(has, asked, denied)


def test_without_an_approval_one_is_asked_for() -> None:
    told = Told()
    settled = settle(told, policies=(OPS, SHELL))

    assert (settled.decision.reason, settled.approval_id) == (Reason.APPROVAL_REQUIRED, "a1")
    (needed,) = told.asked
    assert needed.roles == ("security", "sre")
    assert needed.policies == ("ops", "shell")
    assert (needed.parent_id, needed.policy_set, needed.revision) == (PARENT.id, 3, 7)
    assert settled.decision.judgement is not None
    assert settled.decision.judgement.detail.endswith("the approval of sre; as told")


def test_an_approval_allows_and_is_named() -> None:
    told = Told(2)
    settled = settle(told, one_use(2, "security"))

    assert settled.decision.allowed
    assert settled.decision.reason is Reason.GRANTED
    assert settled.decision.capability == one_use(2, "security").capability
    assert settled.decision.valid_until == NOW
    assert (settled.approval_id, told.asked) == ("", [])


def test_one_that_is_used_up_already_gives_way_to_the_next() -> None:
    told = Told(3)
    settled = settle(told, one_use(2, "security"), one_use(3, "security"))
    assert settled.decision.allowed
    assert told.used == [identifier(2), identifier(3)]


@pytest.mark.parametrize(
    "other",
    [
        one_use(2, "security", resource="doc:a/c"),
        one_use(2, "sre"),
        one_use(2, "security", expires_at=NOW),
        one_use(2, "security", not_before=NOW + 1),
        one_use(2, "security")._replace(parent_id=identifier(9)),
    ],
    ids=["resource", "role", "expired", "early", "parent"],
)
def test_what_does_not_fit_is_not_touched(other: OneUse) -> None:
    told = Told(2)
    settled = settle(told, other)
    assert not settled.decision.allowed
    assert (told.used, settled.approval_id) == ([], "a1")


def test_it_fits_up_to_the_microsecond() -> None:
    assert settle(Told(2), one_use(2, "security", expires_at=NOW + 1)).decision.allowed
    assert settle(Told(2), one_use(2, "security", not_before=NOW)).decision.allowed


def test_all_roles_have_to_be_there() -> None:
    told = Told(2, 3)
    assert not settle(told, one_use(2, "security"), policies=(SHELL, OPS)).decision.allowed
    assert settle(told, one_use(3, "security", "sre"), policies=(SHELL, OPS)).decision.allowed
    assert told.used == [identifier(3)]


def test_what_else_is_missing_is_said_and_nothing_is_used() -> None:
    told = Told(2)
    settled = settle(
        told, one_use(2, "security"), policies=(SHELL, "name: m, require: {mfa: true}")
    )
    assert settled.decision.reason is Reason.MFA_REQUIRED
    assert (told.used, told.asked, settled.approval_id) == ([], [], "")
    assert settled.roles == {"security"}


def test_a_request_that_names_another_capability_uses_none() -> None:
    named = ASKED._replace(capability_id=PARENT.id)
    assert settle(Told(2), one_use(2, "security"), asked=named).decision.allowed
    other = one_use(2, "security")._replace(parent_id=identifier(9))
    assert not settle(Told(2), other, asked=named).decision.allowed


def test_a_call_tries_each_once_and_asks_for_a_number() -> None:
    told = Told(2)
    settling = Settling(told, NO_LIMITS, policy_set(SHELL), CALLER, NOW, NOW, cannot_tell, PATIENT)
    answers = [
        settle(told, one_use(2, "security"), settling=settling) for _ in range(MAX_PENDING + 2)
    ]
    assert [answer.decision.allowed for answer in answers] == [True] + [False] * (MAX_PENDING + 1)
    assert told.used == [identifier(2)]
    assert len(told.asked) == MAX_PENDING
    assert answers[-1].approval_id == ""


def test_the_first_of_many_policies_are_named() -> None:
    told = Told()
    many = [f"name: p{number}, require: {{approval: sre}}" for number in range(25)]
    settle(told, policies=(*many, SHELL))
    (needed,) = told.asked
    assert needed.policies == tuple(f"p{number}" for number in range(20))
    assert needed.roles == ("security", "sre")


@pytest.mark.parametrize("how", ["one", "deferred", "batch", "batch deferred"])
def test_what_is_used_up_and_cannot_be_recorded_is_not_allowed(how: str) -> None:
    """And an ALLOW is one use, and on record."""
    clock, told, policies = StillClock(), Told(2, 3), policy_set(SHELL)
    left: list[Answer] = []

    def ask(log: Log) -> None:
        has = CapabilitySet(
            HOLDER, 7, [PARENT], for_one_use=[one_use(2, "security"), one_use(3, "security")]
        )
        authorize = authorizing(Known(has), log, clock, lambda _: policies, approvals=told)
        match how:
            case "one":
                left.append(authorize(ASKED, CALLER, PATIENT))
            case "batch":
                left.extend(authorize.batch([ASKED], CALLER, PATIENT))
            case "deferred":
                authorize.deferred(ASKED, CALLER, PATIENT, taken)
            case _:
                authorize.batch_deferred([ASKED], CALLER, PATIENT, lambda answers: taken(*answers))
        assert (authorize.policy_denials, authorize.policy_errors) == (0, 0)

    def taken(answer: Answer) -> Acknowledge:
        left.append(answer)
        return lambda _: None

    with pytest.raises(UnavailableError):
        ask(Log(room=0))
    assert (told.used, left) == ([identifier(2)], [])
    log = Log()
    ask(log)
    assert [answer.decision.allowed for answer in left] == [True]
    assert [(event.result, event.capability_id) for event in log.events] == [
        ("allow", identifier(3))
    ]
    assert told.used == [identifier(2)] * 2 + [identifier(3)]


def test_nothing_is_used_nor_asked_for_at_once() -> None:
    told = Told(2)
    for approvals in ((), (one_use(2, "security"),)):
        with pytest.raises(NotAtOnceError):
            settle(told, *approvals, deadline=AT_ONCE)
    assert (told.used, told.asked) == ([], [])


def test_what_is_not_told_at_once_is_counted_when_it_is() -> None:
    policies = policy_set(SHELL)
    has = CapabilitySet(HOLDER, 7, [PARENT])
    authorize = authorizing(
        *(Known(has), Log(), StillClock(), lambda _: policies), approvals=Told()
    )
    with pytest.raises(NotAtOnceError):
        authorize.deferred(ASKED, CALLER, AT_ONCE, lambda _: lambda _: None)
    assert authorize.policy_denials == 0
    assert not authorize(ASKED, CALLER, PATIENT).decision.allowed
    assert authorize.policy_denials == 1


def test_an_ordinary_step_never_finds_one() -> None:
    has = CapabilitySet(HOLDER, 7, [], for_one_use=[one_use(2, "security")])
    assert decide(has, ASKED, NOW).reason is Reason.NO_CAPABILITY
    named = ASKED._replace(capability_id=identifier(2))
    assert decide(has, named, NOW).reason is Reason.NO_CAPABILITY
    assert has.size == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("clean up", "clean up"),
        (5, ""),
        ("a\nb\u202ec\t", "a b c"),
        ("é" * 600, "é" * 512),
        ("", ""),
    ],
)
def test_a_purpose_is_one_line_of_a_bounded_length(given: object, kept: str) -> None:
    assert approval.purpose(ASKED._replace(context=canonical({"purpose": given}))) == kept  # type: ignore[dict-item] # JSON
    assert approval.purpose(ASKED) == ""


def test_a_condition_that_cannot_be_told_demands_no_approval() -> None:
    policies = policy_set(SHELL, "name: p, when: context.x == 1, require: {approval: sre}")
    assert policies.approvals(ASKED, PARENT, NOW, NOW) == {"shell": "security"}


def test_an_approval_is_not_used_where_a_limit_leaves_no_token() -> None:
    told, has_one, limited_to_none = Told(2), one_use(2, "security"), Tokens(often=0)
    compiled = policy_set(SHELL, "name: often, limit: {rate: 1/d}")
    settling = Settling(
        *(told, limited_to_none, compiled, CALLER, NOW, NOW), *(cannot_tell, PATIENT)
    )
    settled = settle(told, has_one, policies=(SHELL,), settling=settling)
    assert settled.decision.reason is Reason.RATE_LIMITED
    assert told.used == []
    limited_to_none.left["often"] = 1
    settled = settle(told, has_one, policies=(SHELL,), settling=settling)
    assert settled.decision.allowed
    assert limited_to_none.left == {"often": 0}


def test_what_was_used_already_gives_its_token_back() -> None:
    told, tokens = Told(), Tokens(often=1)
    compiled = policy_set(SHELL, "name: often, limit: {rate: 1/d}")
    settling = Settling(*(told, tokens, compiled, CALLER, NOW, NOW), *(cannot_tell, PATIENT))
    settled = settle(told, one_use(2, "security"), policies=(SHELL,), settling=settling)
    assert settled.decision.reason is Reason.APPROVAL_REQUIRED
    assert tokens.left == {"often": 1}
