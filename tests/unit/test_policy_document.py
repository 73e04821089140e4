"""What a policy document may say, and where it says what is wrong."""

from __future__ import annotations

import pytest

from licet.domain.opening_hours import EVERY_DAY, OpeningHours
from licet.domain.policy import Limit, OpenOnly, Per, Require
from licet.domain.policy_document import MAX_POLICIES
from licet.policies.reading import (
    built_in_names,
    built_in_text,
    compile_set,
    read_document,
)
from licet.policies.yaml_tree import MAX_BYTES
from tests.unit.policies import document, faults, judged, policy_set, question


def effect(text: str) -> object:
    (policy,) = policy_set(f"name: p, {text}").policies
    return policy.effect


def hours(text: str) -> OpeningHours:
    found = effect(f"time: {{zone: UTC, {text}}}")
    assert isinstance(found, OpenOnly)
    return found.hours


def fault(policy: str) -> tuple[int, int, str]:
    """Return line, column and message of the one fault of one policy."""
    (found,) = faults(document(policy))
    return *found.place, found.message


def test_json_is_yaml_too() -> None:
    source = '{"version": 1, "policies": [{"name": "p", "deny": "nope"}]}'

    assert [policy.id for policy in compile_set(source).policies] == ["p"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("require: {mfa: true}", Require(mfa=True)),
        ("require: {mfa: {max_age: 12h}}", Require(mfa=True, mfa_max_age=43_200_000_000)),
        ("require: {session: true, approval: sre}", Require(session=True, approval="sre")),
        ("require: {security_level: 3}", Require(security_level=3)),
        ("limit: {rate: 10/s}", Limit(10, 1_000_000, 10, Per.PRINCIPAL)),
        (
            "limit: {rate: 100/m, burst: 7, per: principal+resource}",
            Limit(100, 60_000_000, 7, Per.PRINCIPAL_AND_RESOURCE),
        ),
    ],
)
def test_an_effect_is_read(text: str, expected: object) -> None:
    assert effect(text) == expected


def test_hours_are_read() -> None:
    schedule = hours(
        "days: [mon, sun], hours: ['09:00-12:00', '22:00-06:00'], "
        "except: {2026-12-24: '09:00-24:00', '2026-12-25': closed}"
    ).schedule

    assert schedule.days == {0, 6}
    assert schedule.hours == ((540, 720), (1320, 1800))
    assert list(schedule.exceptions.values()) == [((540, 1440),), ()]
    assert hours("hours: '00:00-24:00'").schedule.days == EVERY_DAY


@pytest.mark.parametrize(
    ("policy", "column", "message"),
    [
        ("deny: nope", 5, "policies[0] must have name"),
        ("name: P, deny: nope", 12, "policies[0].name must be a name"),
        ("name: p", 5, "policies[0] must have exactly one effect"),
        ("name: p, deny: nope, limit: {rate: 1/s}", 5, "policies[0] must have exactly one effect"),
        ("name: p, denny: nope", 15, "policies[0].denny is no field here: name"),
        ("name: p, deny: no", 21, "policies[0].deny must be a text: put it into quotes"),
        ("name: p, deny: ''", 21, "policies[0].deny must not be empty"),
        ("name: p, deny: [x]", 21, "policies[0].deny must be a text"),
        ("name: p, deny: x, match: {resources: [x]}", 44, "policies[0].match.resources[0] must be"),
        ("name: p, deny: x, match: {resources: ['a:**/b']}", 44, "policies[0].match.resources[0]"),
        ("name: p, deny: x, match: {resources: []}", 43, "policies[0].match.resources must have 1"),
        ("name: p, deny: x, match: {actions: ['*']}", 42, "policies[0].match.actions[0] must be"),
        ("name: p, deny: x, match: {resource: []}", 32, "policies[0].match.resource is no field"),
        ("name: p, deny: x, when: 1 +", 30, "policies[0].when must be a condition: line 1, column"),
        ("name: p, require: {}", 24, "policies[0].require must require something"),
        ("name: p, require: {mfa: false}", 30, "policies[0].require.mfa must be true"),
        ("name: p, require: {mfa: 'true'}", 30, "policies[0].require.mfa must be true"),
        ("name: p, require: {mfa: {max_age: 15}}", 40, "policies[0].require.mfa.max_age must be"),
        ("name: p, require: {mfa: {max_age: 0s}}", 40, "policies[0].require.mfa.max_age must be"),
        ("name: p, require: {security_level: 0}", 41, "policies[0].require.security_level must be"),
        ("name: p, require: {security_level: 2.5}", 41, "policies[0].require.security_level must"),
        ("name: p, time: {hours: '09:00-17:00'}", 21, "policies[0].time must have zone"),
        ("name: p, time: {zone: Mars/X}", 28, "policies[0].time.zone must be a time zone"),
        ("name: p, time: {zone: ../UTC}", 28, "policies[0].time.zone must be a time zone"),
        ("name: p, time: {zone: UTC, days: [monday]}", 40, "policies[0].time.days[0] must be one"),
        ("name: p, time: {zone: UTC, hours: 9-17}", 40, "policies[0].time.hours must be hours"),
        ("name: p, time: {zone: UTC, hours: '09:00-09:00'}", 40, "policies[0].time.hours must be"),
        ("name: p, time: {zone: UTC, hours: '09:00-24:01'}", 40, "policies[0].time.hours must be"),
        ("name: p, time: {zone: UTC, except: {2026-02-30: closed}}", 42, "policies[0].time.except"),
        (
            "name: p, time: {zone: UTC, except: [x]}",
            41,
            "policies[0].time.except must be a mapping",
        ),
        ("name: p, limit: {rate: 10}", 29, "policies[0].limit.rate must be a rate"),
        ("name: p, limit: {rate: 0/s}", 29, "policies[0].limit.rate must be a rate"),
        ("name: p, limit: {rate: 1/s, burst: 0}", 41, "policies[0].limit.burst must be"),
        ("name: p, limit: {rate: 1/s, per: user}", 39, "policies[0].limit.per must be one of"),
    ],
)
def test_a_fault_names_its_place_and_the_rule(policy: str, column: int, message: str) -> None:
    found = fault(policy)

    assert found[:2] == (3, column)
    assert found[2].startswith(message)


