"""The tables of the pages, compared with the code that they are about."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Literal, get_args, get_origin
from urllib.request import urlopen

import annotated_types
import pytest
from google.rpc.code_pb2 import Code

from licet.cli.invocation import TlsOptions
from licet.config import CONFIG_FILE_VARIABLE, Settings
from licet.domain import names
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.caller import Scope
from licet.domain.capability_set import MAX_ENDED
from licet.domain.decision import Reason
from licet.domain.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotPermittedError,
    OutOfRangeError,
    PreconditionError,
)
from licet.domain.pattern import contains, resource_pattern
from licet.domain.user import SCOPES, Role
from licet.replica.capability_sets import CAPABILITY_BYTES, SET_BYTES
from licet.server import status
from licet.server.authority import RULES
from licet.telemetry.host import HostCollector
from licet.v1 import authorization_pb2
from tests.docs.blocks import ROOT, code_in, table_of, text_of
from tests.fakes.postgres import Database
from tests.fakes.serving import serving

SOURCES = ROOT / "src" / "licet"


def strings_in_sources() -> str:
    """Return every string literal of the sources; parts of an f-string are strings of their own."""
    found = []
    for path in SOURCES.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = ast.walk(tree)
        found += [
            n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]
    return "\n".join(found)


def setting_rows() -> dict[str, list[str]]:
    return {code_in(row[0])[0]: row for row in table_of("docs/operations.md", "setting")}


def test_every_setting_is_in_the_table_and_nothing_else() -> None:
    expected = {f"LICET_{name.upper()}" for name in Settings.model_fields}
    assert setting_rows().keys() == expected


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_default_of_a_setting_is_the_one_in_the_table(name: str) -> None:
    default = Settings.model_fields[name].default
    if Settings.model_fields[name].default_factory is not None:
        assert setting_rows()[f"LICET_{name.upper()}"][2] == "one a core"
        return
    cell = setting_rows()[f"LICET_{name.upper()}"][2]
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    assert cell == ("unset" if default is None else f"`{shown}`")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_range_of_a_setting_is_the_one_in_the_table(name: str) -> None:
    field = Settings.model_fields[name]
    cell = setting_rows()[f"LICET_{name.upper()}"][3]
    bounds = []
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge(ge=bound) | annotated_types.Le(le=bound):
                bounds.append(str(bound))
            case annotated_types.Gt(gt=bound):
                bounds.append(str(bound))
                assert "more than" in cell
            case _:
                pytest.fail(f"no words for {rule}")
    if bounds:
        assert code_in(cell) == bounds
    elif field.annotation is bool:
        assert code_in(cell) == ["true", "false"]
    elif get_origin(field.annotation) is Literal:
        assert code_in(cell) == list(get_args(field.annotation))


def test_the_variables_that_are_no_settings_are_named_too() -> None:
    page = text_of("docs/operations.md")
    assert f"`{CONFIG_FILE_VARIABLE}`" in page
    assert "`LICET_ADDRESS`" in page
    for name in TlsOptions._fields:
        assert f"`LICET_CALL_{name.upper()}`" in page
    assert "`LICET_API_KEY`" in page


def test_every_status_of_the_service_is_in_the_table_of_errors() -> None:
    rows = table_of("docs/api-guide.md", "code")
    shown = {(code_in(row[0])[0], reason) for row in rows for reason in code_in(row[1])}
    # Their reason says which rule refused.
    refusals = (ForbiddenError, NotPermittedError, PreconditionError, OutOfRangeError)
    for error, code in status.CODES.items():
        name = Code.Name(code)
        if issubclass(error, refusals):
            assert name in {code for code, _ in shown}
        else:
            assert (name, error.reason) in shown


def test_every_refusal_of_the_rules_is_in_the_tables() -> None:
    codes = set()
    for path in (SOURCES / "domain" / "capability.py", SOURCES / "writer" / "mutations.py"):
        codes |= set(re.findall(r'"([A-Z]+_[A-Z_]+)"', path.read_text(encoding="utf-8")))
    refusals = {
        code for code in codes if code.endswith("_WIDER") or code.startswith(("PARENT", "NO_"))
    }
    assert len(refusals) > 7
    assert all(f"`{code}`" in text_of("docs/concepts.md") for code in refusals)


def test_the_roles_have_the_scopes_of_the_tables() -> None:
    proto = text_of("protos/licet/v1/users.proto")
    rows = table_of("docs/concepts.md", "role")
    assert [code_in(row[0]) for row in rows] == [[role] for role in Role]
    for role, row in zip(Role, rows, strict=True):
        scopes = SCOPES[role]
        shown = {"admin"} if Scope.ADMIN in scopes else scopes
        assert set(code_in(row[1])) == shown
        [line] = re.findall(rf"^//   {role} +(.*)$", proto, re.MULTILINE)
        assert set(code_in(line)) == (set() if role is Role.ADMIN else scopes)


def test_the_scopes_open_what_the_table_says() -> None:
    rows = {code_in(row[0])[0]: code_in(row[1]) for row in table_of("docs/api-guide.md", "scope")}
    assert rows.keys() == set(Scope)
    for method, scopes in RULES.items():
        if len(scopes) == 1 and not method.startswith("/licet.v1.AuditService/"):
            [scope] = scopes
            assert method.rpartition("/")[2] in rows[scope]


def test_every_refusal_of_callers_is_in_the_tables() -> None:
    sources = ("app/users.py", "app/suspend.py", "app/keys.py", "writer/users.py")
    codes = set()
    for source in sources:
        found = (SOURCES / source).read_text(encoding="utf-8")
        codes |= set(re.findall(r'"([A-Z]+_[A-Z_]+)"', found))
    assert {"OWN_RIGHTS", "SCOPES_BEYOND_ROLES", "EMAIL_TAKEN"} < codes
    concepts, guide = text_of("docs/concepts.md"), text_of("docs/api-guide.md")
    for code in codes - {"NOT_FOUND"}:
        assert f"`{code}`" in concepts, code
        assert f"`{code}`" in guide or code.endswith("_NOT_FOUND"), code


def test_every_reason_why_a_watch_cannot_go_on_is_in_the_table_of_errors() -> None:
    source = (SOURCES / "app" / "watch.py").read_text(encoding="utf-8")
    reasons = set(re.findall(r'OutOfRangeError\(\s*"([A-Z_]+)"', source))
    assert len(reasons) > 2
    [row] = [r for r in table_of("docs/api-guide.md", "code") if code_in(r[0]) == ["OUT_OF_RANGE"]]
    assert set(code_in(row[1])) == reasons


def test_every_metric_is_in_the_table_with_its_kind_and_nothing_else(database: Database) -> None:
    with serving(database, metrics_listen="127.0.0.1:0") as served:
        address = f"http://127.0.0.1:{served.licet.metrics_port}/metrics"
        with urlopen(address, timeout=10) as answer:
            found = re.findall(r"^# TYPE (\S+) (\S+)$", answer.read().decode(), re.MULTILINE)
    rows = table_of("docs/operations.md", "metric")
    assert [(code_in(row[0])[0], row[1]) for row in rows] == found


def test_every_metric_of_the_workers_is_in_its_table_with_its_kind_and_nothing_else() -> None:
    collector = HostCollector(["0"], list, lambda: 0, lambda: 0)
    found = [
        (f"{metric.name}_total" if metric.type == "counter" else metric.name, metric.type)
        for metric in collector.collect()
    ]
    rows = table_of("docs/operations.md", "metric of the host")
    assert [(code_in(row[0])[0], row[1]) for row in rows] == found


def test_every_rpc_has_a_section_with_an_example() -> None:
    page = text_of("docs/api-guide.md")
    service = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"]
    for method in service.methods_by_name:
        assert f"\n## {method}\n" in page
        assert (
            f"{service.full_name}/{method}\n" in page or f"{service.full_name}/{method} <" in page
        )


@pytest.mark.parametrize("row", table_of("docs/concepts.md", "pattern"), ids=lambda row: row[0])
def test_a_pattern_covers_what_the_table_says(row: list[str]) -> None:
    [pattern] = [resource_pattern(text) for text in code_in(row[0])]
    for resource in code_in(row[1]):
        assert contains(pattern, resource_pattern(names.resource(resource)))
    for resource in code_in(row[2]):
        assert not contains(pattern, resource_pattern(names.resource(resource)))


@pytest.mark.parametrize(
    "row", table_of("docs/concepts.md", "refused as a pattern"), ids=lambda row: row[0]
)
def test_a_pattern_is_refused_as_the_table_says(row: list[str]) -> None:
    with pytest.raises(InvalidRequestError):
        resource_pattern(code_in(row[0])[0])


@pytest.mark.parametrize(
    "row", table_of("docs/concepts.md", "resource asked for"), ids=lambda row: row[0]
)
def test_a_resource_is_accepted_or_refused_as_the_table_says(row: list[str]) -> None:
    [resource] = code_in(row[0])
    if row[1] == "yes":
        assert names.resource(resource) == resource
    else:
        with pytest.raises(InvalidRequestError):
            names.resource(resource)


def test_the_fields_of_an_audit_event_are_those_of_the_table() -> None:
    shown = [name for row in table_of("docs/concepts.md", "field") for name in code_in(row[0])]
    assert set(shown) == {"event_id", *AuditEvent._fields}


def test_every_kind_of_event_is_in_the_table_with_its_reasons() -> None:
    rows = table_of("docs/concepts.md", "`event_type`")
    assert {kind for row in rows for kind in code_in(row[0])} == set(EventType)
    assert {result for row in rows for result in code_in(row[1])} == set(Result)
    [denials] = [row[2] for row in rows if code_in(row[1]) == ["deny"]]
    assert set(code_in(denials)) == set(Reason) - {Reason.GRANTED}


def test_what_the_runbook_quotes_is_what_licet_says() -> None:
    said = strings_in_sources()
    quoted = [
        phrase
        for row in table_of("docs/operations.md", "symptom")
        for phrase in re.findall(r'"([^"]+)"', f"{row[0]} {row[2]}")
    ]
    assert len(quoted) > 7
    for phrase in quoted:
        for part in phrase.split("..."):
            assert part.strip() in said, phrase


def test_the_weights_of_the_cache_are_those_of_the_page() -> None:
    page = text_of("docs/caching.md")
    assert f"{SET_BYTES:,} bytes and {CAPABILITY_BYTES} bytes" in page
    assert f"the latest {MAX_ENDED:,} that had expired" in text_of(
        "docs/decisions/0007-capability-sets.md"
    ).replace("\n", " ")


def test_the_example_is_as_large_as_readme_says() -> None:
    from examples.fleet.shape import TEAMS, fleet  # noqa: PLC0415 - only this test needs it

    whole = fleet(len(TEAMS))
    page = text_of("README.md").replace("\n", " ")
    assert f"{len(whole.principals):,} principals" in page
    assert f"{len(whole.rights):,} capabilities" in page


def test_the_sources_that_contributing_names_exist() -> None:
    for path in re.findall(r"\]\(((?:src|protos|migrations)/[^)#]+)\)", text_of("CONTRIBUTING.md")):
        assert Path(ROOT / path).exists(), path
