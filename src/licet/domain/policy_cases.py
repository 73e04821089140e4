"""Cases for a policy set: questions, and what is expected to come out.

A case asks as somebody whom a capability allows, because only then policies are asked; what they
are not told, they do not see.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from licet.domain import document, names
from licet.domain.canonical_json import JsonObject, JsonValue, NotCanonicalError, canonical
from licet.domain.capability_set import ALWAYS, NEVER, HeldCapability
from licet.domain.decision import PolicyOutcome as Outcome
from licet.domain.decision import Reason, Request
from licet.domain.document import Faults, Fields, Mapped, Node, Scalar
from licet.domain.instant import Instant, from_datetime
from licet.domain.names import ANY_ACTION, Action, CapabilityId
from licet.domain.pattern import ResourcePattern, resource_pattern
from licet.domain.policy_set import Considered, PolicySet

FORMAT: Final = 1
MAX_CASES: Final = 5000
_TEXT_BYTES: Final = 1024
_ASKED: Final = ("at", "principal", "action", "resource", "session_id", "context", "capability")
_ROOT: Final = ("version", "policies", "defaults", "cases")
_CASE: Final = ("name", *_ASKED, "expect")
_CAPABILITY: Final = ("resource", "actions", "expires_at")
_EXPECTED: Final = ("decision", "reason", "policy")
_ID: Final = CapabilityId("00000000-0000-7000-8000-000000000000")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS: Final[Mapping[str, JsonValue]] = {"null": None, "~": None, "true": True, "false": False}


class Expected(NamedTuple):
    """What is to come out; what is empty is not looked at."""

    decision: str
    reason: str = ""
    policy: str = ""


class Case(NamedTuple):
    """One question, and what is expected to come out. `line` is where the document has it."""

    name: str
    line: int
    request: Request
    capability: HeldCapability
    now: Instant
    expected: Expected


class Cases(NamedTuple):
    """A document of cases; `policies` is the path of what they are for."""

    policies: str
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of a case, and of each policy by itself."""

    case: Case
    actual: Expected
    detail: str
    considered: Sequence[Considered]

    @property
    def is_expected(self) -> bool:
        """Whether it is what was to come out."""
        pairs = zip(self.case.expected, self.actual, strict=True)
        return all(not wanted or wanted == found for wanted, found in pairs)


def read(root: Node) -> Cases:
    """Read a document of cases.

    Raises:
        DocumentError: it cannot be used; up to 20 faults with their places.
    """
    fields = Fields(root, _ROOT, ("version", "cases"))
    document.integer(fields["version"], FORMAT, FORMAT)
    faults = Faults()
    defaults: dict[str, Node] = {}
    path, cases = "", list[Case]()
    with faults:
        path = fields.get("policies", lambda n: document.text(n, _TEXT_BYTES), "")
    with faults:
        defaults = fields.get("defaults", _defaults, {})
    for node in document.items(fields["cases"], 1, MAX_CASES):
        with faults:
            cases.append(_case(node, defaults))
    faults.check()
    return Cases(path, tuple(cases))


def run(policies: PolicySet, case: Case) -> Result:
    """Put a case to a policy set; limits count as kept."""
    judgement = policies.evaluate(case.request, case.capability, case.now)
    decision, reason = "ALLOW", Reason.GRANTED
    if judgement.reason is not None:
        decision, reason = "DENY", judgement.reason
    considered = policies.consider(case.request, case.capability, case.now)
    actual = Expected(decision, reason, judgement.policy_id)
    return Result(case, actual, judgement.detail, considered)


def reached(results: Sequence[Result]) -> set[str]:
    """Return the policies whose effect some case came to."""
    missed = {Outcome.NOT_MATCHED, Outcome.CONDITION_FALSE}
    return {
        considered.policy.id
        for result in results
        for considered in result.considered
        if considered.outcome not in missed
    }


def _defaults(node: Node) -> dict[str, Node]:
    fields = Fields(node, _ASKED)
    return {name: fields[name] for name in _ASKED if name in fields}


def _case(node: Node, defaults: Mapping[str, Node]) -> Case:
    own = Fields(node, _CASE, ("expect",))
    asked = {**defaults, **{name: own[name] for name in _ASKED if name in own}}
    for name in ("at", "principal", "action", "resource"):
        if name not in asked:
            raise node.fault(f"must have {name}, itself or by defaults")
    request = Request(
        document.checked(asked["principal"], names.principal),
        document.checked(asked["action"], names.action),
        document.checked(asked["resource"], names.resource),
        _context(asked["context"]) if "context" in asked else canonical({}),
        session_id=document.checked(asked["session_id"], names.label)
        if "session_id" in asked
        else "",
    )
    return Case(
        name=own.get("name", lambda n: document.text(n, _TEXT_BYTES), "")
        or f"{request.principal} {request.action} {request.resource}",
        line=node.place.line,
        request=request,
        capability=_capability(asked.get("capability"), request),
        now=_instant(asked["at"]),
        expected=_expected(own["expect"]),
    )


def _capability(node: Node | None, request: Request) -> HeldCapability:
    exact = ResourcePattern(request.resource)
    if node is None:
        return HeldCapability(_ID, exact, (request.action,), ALWAYS, NEVER)
    fields = Fields(node, _CAPABILITY)
    return HeldCapability(
        _ID,
        fields.get("resource", lambda n: document.checked(n, resource_pattern), exact),
        fields.get("actions", _actions, (request.action,)),
        ALWAYS,
        fields.get("expires_at", _instant, NEVER),
    )


def _actions(node: Node) -> tuple[Action, ...]:
    return tuple(
        ANY_ACTION
        if isinstance(item, Scalar) and item.text == ANY_ACTION
        else document.checked(item, names.action)
        for item in document.items(node, 1, 32)
    )


def _expected(node: Node) -> Expected:
    fields = Fields(node, _EXPECTED, ("decision",))
    decision = document.choice(fields["decision"], ("ALLOW", "DENY"))
    reason = fields.get("reason", lambda n: document.choice(n, [r.value for r in Reason]), "")
    return Expected(
        decision, reason, fields.get("policy", lambda n: document.text(n, _TEXT_BYTES), "")
    )


def _instant(node: Node) -> Instant:
    if isinstance(node, Scalar):
        try:
            moment = datetime.fromisoformat(node.text)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return from_datetime(moment)
    raise node.fault("must be an instant like 2026-11-22T09:00:00Z")


def _context(node: Node) -> JsonObject:
    if not isinstance(node, Mapped):
        raise node.fault("must be a mapping")
    try:
        return canonical({key.text: _json(value) for key, value in node.items})
    except NotCanonicalError as exc:
        raise node.fault(str(exc)) from None


def _json(node: Node) -> JsonValue:
    if isinstance(node, Mapped):
        return {key.text: _json(value) for key, value in node.items}
    if not isinstance(node, Scalar):
        return [_json(item) for item in node.items]
    if not node.is_plain:
        return node.text
    if node.text in _WORDS:
        return _WORDS[node.text]
    if _NUMBER.fullmatch(node.text) is None:
        return node.text
    number = float(node.text)
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number