@pytest.mark.parametrize(
    ("source", "line", "column", "message"),
    [
        ("", 1, 1, "it must not be empty"),
        ("- x", 1, 1, "it must be a mapping"),
        ("policies: []", 1, 1, "it must have version"),
        ("version: 2", 1, 10, "version must be an integer from 1 to 1"),
        ("version: '1'", 1, 10, "version must be an integer"),
        ("version: 1\nversion: 1", 2, 1, "version must not be there twice"),
        (
            "version: 1\npolices: []",
            2,
            1,
            "polices is no field here: version, description, include",
        ),
        ("version: 1\ninclude: [business-hours]", 2, 11, "include[0] is no built-in set"),
        ("version: 1\ninclude: [secrets@1, secrets@1]", 2, 22, "include[1] must not be included"),
        ("version: 1\ninclude: ../secrets@1", 2, 10, "include must be a list"),
        ("version: &a 1", 1, 10, "version must not use anchors and aliases"),
        ("version: 1\npolicies: *a", 2, 11, "policies must not use anchors and aliases"),
        ("version: !!int 1", 1, 10, "version must not have a tag"),
        ("version: !!python/object/apply:os.system [x]", 1, 10, "version must not have a tag"),
        ("? [a]\n: b", 1, 3, "it must have texts as keys"),
        ("version: 1\n---\nversion: 1", 2, 1, "it must be one document"),
        ("version: 1\n  x: 2", 2, 4, "it is no YAML"),
        ("a: 'x", 1, 6, "it is no YAML"),
        ("\ud800", 1, 1, "it must be valid UTF-8"),
        ("\0", 1, 1, "it is no YAML"),
        ("#" * (MAX_BYTES + 1), 1, 1, "it must have at most"),
    ],
)
def test_what_is_no_document_is_refused(source: str, line: int, column: int, message: str) -> None:
    found = faults(source)[0]

    assert (found.place.line, found.message[: len(message)]) == (line, message)
    assert abs(found.place.column - column) <= 1  # the parsers of YAML count ends differently


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? ", "{a: ", "[[]," * 3])
def test_depth_has_a_limit(opening: str) -> None:
    (found,) = faults(opening * 20_000)

    assert "12 levels" in found.message


def test_the_number_of_policies_has_a_limit() -> None:
    one = "name: p%d, deny: x"

    assert not faults(document(*(one % n for n in range(MAX_POLICIES))))
    (found,) = faults(document(*(one % n for n in range(MAX_POLICIES + 1))))
    assert "must have 0 to 2000 items" in found.message
    (found,) = faults(
        document(*(one % n for n in range(MAX_POLICIES))).replace(
            "policies:", "include: [secrets@1]\npolicies:"
        )
    )
    assert "included ones counted" in found.message


def test_all_faults_are_told_at_once_up_to_a_limit() -> None:
    lines = [found.place.line for found in faults(document(*["name: p"] * 3))]
    assert lines == [3, 4, 5]

    assert len(faults(document(*["deny: x"] * 30))) == 20


def test_a_name_is_taken_once() -> None:
    (found,) = faults(document("name: p, deny: x", "name: p, deny: x"))

    assert found.place == (4, 12)
    assert "only policy of this name" in found.message


def test_a_built_in_set_is_included_under_its_name() -> None:
    source = document("name: use, deny: nope") + "include: [secrets@1]\n"

    found = read_document(source)

    assert [policy.id for policy in found.policies] == ["secrets@1/use", "use"]
    assert found.includes == ("secrets@1",)
    assert found.policies[0].line == 4


def test_built_in_sets_can_be_used() -> None:
    assert built_in_names() == (
        "business-hours@1",
        "dangerous-tools@1",
        "external-destinations@1",
        "secrets@1",
        "system-paths@1",
    )
    for name in built_in_names():
        source = built_in_text(name)
        assert source is not None
        assert all(
            policy.description or policy.match.resources for policy in compile_set(source).policies
        )


def test_there_is_no_way_out_of_the_folder_of_built_in_sets() -> None:
    for name in ("../cel", "secrets@1.yaml", "", "/etc/passwd", "secrets"):
        assert built_in_text(name) is None


def test_a_text_that_yaml_reads_as_something_else_needs_quotes() -> None:
    for text in ("no", "Yes", "null", "~", "12", "1.5", "0x1f", ".inf", "off", "1e3"):
        assert "quotes" in fault(f"name: p, deny: {text}")[2], text
        assert judged(policy_set(f"name: p, deny: '{text}'"), question()).detail.endswith(text)
