"""From messages to grants: what is refused by which field, how times are rounded, and metadata."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, NullValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from licet.domain.errors import InvalidRequestError
from licet.domain.instant import LATEST
from licet.server import convert
from licet.v1 import authorization_pb2 as pb
from tests.unit.builders import identifier

ID = identifier(1)
LAST_SECOND = 253_402_300_799
YEARS_100 = 100 * 366 * 86_400


def granted(**fields: Any) -> pb.GrantRequest:  # noqa: ANN401 - any field
    plain = {"principal": "agent:a", "actions": ["read"], "resource": "doc:a/**"}
    return pb.GrantRequest(**(plain | fields))


def struct(**fields: Any) -> Struct:  # noqa: ANN401 - any JSON
    made = Struct()
    made.update(fields)
    return made


def nested(levels: int) -> Struct:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return struct(**value)


def problems(error: pytest.ExceptionInfo[InvalidRequestError]) -> list[str]:
    return [violation.field for violation in error.value.violations]


@pytest.mark.parametrize(
    ("seconds", "nanos", "earlier", "later"),
    [
        (0, 0, 0, 0),
        (1, 1_000, 1_000_001, 1_000_001),
        (1, 1_001, 1_000_001, 1_000_002),
        (1, 1_999, 1_000_001, 1_000_002),
        (1, 999, 1_000_000, 1_000_001),
        (1, 999_999_000, 1_999_999, 1_999_999),
        (1, 999_999_001, 1_999_999, 2_000_000),
        (LAST_SECOND, 999_999_000, LATEST, LATEST),
        (LAST_SECOND, 999_999_999, LATEST, LATEST),
    ],
)
def test_a_capabilitys_time_is_rounded_so_that_it_shrinks(
    seconds: int, nanos: int, earlier: int, later: int
) -> None:
    at = Timestamp(seconds=seconds, nanos=nanos)
    terms = convert.grant(granted(not_before=at, expires_at=at)).terms
    assert (terms.not_before, terms.expires_at) == (later, earlier)


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(-1, 0), (-1, 999_999_999), (0, -1), (0, 1_000_000_000), (LAST_SECOND + 1, 0), (1 << 62, 0)],
)
def test_a_time_that_is_none_is_refused(seconds: int, nanos: int) -> None:
    at = Timestamp(seconds=seconds, nanos=nanos)
    for field in ("not_before", "expires_at"):
        with pytest.raises(InvalidRequestError, match=f"{field} must be a Timestamp"):
            convert.grant(granted(**{field: at}))


@pytest.mark.parametrize(
    ("seconds", "nanos", "micros"),
    [
        (0, 1_000_000, 1_000),
        (0, 1_000_999, 1_000),
        (1, 999_999_999, 1_999_999),
        (YEARS_100, 0, YEARS_100 * 1_000_000),
        (YEARS_100, 999, YEARS_100 * 1_000_000),
    ],
)
def test_a_ttl_is_rounded_down(seconds: int, nanos: int, micros: int) -> None:
    assert convert.grant(granted(ttl=Duration(seconds=seconds, nanos=nanos))).ttl == micros


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [
        (0, 0),
        (0, 999_999),
        (-1, 0),
        (-1, -1),
        (1, -1),
        (1, 1_000_000_000),
        (YEARS_100, 1_000),
        (1 << 62, 0),
    ],
)
def test_a_ttl_out_of_range_is_refused(seconds: int, nanos: int) -> None:
    with pytest.raises(InvalidRequestError, match="ttl must be from 1 millisecond to 100 years"):
        convert.grant(granted(ttl=Duration(seconds=seconds, nanos=nanos)))


def test_a_grant_is_taken_field_by_field() -> None:
    command = convert.grant(
        granted(
            actions=["read", "write"],
            ttl=Duration(seconds=1),
            delegation_depth=64,
            condition="action == 'é' &&\n\ttrue",
            parent_capability_id=ID.upper(),
            session_id="s",
            metadata=struct(team="x"),
            request_id="r",
            trace_id="t",
        )
    )
    assert command.terms.actions == ("read", "write")
    assert command.terms.delegation_depth == 64
    assert command.terms.condition == "action == 'é' &&\n\ttrue"
    assert command.terms.session_id == "s"
    assert command.terms.metadata == '{"team": "x"}'
    assert (command.terms.not_before, command.terms.expires_at) == (None, None)
    assert command[1:] == (1_000_000, ID, "r", "t")


@pytest.mark.parametrize("actions", [["*"], ["a"], [f"a{n}" for n in range(32)]])
def test_actions_are_any_or_some(actions: list[str]) -> None:
    assert convert.grant(granted(actions=actions)).terms.actions == tuple(actions)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"principal": "x"}, "principal"),
        ({"resource": "doc:a*"}, "resource"),
        ({"actions": []}, "actions"),
        ({"actions": [f"a{n}" for n in range(33)]}, "actions"),
        ({"actions": ["*", "*"]}, "actions"),
        ({"actions": ["read", "*"]}, "actions"),
        ({"actions": ["read", "read"]}, "actions"),
        ({"actions": ["read", "R"]}, "actions[1]"),
        ({"condition": "x" * 2049}, "condition"),
        ({"condition": "é" * 1025}, "condition"),
        ({"condition": "action == '\0'"}, "condition"),
        ({"condition": "action == '\x1b'"}, "condition"),
        ({"condition": "action == '\u202e'"}, "condition"),
        ({"delegation_depth": 65}, "delegation_depth"),
        ({"ttl": Duration(seconds=1), "expires_at": Timestamp(seconds=1)}, "ttl"),
        ({"parent_capability_id": "x"}, "parent_capability_id"),
        ({"session_id": "\n"}, "session_id"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"trace_id": "x" * 129}, "trace_id"),
        ({"metadata": struct(a=float("nan"))}, "metadata"),
    ],
)
def test_a_grant_is_refused_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert.grant(granted(**fields))
    assert problems(caught) == [field]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (1.5, "1.5"),
        (9_007_199_254_740_991.0, "9007199254740991"),
        (9_007_199_254_740_992.0, "9007199254740992.0"),
        (1e16, "10000000000000000"),
        (None, "null"),
        (True, "true"),
        ("x", '"x"'),
        ([1, [None]], "[1, [null]]"),
        ({"b": 1, "a": {}}, '{"a": {}, "b": 1}'),
    ],
)
def test_metadata_becomes_canonical_text(value: object, text: str) -> None:
    metadata = convert.grant(granted(metadata=struct(a=value))).terms.metadata
    assert metadata == f'{{"a": {text}}}'


def test_a_value_without_a_kind_is_refused() -> None:
    for bad in (Value(), Value(list_value=ListValue(values=[Value()]))):
        with pytest.raises(InvalidRequestError, match="must have a kind for every value"):
            convert.grant(granted(metadata=Struct(fields={"a": bad})))
    null = Value(null_value=NullValue.NULL_VALUE)
    assert convert.grant(granted(metadata=Struct(fields={"a": null}))).terms.metadata


def test_metadata_may_be_nested_to_a_limit() -> None:
    assert convert.grant(granted(metadata=nested(31))).terms.metadata.count("{") == 32
    with pytest.raises(InvalidRequestError, match="metadata must have at most 31 levels"):
        convert.grant(granted(metadata=nested(32)))


def test_metadata_may_have_16_kib_as_text() -> None:
    fits = "x" * (16 * 1024 - len('{"a": ""}'))
    assert convert.grant(granted(metadata=struct(a=fits))).terms.metadata
    # In bytes, and not in characters.
    for too_long in (fits + "x", fits[:-1] + "é", "x" * 200_000):
        with pytest.raises(InvalidRequestError, match="metadata must have at most 16384 bytes"):
            convert.grant(granted(metadata=struct(a=too_long)))
