"""`licet approvals`, as people and programs see it."""

from __future__ import annotations

import json

import pytest

from licet.cli.main import main
from licet.client import Client, LicetCallError
from tests.fakes.approvals import QUESTION, SHELL, asked, prepared
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.integration.test_metrics import scraped

OPS = "name: ops, match: {actions: [execute]}, require: {approval: sre}"


def test_an_approval_is_shown_whole(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LICET_ADDRESS", served.address)
    prepared(served, SHELL, OPS)
    approval_id = asked(served)
    assert main(["authorize", *QUESTION]) == 1
    assert f"approval {approval_id}" in capsys.readouterr().out

    assert main(["approvals", "show", approval_id]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "state PENDING" in shown
    assert "roles security, sre" in shown
    assert "policies shell, ops (set 1)" in shown
    assert main(["approvals", "approve", approval_id, "--comment", "go", "--ttl", "2m"]) == 0
    assert "APPROVED: agent:a execute tool:shell; replicas: 1" in capsys.readouterr().out
    assert main(["--json", "approvals", "show", approval_id]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["resolved_by"]) == ("APPROVED", "caller:anonymous")
    assert [consent["ttl"] for consent in found["consents"]] == ["120s", "120s"]
    assert main(["approvals", "approve", approval_id]) == 2
    assert main(["approvals", "list", "--state", "lost"]) == 2
    assert "must be one of PENDING, APPROVED" in capsys.readouterr().err


def test_the_client_library_has_them(served: Served) -> None:
    prepared(served)
    with Client(served.address) as client:
        denied = client.authorize(*QUESTION)
        assert denied.approval_id
        done = client.approvals.reject(denied.approval_id, comment="no", request_id="r1")
        assert client.approvals.reject(
            denied.approval_id, comment="no", request_id="r1"
        ).approval == (done.approval)
        (found,) = client.approvals.list(state="REJECTED", principal="agent:a", page_size=1)
        assert found == client.approvals.get(denied.approval_id) == done.approval
        with pytest.raises(LicetCallError):
            client.approvals.list(state="LOST")


def test_the_trail_of_a_principal_has_its_approvals(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LICET_ADDRESS", served.address)
    prepared(served)
    with Client(served.address) as client:
        client.approvals.approve(asked(served))
        assert client.authorize(*QUESTION).allowed
        assert eventually(lambda: len(list(client.audit(event_types=("decision",)))) == 2)
    assert main(["--json", "audit", "trail", "--principal", QUESTION[0]]) == 0
    told = [json.loads(line)["event_type"] for line in capsys.readouterr().out.splitlines()]
    assert [kind for kind in told if kind != "decision"] == [
        *("grant", "approval.requested", "approval.approved", "approval.used"),
    ]


def test_approvals_are_counted(database: Database) -> None:
    with serving(database, metrics_listen="127.0.0.1:0") as served:
        prepared(served)
        with Client(served.address) as client:
            client.approvals.approve(asked(served))
            assert client.authorize(*QUESTION).allowed
        found = scraped(served)
        assert found["licet_approvals_requested_total"] == 1
        assert found["licet_approvals_used_total"] == 1
        assert found["licet_approvals_not_requested_total"] == 0
