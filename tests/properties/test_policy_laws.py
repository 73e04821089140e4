"""Laws of policies: they only ever deny, whatever they say and however many there are."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from licet.domain.canonical_json import JsonObject
from licet.domain.decision import Reason, Request, decide
from licet.domain.instant import Instant, to_datetime
from licet.domain.names import Action, Principal, Resource
from licet.domain.opening_hours import Hours, OpeningHours, Schedule
from licet.domain.pattern import ResourcePattern, contains
from licet.domain.policy import Deny, Limit, Match, Per, Policy, PolicyId
from licet.domain.policy_set import PolicySet
from licet.policies.reading import compile_set
from licet.policies.zones import zone
from tests.properties.strategies import ACTION_LISTS, patterns, requested
from tests.unit.builders import NOW, held, holding
from tests.unit.policies import document

_PRINCIPALS = [Principal(name) for name in ("x:a", "x:a/b", "xx:a", "y:a")]
_LIMIT = Limit(1, 1_000_000, 1, Per.PRINCIPAL)
_EFFECTS = [
    "deny: nope",
    "require: {mfa: true}",
    "require: {mfa: {max_age: 1h}, security_level: 2}",
    "require: {session: true}",
    "require: {approval: admin}",
    "time: {zone: Europe/Berlin, hours: '09:00-17:00'}",
    "time: {zone: UTC, days: [sat]}",
    "limit: {rate: 1/s}",
]
_CONDITIONS = ["", "when: 'true'", "when: 'false'", "when: context.x == 1", "when: action == 'a'"]
_MATCHES = [
    "",
    "match: {resources: ['x:**']}",
    "match: {actions: [b]}",
    "match: {principals: ['y:**']}",
]
_texts = st.builds(
    lambda *parts: ", ".join(part for part in parts if part),
    st.sampled_from(_EFFECTS),
    st.sampled_from(_CONDITIONS),
    st.sampled_from(_MATCHES),
)
_contexts = st.sampled_from(
    [
        JsonObject(text)
        for text in ("{}", '{"x": 1}', '{"mfa": true, "mfa_at": 1799999999, "security_level": 2}')
    ]
)


@given(
    st.lists(_texts, max_size=4),
    _texts,
    requested,
    _contexts,
    st.tuples(st.booleans(), st.integers(0, 86_400)),
)
def test_adding_a_policy_never_turns_a_deny_into_an_allow(
    before: list[str], added: str, resource: Resource, context: JsonObject, at: tuple[bool, int]
) -> None:
    holds, later = at
    texts = [f"name: p{n}, {text}" for n, text in enumerate([*before, added])]
    few, more = (compile_set(document(*policies)) for policies in (texts[:-1], texts))
    asked = Request(Principal("x:a"), Action("a"), resource, context)
    now = Instant(NOW + later * 1_000_000)
    without = decide(holding(*[held(1, "x:**", "*")] * holds), asked, now)

    first, second = few.judge(without, asked, now), more.judge(without, asked, now)

    assert without.allowed or not first.allowed
    assert first.allowed or not second.allowed
    assert second.allowed is (second.reason is Reason.GRANTED)


_matches = st.builds(
    lambda resources, actions, principals: Match(
        tuple(map(ResourcePattern, principals)), actions, tuple(resources)
    ),
    st.lists(patterns(st.sampled_from("ab")), max_size=2),
    st.sampled_from([(), *ACTION_LISTS[:4]]),
    st.sampled_from(
        [(), ("x:**",), ("x:a", "y:*"), ("y:**",), ("xx:**", "x:a/*"), ("x:a", "x:**"), ("y:b",)]
    ),
)


def about(match: Match, asked: Request) -> bool:
    return (
        (not match.actions or asked.action in match.actions)
        and _covered(match.resources, asked.resource)
        and _covered(match.principals, asked.principal)
    )


def _covered(several: tuple[ResourcePattern, ...], name: str) -> bool:
    return not several or any(contains(one, ResourcePattern(name)) for one in several)


@given(
    st.lists(_matches, max_size=12), requested, st.sampled_from("abc"), st.sampled_from(_PRINCIPALS)
)
def test_the_index_finds_what_matches(
    matches: list[Match], resource: Resource, action: str, principal: Principal
) -> None:
    policies = [
        Policy(PolicyId(str(number)), match, Deny("nope")) for number, match in enumerate(matches)
    ]
    asked = Request(principal, Action(action), resource)

    found = PolicySet(policies).consider(asked, held(1), NOW)

    denied = {c.policy.id for c in found if c.finding.reason is Reason.POLICY_DENIED}
    assert denied == {policy.id for policy in policies if about(policy.match, asked)}


@given(
    st.lists(st.tuples(_matches, st.booleans()), max_size=6),
    requested,
    st.lists(st.sampled_from(_PRINCIPALS), min_size=2, max_size=8),
)
def test_what_matches_one_principal_is_not_taken_for_what_matches_another(
    matches: list[tuple[Match, bool]], resource: Resource, principals: list[Principal]
) -> None:
    policies = [
        Policy(PolicyId(str(number)), match, _LIMIT if limits else Deny("nope"))
        for number, (match, limits) in enumerate(matches)
    ]
    one_set = PolicySet(policies)
    for principal in principals:
        asked = Request(principal, Action("a"), resource)
        expected = [policy for policy in policies if about(policy.match, asked)]
        denying = [policy.id for policy in expected if isinstance(policy.effect, Deny)]

        judgement = one_set.evaluate(asked, held(1), NOW)

        assert (judgement.reason is Reason.POLICY_DENIED) == bool(denying)
        assert judgement.policy_id == (denying[0] if denying else "")
        if not denying:
            demanded = [demand.policy_id for demand in judgement.demands]
            assert demanded == [policy.id for policy in expected]


_ZONES = ["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca", "UTC"]
_minutes = st.integers(0, 1439)
_ranges = st.tuples(_minutes, st.integers(1, 1440)).map(lambda r: (r[0], r[0] + r[1]))
_FIRST = 1_767_225_600_000_000  # 2026-01-01
_STEP = 15 * 60 * 1_000_000


@given(
    st.sampled_from(_ZONES),
    st.lists(_ranges.map(lambda r: (r[0] // 15 * 15, -(-r[1] // 15) * 15)), max_size=3),
    st.frozensets(st.integers(0, 6)),
    st.dictionaries(
        st.integers(0, 400), st.sampled_from([(), ((0, 1440),), ((720, 780),)]), max_size=5
    ),
    st.integers(0, 365 * 96),
)
def test_the_state_holds_exactly_until_it_ends(
    name: str,
    ranges: list[tuple[int, int]],
    days: frozenset[int],
    exceptions: dict[int, Hours],
    step: int,
) -> None:
    found = zone(name)
    assert found is not None
    dates = {date(2026, 1, 1) + timedelta(days=n): hours for n, hours in exceptions.items()}
    schedule = Schedule(found, days, tuple(ranges), dates)
    now = Instant(_FIRST + step * _STEP)

    state = OpeningHours(schedule).at(now)

    # Every boundary of these hours and of these zones is at a quarter of an hour.
    last = min(state.until, now + 14 * 96 * _STEP)
    assert all(_is_open(schedule, at) is state.is_open for at in range(now, last, _STEP))
    assert not state.changes or _is_open(schedule, state.until) is not state.is_open


def _is_open(schedule: Schedule, instant: int) -> bool:
    wall = to_datetime(Instant(instant)).astimezone(schedule.zone)
    minute = wall.hour * 60 + wall.minute
    today, yesterday = wall.date(), wall.date() - timedelta(days=1)
    return any(a <= minute < b for a, b in schedule.on(today)) or any(
        a <= minute + 1440 < b for a, b in schedule.on(yesterday)
    )
