"""Users on a real server: their roles bind their keys, and a disabled user is nobody's caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import grpc
import pytest

from licet.v1 import authorization_pb2 as az
from licet.v1 import identity_pb2 as pb
from licet.v1 import users_pb2 as up
from tests.fakes.api import count, refused, rows
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database
from tests.fakes.serving import Served, serving

WHO = pb.GetCallerRequest()
QUESTION = az.AuthorizeRequest(principal="agent:a", action="read", resource="doc:a")
GRANT = az.GrantRequest(principal="agent:a", actions=["read"], resource="doc:a")
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
def admin(served: Served) -> Iterator[As]:
    """Provide the services of a server on loopback, called by nobody in particular: the admin."""
    with calling(served.address) as services:
        yield services


def make_user(services: As, principal: str, *roles: str, **fields: str) -> up.CreateUserResponse:
    given = {"email": f"{principal.partition(':')[2]}@example.org"} | fields
    request = up.CreateUserRequest(principal=principal, roles=roles, **given)
    return services.identity.CreateUser(request, timeout=10)


def update(services: As, principal: str, *roles: str, **fields: str) -> up.UpdateUserResponse:
    request = up.UpdateUserRequest(principal=principal, roles=roles, **fields)
    return services.identity.UpdateUser(request, timeout=10)


def disable(services: As, principal: str) -> up.DisableUserResponse:
    request = up.DisableUserRequest(principal=principal, reason="has left")
    return services.identity.DisableUser(request, timeout=10)


def enable(services: As, principal: str) -> up.EnableUserResponse:
    return services.identity.EnableUser(up.EnableUserRequest(principal=principal), timeout=10)


def get(services: As, **who: str) -> up.User:
    return services.identity.GetUser(up.GetUserRequest(**who), timeout=10).user


def scopes(address: str, token: str) -> list[str]:
    with holding(address, token) as caller:
        return list(caller.identity.GetCaller(WHO, timeout=10).scopes)


def why(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    failed = refused(call)
    return failed.code, failed.reason


def test_a_user_is_made_found_and_listed(admin: As) -> None:
    made = make_user(admin, "user:alice", "sre", "auditor", name="Alice", email="Alice@Example.ORG")
    user = made.user
    assert (user.principal, user.name, user.email) == ("user:alice", "Alice", "alice@example.org")
    assert list(user.roles) == ["auditor", "sre"]
    assert list(user.scopes) == ["approve", "audit", "authorize", "grant", "read", "revoke"]
    assert (user.created_by, user.revision) == ("caller:anonymous", made.revision)
    assert get(admin, principal="user:alice") == user == get(admin, email="ALICE@example.org")
    bob = make_user(admin, "user:bob", "user").user
    disabled = disable(admin, "user:bob").user

    def listed(**wanted: object) -> list[up.User]:
        request = up.ListUsersRequest(**wanted)  # type: ignore[arg-type] # any field
        return list(admin.identity.ListUsers(request, timeout=10).users)

    assert listed() == [user]
    assert listed(include_disabled=True) == [user, disabled]
    assert listed(include_disabled=True, role="user") == [disabled]
    assert (disabled.disabled_by, disabled.disable_reason) == ("caller:anonymous", "has left")
    assert not bob.HasField("disabled_at")
    first = admin.identity.ListUsers(
        up.ListUsersRequest(include_disabled=True, page_size=1), timeout=10
    )
    rest = up.ListUsersRequest(include_disabled=True, page_token=first.next_page_token)
    assert [*first.users, *admin.identity.ListUsers(rest, timeout=10).users] == [user, disabled]
    other = up.ListUsersRequest(page_token=first.next_page_token)
    assert refused(lambda: admin.identity.ListUsers(other, timeout=10)).fields == ("page_token",)
    assert why(lambda: get(admin, principal="user:x")) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


def test_names_and_addresses_are_taken_once(admin: As) -> None:
    make_user(admin, "user:alice", "user")
    make_user(admin, "user:bob", "user")
    disable(admin, "user:alice")
    taken = (FAILED_PRECONDITION, "EMAIL_TAKEN")
    assert why(lambda: make_user(admin, "user:c", "user", email="ALICE@EXAMPLE.ORG")) == taken
    assert why(lambda: update(admin, "user:bob", email="alice@example.org")) == taken
    assert why(lambda: make_user(admin, "user:alice", "user", email="a2@example.org")) == (
        FAILED_PRECONDITION,
        "USER_EXISTS",
    )
    # Its own address in another case is no other.
    assert update(admin, "user:alice", email="Alice@Example.org", name="A").user.name == "A"


def test_what_is_asked_of_users_is_checked(admin: As) -> None:
    def made_with(**fields: object) -> tuple[str, ...]:
        given = {"principal": "user:a", "email": "a@example.org", "roles": ["user"]} | fields
        request = up.CreateUserRequest(**given)  # type: ignore[arg-type] # any field
        return refused(lambda: admin.identity.CreateUser(request, timeout=10)).fields

    assert made_with(principal="agent:a") == ("principal",)
    assert made_with(principal="user:") == ("principal",)
    assert made_with(email="") == ("email",)
    assert made_with(email="alice") == ("email",)
    assert made_with(roles=[]) == ("roles",)
    assert made_with(roles=["user", "user"]) == ("roles",)
    assert made_with(roles=["user", "root"]) == ("roles[1]",)
    assert made_with(name="x" * 129) == ("name",)
    assert refused(lambda: update(admin, "user:a")).fields == ("roles",)
    assert refused(lambda: get(admin)).fields == ("principal",)
    both = {"principal": "user:a", "email": "a@b.org"}
    assert refused(lambda: get(admin, **both)).fields == ("principal",)
    listing = up.ListUsersRequest(role="root")
    assert refused(lambda: admin.identity.ListUsers(listing, timeout=10)).fields == ("role",)
    assert why(lambda: update(admin, "user:x", "user"))[0] is grpc.StatusCode.NOT_FOUND
    assert why(lambda: disable(admin, "user:x"))[0] is grpc.StatusCode.NOT_FOUND


def test_a_key_may_what_its_users_roles_may_at_that_moment(served: Served, admin: As) -> None:
    make_user(admin, "user:alice", "sre")
    assert why(lambda: make_key(admin, "read", "identity", principal="user:alice")) == (
        PERMISSION_DENIED,
        "SCOPES_BEYOND_ROLES",
    )
    made = make_key(admin, "grant", "read", principal="user:alice")
    assert scopes(served.address, made.token) == ["grant", "read"]
    with holding(served.address, made.token) as alice:
        alice.authorization.Grant(GRANT, timeout=10)
        update(admin, "user:alice", "developer")
        assert why(lambda: alice.authorization.Grant(GRANT, timeout=10))[0] is PERMISSION_DENIED
        assert scopes(served.address, made.token) == ["read"]
        update(admin, "user:alice", "user")
        # None of its scopes is left: not even what any scope is enough for.
        assert why(lambda: alice.identity.GetCaller(WHO, timeout=10)) == (
            PERMISSION_DENIED,
            "SCOPE_MISSING",
        )
        update(admin, "user:alice", "admin")
        assert scopes(served.address, made.token) == ["grant", "read"]
        alice.authorization.Grant(GRANT, timeout=10)


def test_a_user_binds_the_keys_that_were_there_before(served: Served, admin: As) -> None:
    made = make_key(admin, "admin", principal="user:alice")
    assert scopes(served.address, made.token) == ["admin"]
    make_user(admin, "user:alice", "auditor")
    # `admin` stands for all scopes: what the roles have is left of it.
    assert scopes(served.address, made.token) == ["audit", "read"]


def test_the_keys_of_a_disabled_user_count_for_nothing_until_it_is_enabled(
    served: Served, admin: As
) -> None:
    make_user(admin, "user:alice", "user")
    served.grant("user:alice", "read", "doc:a")
    made = make_key(admin, "authorize", principal="user:alice")
    assert scopes(served.address, made.token) == ["authorize"]
    done = disable(admin, "user:alice")
    assert (done.already_disabled, done.replicas_confirmed) == (False, 1)
    failed = refused(lambda: scopes(served.address, made.token))
    # As of a key that was never made: a thief learns nothing.
    assert (failed.code, failed.message) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "an API key is required: `authorization: Bearer licet_...`",
    )
    # What it holds is another matter: gates go on asking about it.
    assert served.authorize("user:alice", "read", "doc:a").decision == 1
    again = disable(admin, "user:alice")
    assert again.already_disabled
    assert again.user == done.user
    assert why(lambda: make_key(admin, "authorize", principal="user:alice")) == (
        FAILED_PRECONDITION,
        "USER_DISABLED",
    )
    enabled = enable(admin, "user:alice")
    assert not enabled.already_enabled
    assert enable(admin, "user:alice").already_enabled
    assert scopes(served.address, made.token) == ["authorize"]


def test_nobody_gives_or_takes_what_they_have_not(served: Served, admin: As) -> None:
    make_user(admin, "user:root", "admin")
    make_user(admin, "user:bob", "user")
    clerk = make_key(admin, "identity", "authorize", "read", "approve")
    with holding(served.address, clerk.token) as caller:
        wider = (PERMISSION_DENIED, "SCOPES_WIDER")
        assert why(lambda: make_user(caller, "user:eve", "admin")) == wider
        assert why(lambda: make_user(caller, "user:eve", "user", "sre")) == wider
        assert why(lambda: update(caller, "user:bob", "auditor")) == wider
        # Not even the address, nor to a role that would be allowed: it is above the caller.
        assert why(lambda: update(caller, "user:root", email="eve@example.org")) == wider
        assert why(lambda: update(caller, "user:root", "user")) == wider
        assert why(lambda: disable(caller, "user:root")) == wider
        assert why(lambda: enable(caller, "user:root")) == wider
        make_user(caller, "user:carol", "developer")
        update(caller, "user:bob", "developer")
        disable(caller, "user:bob")
        enable(caller, "user:bob")
    limited = make_key(admin, "admin", principals=("user:bob",))
    with holding(served.address, limited.token) as caller:
        outside = (PERMISSION_DENIED, "OUTSIDE_LIMITS")
        assert why(lambda: disable(caller, "user:carol")) == outside
        disable(caller, "user:bob")
    refusals = "SELECT DISTINCT reason FROM audit.events WHERE event_type ~ '^user' AND result = %s"
    assert {reason for (reason,) in rows(served.database, refusals, "refused")} == {
        "SCOPES_WIDER",
        "OUTSIDE_LIMITS",
    }


def test_nobody_changes_what_they_may_themselves(served: Served, admin: As) -> None:
    make_user(admin, "user:root", "admin")
    token = make_key(admin, "admin", principal="user:root").token
    early = make_key(admin, "admin", principal="user:early").token
    with holding(served.address, token) as root:
        own = (PERMISSION_DENIED, "OWN_RIGHTS")
        assert why(lambda: update(root, "user:root", "user")) == own
        assert why(lambda: disable(root, "user:root")) == own
        # So the last admin stays one; its name it may change.
        assert update(root, "user:root", name="Root").user.name == "Root"
        make_user(root, "user:other", "admin")
    with holding(served.address, early) as caller:
        assert why(lambda: make_user(caller, "user:early", "admin")) == own


def test_everything_is_on_record_but_names_and_addresses(served: Served, admin: As) -> None:
    make_user(admin, "user:root", "admin")
    with holding(served.address, make_key(admin, "admin", principal="user:root").token) as root:
        make_user(root, "user:bob", "user", name="Bob B.")
        update(root, "user:bob", "sre", email="bob@example.com")
        disable(root, "user:bob")
        disable(root, "user:bob")
        enable(root, "user:bob")
        refused(lambda: make_user(root, "user:bob", "user"))
    found = rows(
        served.database,
        "SELECT event_type, result, reason, metadata FROM audit.events"
        " WHERE actor = 'user:root' AND principal = 'user:bob' ORDER BY event_id",
    )
    assert found == [
        ("user.created", "done", "", {"roles": ["user"]}),
        ("user.updated", "done", "", {"changed": ["email", "roles"], "roles": ["sre"]}),
        ("user.disabled", "done", "", {"reason": "has left"}),
        ("user.disabled", "done", "ALREADY", {"reason": "has left"}),
        ("user.enabled", "done", "", {"reason": ""}),
        ("user.created", "refused", "USER_EXISTS", {"roles": ["user"]}),
    ]
    logged = count(served.database, "SELECT count(*) FROM audit.events WHERE metadata::text ~ '@'")
    assert logged == 0


def test_a_repeated_change_happens_once(served: Served, admin: As) -> None:
    first = make_user(admin, "user:bob", "user", request_id="r")
    assert make_user(admin, "user:bob", "user", request_id="r") == first
    disable(admin, "user:bob")
    # What has become of it since is nothing to the repetition.
    assert make_user(admin, "user:bob", "user", request_id="r") == first
    assert why(lambda: make_user(admin, "user:bob", "sre", request_id="r")) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )
    assert count(served.database, "SELECT max(revision) FROM licet.changes") == 2


def test_watchers_see_that_a_revision_was_and_no_address(admin: As) -> None:
    watch = admin.authorization.WatchChanges(az.WatchChangesRequest(after_revision=0), timeout=30)
    assert next(watch).HasField("heartbeat")
    make_user(admin, "user:bob", "user")
    change = next(watch).change
    assert (change.revision, list(change.principals), change.everything) == (1, [], False)
    watch.cancel()


class Use:
    """Threads that use keys of a user, and one that makes more of them, until it is disabled."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.wrong: list[str] = []
        self.disabled = threading.Event()
        self.warm = threading.Barrier(10)

    def use(self, address: str, token: str) -> None:
        with holding(address, token) as caller:
            caller.authorization.Authorize(QUESTION, timeout=10)
            self.warm.wait(30)
            for _ in range(100_000):
                was_disabled = self.disabled.is_set()
                try:
                    caller.authorization.Authorize(QUESTION, timeout=10)
                except grpc.RpcError as exc:
                    if exc.code() is not grpc.StatusCode.UNAUTHENTICATED:
                        self.wrong.append(str(exc.code()))
                    return
                if was_disabled:
                    self.wrong.append("accepted after it was disabled")
                    return
            self.wrong.append("never refused")

    def make(self, address: str) -> None:
        self.warm.wait(30)
        with calling(address) as maker:
            while not self.disabled.is_set():
                try:
                    made = make_key(maker, "authorize", principal="user:alice")
                except grpc.RpcError:
                    return
                self.tokens.append(made.token)


def test_no_key_is_accepted_after_its_user_was_disabled(database: Database) -> None:
    """Eight threads on two replicas use keys all the while, as new ones are made."""
    with serving(database) as one, serving(database) as two, calling(one.address) as admin:
        make_user(admin, "user:alice", "user")
        first = [make_key(admin, "authorize", principal="user:alice").token for _ in range(2)]
        addresses = [one.address, two.address]
        use = Use(list(first))
        threads = [
            threading.Thread(target=use.use, args=(address, token))
            for address in addresses
            for token in first * 2
        ]
        threads.append(threading.Thread(target=use.make, args=(two.address,)))
        for thread in threads:
            thread.start()
        use.warm.wait(30)
        answer = disable(admin, "user:alice")
        use.disabled.set()
        for address, token in product(addresses, tuple(use.tokens)):
            failed = refused(partial(scopes, address, token))
            assert failed.code is grpc.StatusCode.UNAUTHENTICATED
        for thread in threads:
            thread.join(30)
        assert (answer.replicas_confirmed, answer.replicas_fenced) == (2, 0)
        assert not use.wrong
