"""The commands that call a licet, run as processes against a real one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TypeAlias

import pytest

from licet.client import Client
from licet.v1 import authorization_pb2 as pb
from tests.fakes.postgres import eventually
from tests.fakes.serving import Served, serving
from tests.fakes.terminal import COMMAND, Finished, environment, run

Licet: TypeAlias = Callable[..., Finished]


@pytest.fixture
def licet(served: Served) -> Licet:
    def call(*arguments: str) -> Finished:
        return run(*arguments, variables={"LICET_ADDRESS": served.address})

    return call


def test_a_decision_is_an_exit_status_and_a_line(served: Served, licet: Licet) -> None:
    capability = served.grant("agent:a", "read", "doc:x/**")
    allowed = licet("authorize", "agent:a", "read", "doc:x/y")
    assert (allowed.status, allowed.err) == (0, "")
    assert allowed.out.startswith("ALLOW GRANTED: ")
    assert capability in allowed.out

    denied = licet("authorize", "agent:a", "write", "doc:x/y")
    assert (denied.status, denied.err) == (1, "")
    assert denied.out.startswith("DENY NO_CAPABILITY: ")


def test_a_decision_is_json_for_programs(served: Served, licet: Licet) -> None:
    capability = served.grant("agent:a", "read", "doc:x/**")
    question = ("agent:a", "read", "doc:x/y", "--json", "--trace", "t1", "--session", "s1")
    allowed = licet(
        "authorize", *question, "--context", '{"mfa": true}', "--capability", capability
    )
    assert (allowed.status, allowed.err) == (0, "")
    answer = allowed.object
    assert (answer["decision"], answer["reason"]) == ("ALLOW", "GRANTED")
    assert answer["capability_id"] == capability
    assert (answer["valid_until"], answer["explanation"]) == (None, None)

    denied = licet("--json", "authorize", "agent:b", "read", "doc:x/y", "--explain")
    assert denied.status == 1
    assert denied.object["decision"] == "DENY"
    assert denied.object["explanation"] == {
        "candidates": [],
        "candidate_count": 0,
        "policies": [],
        "policy_count": 0,
    }


def test_an_explanation_is_a_tree_of_candidates(served: Served, licet: Licet) -> None:
    applicable = served.grant("agent:a", "read", "doc:x/**")
    other = served.grant("agent:a", "write delete", "doc:x/y")
    lines = licet("authorize", "agent:a", "read", "doc:x/y", "--explain").out.splitlines()
    assert lines[0].startswith("agent:a read doc:x/y")
    assert lines[1].startswith("├── ALLOW GRANTED: ")
    assert lines[2] == "└── candidate capabilities: 2"
    assert lines[3].startswith(f"    ├── APPLIES {applicable} read on doc:x/**: ")
    assert lines[4].startswith(f"    └── OTHER_ACTION {other} write, delete on doc:x/y: ")


def test_a_grant_shows_what_was_granted(licet: Licet) -> None:
    terms = ("agent:a", "read,write", "doc:x/**")
    options = ("--ttl", "15m", "--delegation-depth", "2", "--metadata", '{"team": "blue"}')
    condition = "context.team == 'blue'"
    granted = licet("grant", *terms, *options, "--session", "s1", "--condition", condition)
    assert (granted.status, granted.err) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in granted.out.splitlines())
    assert shown["principal"].strip() == "agent:a"
    assert shown["actions"].strip() == "read, write"
    assert shown["resource"].strip() == "doc:x/**"
    assert shown["state"].strip() == "valid"
    assert shown["condition"].strip() == condition
    assert shown["metadata"].strip() == '{"team": "blue"}'

    until = "2099-01-01T00:00:00Z"
    dated = ("--expires-at", until, "--not-before", "2098-01-01T00:00:00+01:00", "--json")
    parent = dict(line.split(maxsplit=1) for line in granted.out.splitlines())["id"].strip()
    child = licet("delegate", parent, *terms, "--condition", "true", "--json").object
    assert (child["condition"], child["parent_id"]) == ("true", parent)
    stored = licet("grant", *terms, *dated).object
    assert stored["condition"] == ""
    assert stored["actions"] == ["read", "write"]
    assert stored["expires_at"] == "2099-01-01T00:00:00.000000Z"
    assert stored["not_before"] == "2097-12-31T23:00:00.000000Z"
    assert stored["metadata"] == {}
    assert stored["ended_at"] is None


def test_a_grant_with_a_request_id_happens_once(licet: Licet) -> None:
    command = ("grant", "agent:a", "*", "doc:x", "--request-id", "r1", "--json")
    first, second = licet(*command), licet(*command)
    assert first.object == second.object
    other = licet("grant", "agent:b", "*", "doc:x", "--request-id", "r1")
    assert other.status == 2
    assert "ALREADY_EXISTS" in other.err


def test_delegations_are_a_tree(served: Served, licet: Licet) -> None:
    root = served.grant("agent:a", "*", "doc:**", delegation_depth=2)
    made = licet("delegate", root, "agent:b", "read", "doc:x/**", "--depth", "1", "--json")
    assert made.object["parent_id"] == root
    middle = made.object["id"]
    leaf = licet("delegate", middle, "agent:c", "read", "doc:x/y", "--json").object["id"]

    lines = [line.strip() for line in licet("capabilities", "tree", middle).out.splitlines()]
    by = "valid, granted by caller:anonymous"
    assert lines[0] == f"{root} agent:a * on doc:** {by}"
    assert lines[1] == f"└── {middle} agent:b read on doc:x/** {by}"
    assert lines[2] == f"└── {leaf} agent:c read on doc:x/y {by}"
    tree = licet("capabilities", "tree", middle, "--json").object
    assert [c["id"] for c in tree["ancestors"]] == [root]
    assert [c["id"] for c in tree["descendants"]] == [leaf]
    assert tree["capability"]["id"] == middle

    wider = licet("delegate", middle, "agent:c", "write", "doc:x/y")
    assert (wider.status, wider.out) == (2, "")
    assert wider.err.count("\n") == 1
    assert "ACTIONS_WIDER" in wider.err


def test_a_revocation_says_what_ended(served: Served, licet: Licet) -> None:
    root = served.grant("agent:a", "read", "doc:x/**", delegation_depth=1)
    child = licet("delegate", root, "agent:b", "read", "doc:x/y", "--json").object["id"]

    foreseen = licet("revoke", root, "--dry-run")
    assert foreseen.out.startswith("2 capabilities would end")
    assert licet("authorize", "agent:b", "read", "doc:x/y").status == 0

    ended = licet("revoke", "--principal", "agent:a", "--reason", "the work is done", "--json")
    assert ended.object["ended_count"] == 2
    assert set(ended.object["ended_capability_ids"]) == {root, child}
    assert licet("authorize", "agent:b", "read", "doc:x/y").status == 1
    assert "had ended before" in licet("revoke", root).out
    shown = licet("capabilities", "show", child).out
    assert "cascade" in shown
    assert "the work is done" in shown


def test_capabilities_are_listed_oldest_first(served: Served, licet: Licet) -> None:
    ids = [served.grant("agent:a", "read", f"doc:x/{i}") for i in range(3)]
    other = served.grant("agent:b", "read", "doc:[red]/y")
    table = licet("capabilities", "list").out.splitlines()
    assert table[0].split() == [
        "id", "principal", "actions", "resource", "expires", "depth", "state",
    ]  # fmt: skip
    assert [line.split()[0] for line in table[2:]] == [*ids, other]
    # Nobody looks at it in a window, so nothing is folded, and no name is taken for markup.
    assert table[-1].split() == [other, "agent:b", "read", "doc:[red]/y", "never", "0", "valid"]

    listed = licet("capabilities", "list", "--principal", "agent:a", "--json")
    assert [capability["id"] for capability in listed.objects] == ids
    some = licet("capabilities", "list", "--principal", "agent:a", "--json", "--limit", "2")
    assert [capability["id"] for capability in some.objects] == ids[:2]
    assert "--limit 0" in some.err
    every = licet("capabilities", "list", "--limit", "0", "--resource", "doc:x/*", "--json")
    assert (len(every.objects), every.err) == (3, "")


def test_audit_events_are_listed_newest_first(served: Served, licet: Licet) -> None:
    capability = served.grant("agent:a", "read", "doc:x/**", metadata={"team": "blue"})
    served.authorize("agent:a", "read", "doc:x/y", trace_id="t1")
    served.authorize("agent:a", "write", "doc:x/y", trace_id="t1")
    with Client(served.address) as client:
        assert eventually(lambda: len(list(client.audit(trace_id="t1"))) == 2)

    table = licet("audit", "query").out.splitlines()
    assert table[0].split() == [
        "time", "type", "result", "principal", "action", "resource", "reason", "capability",
    ]  # fmt: skip
    assert table[2].split()[2:] == [
        "decision", "deny", "agent:a", "write", "doc:x/y", "NO_CAPABILITY",
    ]  # fmt: skip
    assert table[3].split()[2:] == [
        "decision", "allow", "agent:a", "read", "doc:x/y", capability,
    ]  # fmt: skip
    assert table[4].split()[2:] == ["grant", "done", "agent:a", "doc:x/**", capability]

    denied = licet("audit", "query", "--decision", "deny", "--since", "1h", "--json").object
    assert (denied["event_type"], denied["result"]) == ("decision", "deny")
    assert denied["trace_id"] == "t1"
    changes = licet("audit", "query", "--type", "grant", "--type", "revoke", "--json")
    assert changes.object["capability_id"] == capability
    none = licet("audit", "query", "--until", "1h", "--json", "--metadata", '{"no": "such"}')
    assert (none.status, none.out) == (0, "")


def test_a_trail_tells_a_life_from_its_beginning(served: Served, licet: Licet) -> None:
    root = served.grant("agent:a", "read", "doc:x/**", delegation_depth=1, session_id="s1")
    child = served.grant("agent:b", "read", "doc:x/y", parent_capability_id=root)
    served.authorize("agent:a", "read", "doc:x/y", session_id="s1")
    served.authorize("agent:a", "read", "doc:x/z", trace_id="t1")
    served.stub.Revoke(pb.RevokeRequest(capability_id=root), timeout=10)
    served.authorize("agent:a", "read", "doc:x/z")
    with Client(served.address) as client:
        assert eventually(lambda: len(list(client.audit(event_types=["decision"]))) == 3)

    told = licet("audit", "trail", root, "--json").objects
    assert [(e["event_type"], e["result"], e["capability_id"]) for e in told] == [
        ("grant", "done", root),
        ("delegate", "done", child),
        ("decision", "allow", root),
        ("decision", "allow", root),
        ("revoke", "done", root),
        ("decision", "deny", root),
    ]
    assert [e["occurred_at"] for e in told] == sorted(str(e["occurred_at"]) for e in told)

    lines = licet("audit", "trail", root).out.splitlines()
    assert lines[2].split()[2:4] == ["grant", "done"]
    assert "1 grant, 1 delegate, 2 decision allow, 1 revoke, 1 decision deny" in lines
    allowed, denied = (line.split() for line in lines if line.startswith(("allowed", "denied")))
    assert (allowed[-1], denied[-1]) == ("2", "1")

    some = licet("audit", "trail", root, "--limit", "1", "--json")
    kinds = [e["event_type"] for e in some.objects]
    assert kinds == ["delegate", "revoke", "decision"]
    assert "--limit 0" in some.err
    of_session = licet("audit", "trail", "--session", "s1", "--json").objects
    assert [e["event_type"] for e in of_session] == ["grant", "decision", "revoke"]
    of_trace = licet("audit", "trail", "--trace", "t1", "--json").object
    assert of_trace["resource"] == "doc:x/z"
    of_principal = licet("audit", "trail", "--principal", "agent:b", "--json").objects
    assert [e["reason"] for e in of_principal] == ["", "CASCADE"]
    drawn = licet("audit", "query", "--timeline").out.splitlines()
    assert drawn[-2].startswith("denied ")


def test_health_is_an_exit_status(served: Served, licet: Licet) -> None:
    healthy = licet("health")
    assert (healthy.status, healthy.out) == (0, f"SERVING at {served.address}\n")
    assert licet("health", "--json").object == {"address": served.address, "status": "SERVING"}


def test_a_server_without_its_database_is_not_serving(served: Served, licet: Licet) -> None:
    with served.database.connect() as admin:
        admin.execute("DELETE FROM licet.migrations")
    assert eventually(lambda: licet("health").status == 1)
    assert licet("health", "--json").object["status"] == "NOT_SERVING"


def test_the_options_of_every_command_work_before_and_after_its_name(served: Served) -> None:
    wrong = {"LICET_ADDRESS": "127.0.0.1:1"}
    before = run("--address", served.address, "--timeout", "7", "health", variables=wrong)
    after = run("health", "--address", served.address, "--timeout", "7", variables=wrong)
    assert (before.status, after.status) == (0, 0)


def test_an_answer_that_does_not_come_in_time_is_an_error(served: Served) -> None:
    with served.database.connect() as admin:
        admin.execute("BEGIN")
        admin.execute("LOCK TABLE licet.capabilities IN ACCESS EXCLUSIVE MODE")
        failed = run("authorize", "agent:z", "read", "doc:x", "--address", served.address,
                     "--timeout", "0.3")  # fmt: skip
        admin.execute("ROLLBACK")
    assert (failed.status, failed.out) == (2, "")
    assert failed.err.count("\n") == 1


def test_a_reader_of_a_pipe_that_has_gone_is_no_denial(served: Served) -> None:
    with serving(served.database) as other:
        for i in range(50):
            other.grant("agent:a", "read", f"doc:x/{i}", metadata={"text": "x" * 10_000})
        with subprocess.Popen(
            [*COMMAND, "capabilities", "list", "--json", "--address", other.address],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait(30) < 0  # by SIGPIPE, which a shell shows as 141


def test_help_is_shown_without_loading_the_server_or_grpc() -> None:
    script = (
        "import sys; from licet.cli.main import main; status = main({arguments}); "
        "heavy = {{'grpc', 'google.protobuf', 'psycopg', 'pydantic_settings', "
        "'licet.bootstrap.process'}}; "
        "print(sorted(heavy & set(sys.modules)), status)"
    )
    shown = run_script(script.format(arguments="['--help']"))
    assert "Commands" in shown
    assert shown.endswith("[] 0\n")
    nobody = "['authorize', 'agent:a', 'read', 'doc:x', '--address', '127.0.0.1:1']"
    assert run_script(script.format(arguments=nobody)).endswith("['google.protobuf', 'grpc'] 2\n")
    assert run_script(script.format(arguments="[]")).endswith("[] 2\n")


def run_script(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout
