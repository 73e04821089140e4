"""Who may give approvals, and who may read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest

from licet.domain.user import SCOPES, Role
from licet.v1 import approval_pb2 as pb
from licet.v1 import users_pb2 as users
from licet.v1.approval_pb2_grpc import ApprovalServiceStub
from tests.fakes.api import refused, rows
from tests.fakes.approvals import (
    AGENT,
    ALLOW,
    APPROVED,
    PENDING,
    QUESTION,
    REJECTED,
    SHELL,
    asked,
    get,
    prepared,
    request,
    resolve,
)
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database
from tests.fakes.serving import Failure, Served, serving

BOTH = (SHELL, "name: ops, match: {resources: ['tool:**']}, require: {approval: sre}")


class People:
    """Makes users and keys, and calls with them."""

    def __init__(self, served: Served, stack: ExitStack) -> None:
        self.served = served
        self.admin = stack.enter_context(calling(served.address))
        self._stack = stack

    def user(self, name: str, *roles: str) -> As:
        """Return what calls as a user with a key of all that its roles may."""
        made = users.CreateUserRequest(
            principal=f"user:{name}", email=f"{name}@example.org", roles=roles
        )
        self.admin.identity.CreateUser(made, timeout=10)
        scopes = {scope for role in roles for scope in SCOPES[Role(role)]}
        return self.key(*sorted(scopes), principal=f"user:{name}")

    def key(self, *scopes: str, principal: str = "", resources: tuple[str, ...] = ()) -> As:
        """Return what calls with a key."""
        made = make_key(self.admin, *scopes, resources=resources, principal=principal)
        return self._stack.enter_context(holding(self.served.address, made.token))


@pytest.fixture
def people(database: Database) -> Iterator[People]:
    with serving(database) as served, ExitStack() as stack:
        yield People(served, stack)


def denied(caller: As, approval_id: str) -> Failure:
    """Return what approving failed with, for want of a right."""
    failed = refused(lambda: resolve(caller.channel, approval_id))
    assert failed.code is grpc.StatusCode.PERMISSION_DENIED
    return failed


def test_who_approves_has_the_scope_and_the_role(people: People, database: Database) -> None:
    served = people.served
    prepared(served)
    approval_id = asked(served)
    sre, security = people.user("sam", "sre"), people.user("eve", "security")

    assert denied(people.key("read", "authorize", "policy"), approval_id).reason == "SCOPE_MISSING"
    # A program has no role.
    assert denied(people.key("approve"), approval_id).reason == "ROLE_MISSING"
    assert denied(sre, approval_id).reason == "ROLE_MISSING"
    assert refused(lambda: resolve(sre.channel, approval_id, REJECTED)).reason == "ROLE_MISSING"
    narrow = people.key("approve", principal="user:eve", resources=("doc:**",))
    assert denied(narrow, approval_id).reason == "OUTSIDE_LIMITS"
    query = (
        "SELECT actor, reason FROM audit.events"
        " WHERE event_type ~ '^approval' AND result = 'refused' AND actor !~ '^key'"
        " ORDER BY event_id"
    )
    assert rows(database, query) == [
        ("user:sam", "ROLE_MISSING"),
        ("user:sam", "ROLE_MISSING"),
        ("user:eve", "OUTSIDE_LIMITS"),
    ]
    assert get(served.channel, approval_id).state == PENDING
    done = resolve(security.channel, approval_id, comment="go")
    assert (done.approval.state, done.approval.resolved_by) == (APPROVED, "user:eve")
    assert served.authorize(*QUESTION).decision == ALLOW


def test_roles_are_those_of_now(people: People) -> None:
    prepared(people.served)
    approval_id = asked(people.served)
    eve = people.user("eve", "security")
    update = users.UpdateUserRequest(principal="user:eve", roles=["sre"])
    people.admin.identity.UpdateUser(update, timeout=10)
    assert denied(eve, approval_id).reason == "ROLE_MISSING"
    update = users.UpdateUserRequest(principal="user:eve", roles=["auditor"])
    people.admin.identity.UpdateUser(update, timeout=10)
    assert denied(eve, approval_id).reason == "SCOPE_MISSING"


def test_nobody_approves_what_they_ask_for(people: People) -> None:
    served = people.served
    prepared(served)
    served.grant("user:root", "execute", "tool:**")
    root, eve = people.user("root", "admin"), people.user("eve", "security")

    def ask(caller: As, principal: str) -> str:
        question = request((principal, *QUESTION[1:]))
        return caller.authorization.Authorize(question, timeout=10).approval_id

    own, on_behalf = ask(people.admin, "user:root"), ask(root, AGENT)
    # As the principal, as who asked; an admin as well.
    assert denied(root, own).reason == "OWN_REQUEST"
    assert denied(root, on_behalf).reason == "OWN_REQUEST"
    # To withdraw it is another thing.
    assert resolve(root.channel, on_behalf, REJECTED).approval.state == REJECTED
    resolve(eve.channel, own)
    assert ask(root, "user:root") == ""  # an ALLOW


def test_who_approved_cannot_use_it(people: People) -> None:
    """The second who asks is nowhere on record as one who did."""
    served = people.served
    prepared(served)
    approval_id = asked(served)
    root, gate = people.user("root", "admin"), people.key("authorize")
    resolve(root.channel, approval_id)

    own = root.authorization.Authorize(request(), timeout=10)
    assert own.decision != ALLOW
    assert gate.authorization.Authorize(request(), timeout=10).decision == ALLOW


def test_each_role_by_somebody_who_has_it(people: People) -> None:
    served = people.served
    prepared(served, *BOTH)
    approval_id = asked(served)
    eve, sam = people.user("eve", "security"), people.user("sam", "sre")

    first = resolve(eve.channel, approval_id, comment="mine").approval
    assert (first.state, first.capability_id) == (PENDING, "")
    assert [(c.role, c.given_by, c.comment) for c in first.consents] == [
        ("security", "user:eve", "mine")
    ]
    again = refused(lambda: resolve(eve.channel, approval_id))
    assert (again.code, again.reason) == (*(grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_GIVEN"),)
    assert asked(served) == approval_id
    assert resolve(sam.channel, approval_id).approval.state == APPROVED
    assert served.authorize(*QUESTION).decision == ALLOW
    # One with both gives both at once; one rejection is enough.
    both = people.user("bo", "security", "sre")
    assert resolve(both.channel, asked(served)).approval.state == APPROVED
    served.authorize(*QUESTION)
    third = asked(served)
    resolve(eve.channel, third)
    assert resolve(sam.channel, third, REJECTED).approval.state == REJECTED


def test_the_one_who_asked_reads_it_without_a_scope(people: People) -> None:
    prepared(people.served)
    gate, other = people.key("authorize"), people.key("authorize")
    approval_id = gate.authorization.Authorize(request(), timeout=10).approval_id

    assert get(gate.channel, approval_id).state == PENDING
    assert get(people.key("approve").channel, approval_id).state == PENDING
    assert get(people.key("authorize", principal=AGENT).channel, approval_id).principal == AGENT
    failed = refused(lambda: get(other.channel, approval_id))
    assert failed.code is grpc.StatusCode.NOT_FOUND
    listed = ApprovalServiceStub(gate.channel).ListApprovals
    missing = refused(lambda: listed(pb.ListApprovalsRequest(), timeout=10))
    assert missing.reason == "SCOPE_MISSING"
