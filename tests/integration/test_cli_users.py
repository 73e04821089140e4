"""`licet users` and `licet principals` against a real server.

Run in this process, because each of their own costs a second.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from licet.cli.main import main
from licet.client import Client, LicetCallError
from tests.fakes.serving import Served
from tests.fakes.terminal import Finished

Licet = Callable[..., Finished]


@pytest.fixture
def licet(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Licet:
    """Provide the command line of an admin."""
    monkeypatch.setenv("LICET_ADDRESS", served.address)

    def call(*arguments: str, **variables: str) -> Finished:
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            status = main(arguments)
        return Finished(status, *capsys.readouterr())

    return call


def test_a_person_comes_changes_and_leaves(licet: Licet) -> None:
    made = licet("users", "create", "user:bob", "Bob@Example.org", "user,auditor", "--name", "Bob")
    assert made.status == 0
    for shown in ("user:bob", "bob@example.org", "auditor, user", "enabled"):
        assert shown in made.out
    token = licet("keys", "create", "laptop", "read", "--principal", "user:bob").out.strip()
    assert licet("whoami", LICET_API_KEY=token).status == 0
    assert "developer" in licet("users", "update", "user:bob", "--roles", "developer").out
    assert "Robert" in licet("users", "update", "user:bob", "--name", "Robert").out
    (key,) = licet("keys", "list", "--caller", "user:bob", "--json").objects
    assert key["name"] == "laptop"
    assert not licet("keys", "list", "--created-by", "user:bob", "--json").objects
    ended = licet("users", "disable", "user:bob", "--reason", "has left")
    assert ended.out.startswith("disabled at revision ")
    assert licet("users", "disable", "user:bob").out == "was disabled before\n"
    refused = licet("whoami", LICET_API_KEY=token)
    assert (refused.status, "UNAUTHENTICATED" in refused.err) == (2, True)
    assert licet("users", "list").out.count("user:bob") == 0
    assert "disabled by caller:anonymous" in licet("users", "list", "--include-disabled").out
    found = licet("users", "show", "BOB@example.org", "--json").object
    assert (found["principal"], found["name"], found["roles"]) == (
        "user:bob",
        "Robert",
        ["developer"],
    )
    assert found["disable_reason"] == "has left"
    again = licet("users", "enable", "user:bob", "--json").object
    assert (again["already"], again["user"]["disabled_at"]) == (False, None)
    assert licet("users", "enable", "user:bob").out == "was enabled before\n"
    assert licet("whoami", LICET_API_KEY=token).status == 0
    failed = licet("users", "create", "user:bob", "x@example.org", "user")
    assert (failed.status, "USER_EXISTS" in failed.err) == (2, True)


def test_a_principal_is_suspended_and_resumed(licet: Licet) -> None:
    assert licet("grant", "agent:a", "read", "doc:**").status == 0
    assert licet("authorize", "agent:a", "read", "doc:x").status == 0
    done = licet("principals", "suspend", "agent:a", "--reason", "leaked")
    assert done.out.startswith("suspended at revision ")
    assert licet("principals", "suspend", "agent:a").out == "was suspended before\n"
    denied = licet("authorize", "agent:a", "read", "doc:x", "--explain")
    assert (denied.status, "PRINCIPAL_SUSPENDED" in denied.out) == (1, True)
    assert "agent:a is suspended" in denied.out
    (listed,) = licet("principals", "list", "--json").objects
    assert (listed["principal"], listed["reason"]) == ("agent:a", "leaked")
    resumed = licet("principals", "resume", "agent:a", "--json").object
    assert not resumed["already"]
    assert licet("principals", "resume", "agent:a").out == "was not suspended\n"
    assert licet("authorize", "agent:a", "read", "doc:x").status == 0
    assert not licet("principals", "list", "--json").objects
    ended = licet("principals", "list", "--include-ended", "--principal", "agent:a").out
    assert "resumed by caller:anonymous" in ended


def test_the_client_library_has_them(served: Served) -> None:
    with Client(served.address) as client:
        made = client.callers.users.create("user:bob", "bob@example.org", ["sre"])
        assert made.user.scopes == ("approve", "audit", "authorize", "grant", "read", "revoke")
        client.callers.users.create("user:al", "al@example.org", ["user"])
        listed = client.callers.users.list(page_size=1)
        assert [user.principal for user in listed] == ["user:al", "user:bob"]
        assert client.callers.users.get(email="al@example.org").principal == "user:al"
        with pytest.raises(LicetCallError) as raised:
            client.callers.users.update("user:bob")
        assert raised.value.code == "INVALID_ARGUMENT"
        for name in ("agent:a", "agent:b"):
            assert not client.callers.principals.suspend(name).already
        found = client.callers.principals.suspensions(page_size=1)
        assert [suspension.principal for suspension in found] == ["agent:a", "agent:b"]
        assert client.authorize("agent:a", "read", "doc:x").reason == "PRINCIPAL_SUSPENDED"
