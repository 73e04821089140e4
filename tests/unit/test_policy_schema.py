"""The published JSON Schema says what the reader says, as far as a schema can."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from licet.domain import policy_document
from licet.domain.condition import EXPRESSION_BYTES
from licet.domain.opening_hours import MINUTES
from licet.policies.reading import built_in_names, built_in_text, schema_text
from tests.unit.policies import document, faults

SCHEMA: Any = json.loads(schema_text())
VALIDATOR = Draft202012Validator(SCHEMA)


class _Core(yaml.SafeLoader):
    """Loads dates as the texts that they are to licet and to editors."""


_Core.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def valid(source: str) -> bool:
    return bool(VALIDATOR.is_valid(yaml.load(source, Loader=_Core)))  # noqa: S506 - a SafeLoader


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", built_in_names())
def test_built_in_sets_are_valid(name: str) -> None:
    assert valid(built_in_text(name) or "")


@pytest.mark.parametrize(
    "policy",
    [
        "name: p, deny: nope",
        "name: p, description: d, when: 'true', deny: nope",
        "name: p, match: {principals: ['a:**'], actions: [read], resources: ['b:*/c']}, deny: x",
        "name: p, require: {mfa: true, session: true, security_level: 3, approval: sre}",
        "name: p, require: {mfa: {max_age: 15m}}",
        "name: p, time: {zone: UTC}",
        "name: p, time: {zone: UTC, days: [mon], hours: '22:00-06:00'}",
        "name: p, time: {zone: UTC, hours: ['09:00-24:00'], except: {2026-12-24: closed}}",
        "name: p, time: {zone: UTC, except: {2026-12-24: ['09:00-12:00'], 2026-12-25: closed}}",
        "name: p, limit: {rate: 10/s, burst: 3, per: principal+resource}",
    ],
)
def test_what_the_reader_takes_is_valid(policy: str) -> None:
    assert faults(document(policy)) == []
    assert valid(document(policy))


@pytest.mark.parametrize(
    "policy",
    [
        "deny: nope",
        "name: P, deny: nope",
        "name: p",
        "name: p, deny: nope, limit: {rate: 1/s}",
        "name: p, denny: nope",
        "name: p, deny: no",
        "name: p, deny: 3",
        "name: p, deny: ''",
        "name: p, match: {resource: ['a:b']}, deny: x",
        "name: p, match: {resources: []}, deny: x",
        "name: p, match: {actions: ['*']}, deny: x",
        "name: p, match: {resources: [doc]}, deny: x",
        "name: p, require: {}",
        "name: p, require: {mfa: false}",
        "name: p, require: {mfa: {}}",
        "name: p, require: {mfa: {max_age: 15}}",
        "name: p, require: {security_level: 0}",
        "name: p, require: {aproval: x}",
        "name: p, time: {hours: '09:00-17:00'}",
        "name: p, time: {zone: UTC, days: [monday]}",
        "name: p, time: {zone: UTC, hours: '9-17'}",
        "name: p, time: {zone: UTC, hours: []}",
        "name: p, time: {zone: UTC, except: {christmas: closed}}",
        "name: p, limit: {rate: 10}",
        "name: p, limit: {burst: 10}",
        "name: p, limit: {rate: 1/s, per: user}",
    ],
)
def test_what_is_invalid_the_reader_refuses(policy: str) -> None:
    assert not valid(document(policy))
    assert faults(document(policy)) != []


def test_the_limits_are_the_readers() -> None:
    policy = SCHEMA["$defs"]["policy"]["properties"]

    assert SCHEMA["properties"]["policies"]["maxItems"] == policy_document.MAX_POLICIES
    assert SCHEMA["$defs"]["patterns"]["maxItems"] == policy_document.MAX_PATTERNS
    assert SCHEMA["$defs"]["description"]["maxLength"] == policy_document.DESCRIPTION_BYTES
    assert policy["when"]["maxLength"] == EXPRESSION_BYTES
    assert policy["deny"]["maxLength"] == policy_document.REASON_BYTES
    assert policy["time"]["properties"]["except"]["maxProperties"] == policy_document.MAX_EXCEPTIONS
    assert policy["limit"]["properties"]["burst"]["maximum"] == policy_document.MAX_TOKENS
    assert MINUTES == 24 * 60
    assert tuple(policy["time"]["properties"]["days"]["items"]["enum"]) == policy_document.DAYS
    effects = {name for one in SCHEMA["$defs"]["policy"]["oneOf"] for name in one["required"]}
    assert effects == set(policy_document.EFFECTS)
