"""Users: what each role may use, what is left of a key's scopes, and e-mail addresses."""

from __future__ import annotations

import pytest

from licet.domain.caller import EVERYTHING, Scope
from licet.domain.errors import InvalidRequestError
from licet.domain.user import APPROVERS, SCOPES, Role, email_address, powers_of, user_name, within

ADMIN, AUTHORIZE, GRANT, READ = Scope.ADMIN, Scope.AUTHORIZE, Scope.GRANT, Scope.READ


def test_every_role_has_scopes_and_its_value_stays() -> None:
    assert set(SCOPES) == set(Role) == {"user", "developer", "sre", "security", "auditor", "admin"}
    assert all(SCOPES.values())


def test_only_an_admin_administrates() -> None:
    for role in set(Role) - {Role.ADMIN}:
        assert not SCOPES[role] & {Scope.IDENTITY, Scope.POLICY, Scope.ADMIN}
    assert SCOPES[Role.ADMIN] == EVERYTHING


def test_a_policy_names_roles_that_can_approve() -> None:
    assert APPROVERS == ("developer", "sre", "security", "admin")
    assert Scope.APPROVE not in SCOPES[Role.AUDITOR] | SCOPES[Role.USER]


def test_roles_add_up() -> None:
    assert powers_of([]) == frozenset()
    assert powers_of([Role.USER, Role.AUDITOR]) == {AUTHORIZE, READ, Scope.AUDIT}


@pytest.mark.parametrize(
    ("scopes", "roles", "left"),
    [
        ({AUTHORIZE, GRANT}, [Role.SRE], {AUTHORIZE, GRANT}),
        ({AUTHORIZE, GRANT}, [Role.DEVELOPER], {AUTHORIZE}),
        ({GRANT}, [Role.DEVELOPER], set()),
        ({GRANT}, [Role.ADMIN], {GRANT}),
        ({ADMIN}, [Role.ADMIN], {ADMIN}),
        ({ADMIN}, [Role.DEVELOPER], {AUTHORIZE, READ, Scope.APPROVE}),
        ({ADMIN, GRANT}, [Role.USER], {AUTHORIZE}),
        ({ADMIN}, [], set()),
    ],
)
def test_a_key_may_what_its_users_roles_may_as_well(
    scopes: set[Scope], roles: list[Role], left: set[Scope]
) -> None:
    assert within(scopes, roles) == left


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("alice@example.org", "alice@example.org"),
        ("Alice.B+tag@Mail.Example.ORG", "alice.b+tag@mail.example.org"),
        ("o'hara@xn--bcher-kva.example", "o'hara@xn--bcher-kva.example"),
        (f"{'a' * 64}@example.org", f"{'a' * 64}@example.org"),
        (f"a@{'b' * 63}.org", f"a@{'b' * 63}.org"),
    ],
)
def test_an_address_is_kept_in_lower_case(text: str, normal: str) -> None:
    assert email_address(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "@example.org",
        "alice@",
        "alice@example",
        "alice@@example.org",
        "alice@bob@example.org",
        ".alice@example.org",
        "alice.@example.org",
        "al..ice@example.org",
        "al ice@example.org",
        "alice@exam ple.org",
        "alice@-example.org",
        "alice@example-.org",
        "alice@example..org",
        "alice@example.org.",
        "alice@example.org\n",
        "alice\x00@example.org",
        "älice@example.org",
        "alice@exämple.org",
        # The Kelvin sign, which is a k in lower case.
        "\u212aate@example.org",
        '"alice"@example.org',
        "Alice <alice@example.org>",
        f"{'a' * 65}@example.org",
        f"a@{'b' * 64}.org",
        f"a@{'.'.join(['b' * 60] * 5)}",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        email_address(text, "email")
    assert [violation.field for violation in raised.value.violations] == ["email"]


@pytest.mark.parametrize("text", ["", "alice", "agent:alice", "user:", "users:alice", "USER:alice"])
def test_what_is_no_user_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        user_name(text)
    assert user_name("user:alice") == "user:alice"
