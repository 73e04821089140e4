"""The policy document: from its tree to policies. What a field means is in docs/policies.md.

Invariant: what is not understood is refused. There is no field that is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, tzinfo
from typing import Final, NamedTuple

from licet.domain import document, names
from licet.domain.condition import EXPRESSION_BYTES, Condition, ExpressionError
from licet.domain.document import Faults, Fields, Mapped, Node, Scalar
from licet.domain.names import Action
from licet.domain.opening_hours import ALL_DAY, EVERY_DAY, MINUTES, Hours, OpeningHours, Schedule
from licet.domain.pattern import ResourcePattern, resource_pattern
from licet.domain.policy import (
    Deny,
    Effect,
    Limit,
    Match,
    OpenOnly,
    Per,
    Policy,
    PolicyId,
    Require,
)
from licet.domain.user import APPROVERS

FORMAT: Final = 1
"""The version of the format."""
MAX_POLICIES: Final = 2000
MAX_PATTERNS: Final = 64
"""How many patterns of a kind a policy may have, and how many actions."""
MAX_RANGES: Final = 8
MAX_EXCEPTIONS: Final = 366
MAX_SECURITY_LEVEL: Final = 1_000_000
MAX_TOKENS: Final = 1_000_000
REASON_BYTES: Final = 512
DESCRIPTION_BYTES: Final = 2048

EFFECTS: Final = ("deny", "require", "time", "limit")
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
PERIODS: Final = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}

_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_RANGE: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")
_RATE: Final = re.compile(r"([0-9]{1,7})/([smhd])")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_YEAR_SECONDS: Final = 366 * 86_400
_ROOT: Final = ("version", "description", "include", "policies")
_POLICY: Final = ("name", "description", "match", "when", *EFFECTS)


class Means(NamedTuple):
    """What a reader needs from the outside.

    Attributes:
        condition: compiles an expression; raises ExpressionError with the reason.
        zone: returns a time zone by its IANA name; None: there is none.
        built_in: returns the tree of a built-in set; None: there is none of that name.
    """

    condition: Callable[[str], Condition]
    zone: Callable[[str], tzinfo | None]
    built_in: Callable[[str], Node | None]


class PolicyDocument(NamedTuple):
    """What a document says: its policies, those of the sets that it includes in front."""

    description: str
    includes: tuple[str, ...]
    policies: tuple[Policy, ...]


def read(root: Node, means: Means) -> PolicyDocument:
    """Read a document.

    Raises:
        DocumentError: it cannot be used; up to 20 faults with their places.
    """
    fields = Fields(root, _ROOT, ("version",))
    document.integer(fields["version"], FORMAT, FORMAT)
    faults = Faults()
    description, includes = "", dict[str, Node]()
    policies: list[Policy] = []
    nodes: Sequence[Node] = ()
    with faults:
        description = fields.get("description", _description, "")
    with faults:
        includes = fields.get("include", _includes, {})
    for name, node in includes.items():
        with faults:
            policies += _included(name, node, means)
    with faults:
        nodes = fields.get("policies", lambda n: document.items(n, 0, MAX_POLICIES), ())
    taken: set[str] = set()
    for node in nodes:
        with faults:
            policies.append(_policy(node, means, taken))
    faults.check()
    if len(policies) > MAX_POLICIES:
        raise root.fault(f"must have at most {MAX_POLICIES} policies, included ones counted")
    return PolicyDocument(description, tuple(includes), tuple(policies))


def _description(node: Node) -> str:
    return document.text(node, DESCRIPTION_BYTES)


def _includes(node: Node) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for item in document.items(node, 0, MAX_PATTERNS):
        name = document.text(item, names.LABEL_BYTES)
        if name in found:
            raise item.fault("must not be included twice")
        found[name] = item
    return found


def _included(name: str, node: Node, means: Means) -> list[Policy]:
    root = means.built_in(name)
    if root is None:
        raise node.fault("is no built-in set: `licet policy built-in` lists them")
    inner = read(root, means)
    # Where it stands in the document that includes it; the other one nobody has before his eyes.
    line = node.place.line
    return [
        replace(policy, id=PolicyId(f"{name}/{policy.id}"), line=line) for policy in inner.policies
    ]


def _policy(node: Node, means: Means, taken: set[str]) -> Policy:
    fields = Fields(node, _POLICY, ("name",))
    name = _name(fields["name"])
    if name in taken:
        raise fields["name"].fault("must be the only policy of this name")
    taken.add(name)
    effects = [effect for effect in EFFECTS if effect in fields]
    if len(effects) != 1:
        raise node.fault(f"must have exactly one effect: {', '.join(EFFECTS)}")
    when = fields.get("when", lambda n: document.text(n, EXPRESSION_BYTES), "")
    return Policy(
        id=PolicyId(name),
        match=fields.get("match", _match, Match()),
        effect=_effect(effects[0], fields[effects[0]], means),
        description=fields.get("description", _description, ""),
        when=when,
        condition=_condition(fields["when"], when, means) if when else None,
        line=node.place.line,
    )


def _name(node: Node) -> str:
    name = document.text(node, names.LABEL_BYTES)
    if _NAME.fullmatch(name) is None:
        raise node.fault("must be a name: [a-z][a-z0-9_.-]{0,63}")
    return name


def _condition(node: Node, text: str, means: Means) -> Condition:
    try:
        return means.condition(text)
    except ExpressionError as exc:
        raise node.fault(f"must be a condition: {exc}") from None


def _match(node: Node) -> Match:
    fields = Fields(node, Match._fields)
    return Match(
        principals=fields.get("principals", _patterns, ()),
        actions=fields.get("actions", _actions, ()),
        resources=fields.get("resources", _patterns, ()),
    )


def _patterns(node: Node) -> tuple[ResourcePattern, ...]:
    patterns = document.items(node, 1, MAX_PATTERNS)
    return tuple(document.checked(item, resource_pattern) for item in patterns)


def _actions(node: Node) -> tuple[Action, ...]:
    return tuple(
        document.checked(item, names.action) for item in document.items(node, 1, MAX_PATTERNS)
    )


def _effect(name: str, node: Node, means: Means) -> Effect:
    match name:
        case "deny":
            return Deny(document.text(node, REASON_BYTES))
        case "require":
            return _require(node)
        case "time":
            return _time(node, means)
        case _:
            return _limit(node)


def _require(node: Node) -> Require:
    fields = Fields(node, ("mfa", "security_level", "session", "approval"))
    max_age = fields.get("mfa", _mfa_max_age, None)
    required = Require(
        mfa="mfa" in fields,
        mfa_max_age=max_age,
        security_level=fields.get(
            "security_level", lambda n: document.integer(n, 1, MAX_SECURITY_LEVEL), None
        ),
        session=fields.get("session", document.is_true, False),
        approval=fields.get("approval", lambda n: document.choice(n, APPROVERS), ""),
    )
    if required == Require():
        raise node.fault("must require something: mfa, security_level, session or approval")
    return required


def _mfa_max_age(node: Node) -> int | None:
    if isinstance(node, Scalar):
        document.is_true(node)
        return None
    fields = Fields(node, ("max_age",), ("max_age",))
    return document.duration(fields["max_age"], _YEAR_SECONDS)


def _time(node: Node, means: Means) -> OpenOnly:
    fields = Fields(node, ("zone", "days", "hours", "except"), ("zone",))
    name = document.text(fields["zone"], names.LABEL_BYTES)
    zone = means.zone(name)
    if zone is None:
        raise fields["zone"].fault("must be a time zone of the IANA database, like Europe/Berlin")
    schedule = Schedule(
        zone=zone,
        days=fields.get("days", _days, EVERY_DAY),
        hours=fields.get("hours", _hours, ALL_DAY),
        exceptions=fields.get("except", _exceptions, {}),
    )
    return OpenOnly(OpeningHours(schedule))


def _days(node: Node) -> frozenset[int]:
    return frozenset(
        DAYS.index(document.choice(item, DAYS)) for item in document.items(node, 1, len(DAYS))
    )


def _hours(node: Node) -> Hours:
    nodes = [node] if isinstance(node, Scalar) else document.items(node, 1, MAX_RANGES)
    return tuple(map(_range, nodes))


def _range(node: Node) -> tuple[int, int]:
    if isinstance(node, Scalar):
        match = _RANGE.fullmatch(node.text)
        if match is not None:
            hour, minute, end_hour, end_minute = map(int, match.groups())
            start, end = hour * 60 + minute, end_hour * 60 + end_minute
            if end <= MINUTES and start != end:
                return start, end if end > start else end + MINUTES
    raise node.fault("must be hours like 09:00-17:00, 22:00-06:00 or 00:00-24:00")


def _exceptions(node: Node) -> Mapping[date, Hours]:
    if not isinstance(node, Mapped):
        raise node.fault("must be a mapping of dates to hours, or to closed")
    if len(node.items) > MAX_EXCEPTIONS:
        raise node.fault(f"must have at most {MAX_EXCEPTIONS} dates")
    return {_date(key): _hours_or_none(value) for key, value in node.items}


def _date(node: Scalar) -> date:
    if _DATE.fullmatch(node.text) is not None:
        with suppress(ValueError):
            return date.fromisoformat(node.text)
    raise node.fault("must be a date like 2026-12-24")


def _hours_or_none(node: Node) -> Hours:
    return () if isinstance(node, Scalar) and node.text == "closed" else _hours(node)


def _limit(node: Node) -> Limit:
    fields = Fields(node, ("rate", "burst", "per"), ("rate",))
    rate = fields["rate"]
    match = _RATE.fullmatch(rate.text) if isinstance(rate, Scalar) else None
    if match is None or not 1 <= int(match[1]) <= MAX_TOKENS:
        raise rate.fault(f"must be a rate like 10/s, 100/m, 5000/h or 20000/d, 1 to {MAX_TOKENS}")
    tokens = int(match[1])
    return Limit(
        tokens=tokens,
        period=PERIODS[match[2]],
        burst=fields.get("burst", lambda n: document.integer(n, 1, MAX_TOKENS), tokens),
        per=fields.get("per", _per, Per.PRINCIPAL),
    )


def _per(node: Node) -> Per:
    return Per(document.choice(node, [per.value for per in Per]))
