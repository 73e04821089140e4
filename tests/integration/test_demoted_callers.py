"""Callers whose roles change while their call is under way: what they ask for is not done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from typing_extensions import override

from licet.app.administration import AdminChange, AdminChanges
from licet.app.agents import ManageAgents, SwitchCommand
from licet.app.approvals import ManageApprovals, ResolveCommand
from licet.app.bootstrap_tokens import (
    CreateBootstrapCommand,
    ManageBootstrapTokens,
    RevokeBootstrapCommand,
)
from licet.app.import_audit import ForeignEvent, ImportAudit, ImportCommand
from licet.app.policies import PutPolicySetCommand, RollbackCommand
from licet.app.ports import Applied, Deadline
from licet.bootstrap.policies import Policies
from licet.domain.api_key import KeyId
from licet.domain.audit_event import AuditEvent
from licet.domain.caller import UNLIMITED, Identity, Scope
from licet.domain.canonical_json import EMPTY
from licet.domain.errors import ConflictError
from licet.domain.instant import Instant
from licet.domain.names import ApprovalId, Caller
from licet.domain.pattern import ResourcePattern
from licet.replica.clock import SystemClock
from licet.replica.lease import Lease
from licet.storage.administration import PostgresAdminChanges
from licet.storage.agents import PostgresAgents
from licet.storage.approvals import PostgresApprovals
from licet.storage.pool import Database as Pool
from licet.storage.pool import PoolLimits
from licet.storage.tokens import SignedPageTokens
from licet.storage.users import PostgresUsers
from licet.v1 import policy_pb2 as pb
from licet.v1 import users_pb2 as up
from licet.v1.policy_pb2_grpc import PolicyServiceStub
from licet.writer.agents import AgentWriter
from licet.writer.approvals import ApprovalWriter
from licet.writer.ids import RandomKeys, TimeOrderedIds
from tests.fakes.agents import make_agent, make_bootstrap
from tests.fakes.api import rows
from tests.fakes.approvals import PENDING, asked, get, prepared
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database
from tests.fakes.serving import Served
from tests.unit.builders import PATIENT
from tests.unit.policies import document

NOTHING = document()
ALICE = Identity.of(Caller("user:alice"), {Scope.ADMIN}, UNLIMITED, "0123456789abcdef")
"""Alice as she was let in: an admin."""
DAY_MICROS = 86_400_000_000
FOREIGN = ForeignEvent(
    "e-1", Instant(0), "check", "", "", "", "", "", "", "", "", "", "", metadata=EMPTY
)


@pytest.fixture
def admin(served: Served) -> Iterator[As]:
    """Provide the services of a server on loopback, as the admin calls them; Alice is a user."""
    with calling(served.address) as services:
        request = up.CreateUserRequest(
            principal="user:alice", email="alice@example.org", roles=["admin"]
        )
        services.identity.CreateUser(request, timeout=10)
        yield services


@pytest.fixture
def pool(served: Served) -> Iterator[Pool]:
    opened = Pool(served.database.url, PoolLimits(min_size=1, max_size=2))
    opened.open(10)
    yield opened
    opened.close()


def give(admin: As, role: str) -> None:
    request = up.UpdateUserRequest(principal="user:alice", roles=[role])
    admin.identity.UpdateUser(request, timeout=10)


class Overtaken(AdminChanges):
    """Makes a change when Alice has lost her role, which she had when it was checked."""

    def __init__(self, pool: Pool, admin: As) -> None:
        self._store = PostgresAdminChanges(pool)
        self._admin = admin

    @override
    def make(
        self, change: AdminChange, raise_refusal: Callable[[str], None], deadline: Deadline
    ) -> Applied:
        return self.commit(change, deadline)

    @override
    def commit(self, change: AdminChange, deadline: Deadline) -> Applied:
        give(self._admin, "developer")
        return self._store.make(change, deadline)

    @override
    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        raise AssertionError(event)


class Unheard:
    """Takes note of no agent."""

    def heard(self, name: str) -> None:
        raise AssertionError(name)


def use_cases(
    pool: Pool, changes: AdminChanges, token_id: KeyId
) -> dict[str, Callable[[Identity, Deadline], object]]:
    """Return a call of each use case, by the type of the event that it would record."""
    clock, users, store = SystemClock(), PostgresUsers(pool), PostgresAgents(pool)
    ids, tokens = TimeOrderedIds(clock), SignedPageTokens(bytes(32))
    ports = (RandomKeys(bytes(32)), ids, clock, tokens, users)
    agents = ManageAgents(AgentWriter(changes), store, Unheard(), *ports)
    bootstrap = ManageBootstrapTokens(AgentWriter(changes), store, *ports)
    policies = Policies(pool, Lease(lambda: 0.0)).managed(changes, ids, tokens, users)
    imports = ImportAudit(changes, clock, ids, users)
    create = CreateBootstrapCommand("a farm", (ResourcePattern("agent:**"),), 1, DAY_MICROS, "")
    switch = SwitchCommand("one", "", "")
    put = PutPolicySetCommand(NOTHING, "", None, "", only_check=False)
    return {
        "bootstrap.created": lambda *who: bootstrap.create(create, *who),
        "bootstrap.revoked": lambda *who: bootstrap.revoke(
            RevokeBootstrapCommand(token_id, "", ""), *who
        ),
        "agent.deactivated": lambda *who: agents.deactivate(switch, *who),
        "agent.activated": lambda *who: agents.activate(switch, *who),
        "policy.put": lambda *who: policies.put(put, *who),
        "policy.rolled_back": lambda *who: policies.rollback(
            RollbackCommand(1, "", None, ""), *who
        ),
        "import.event": lambda *who: imports(ImportCommand("old", [FOREIGN], ""), *who),
    }


def events(database: Database) -> list[tuple[str, str]]:
    """Return the types of the events that Alice is the actor of, and how they came out."""
    query = "SELECT event_type, result FROM audit.events WHERE actor = 'user:alice'"
    return [(kind, result) for kind, result in rows(database, query)]


def test_nothing_is_done_by_roles_that_were_lost_while_it_was_under_way(
    served: Served, admin: As, pool: Pool
) -> None:
    make_agent(served.address, admin, "one")
    token_id = KeyId(make_bootstrap(admin).bootstrap_token.token_id)
    put = pb.PutPolicySetRequest(document=NOTHING)
    PolicyServiceStub(served.channel).PutPolicySet(put, timeout=20)
    done = []
    for kind, call in use_cases(pool, Overtaken(pool, admin), token_id).items():
        give(admin, "admin")
        try:
            call(ALICE, PATIENT)
        except ConflictError:
            continue
        done.append(kind)
    assert done == []
    assert events(served.database) == []


def test_nothing_is_approved_by_roles_that_were_lost_while_it_was_under_way(
    served: Served, admin: As, pool: Pool
) -> None:
    prepared(served)
    approval_id = ApprovalId(asked(served))
    clock = SystemClock()
    ids, stored = TimeOrderedIds(clock), PostgresApprovals(pool, clock)
    writer = ApprovalWriter(Overtaken(pool, admin), stored, ids, lambda: 0.0)
    ports = (PostgresUsers(pool), ids, clock, SignedPageTokens(bytes(32)))
    command = ResolveCommand(approval_id, is_consent=True, comment="", ttl_seconds=9, request_id="")
    with pytest.raises(ConflictError):
        ManageApprovals(writer, stored, *ports).resolve(command, ALICE, PATIENT)
    assert get(served.channel, approval_id).state == PENDING


def test_nothing_is_asked_for_by_roles_that_were_lost_before(
    admin: As, pool: Pool, served: Served
) -> None:
    make_agent(served.address, admin, "one")
    put = pb.PutPolicySetRequest(document=NOTHING)
    PolicyServiceStub(served.channel).PutPolicySet(put, timeout=20)
    give(admin, "developer")
    changes = Overtaken(pool, admin)
    for call in use_cases(pool, changes, KeyId("0123456789abcdef")).values():
        with pytest.raises(ConflictError, match="the roles of the caller have changed meanwhile"):
            call(ALICE, PATIENT)
    assert events(served.database) == []


def test_a_request_that_comes_again_after_a_change_of_the_caller_is_the_same(
    served: Served, admin: As
) -> None:
    key = make_key(admin, "admin", principal="user:alice")
    request = pb.PutPolicySetRequest(document=NOTHING, request_id="r-1")
    with holding(served.address, key.token) as alice:
        policies = PolicyServiceStub(alice.channel)
        first = policies.PutPolicySet(request, timeout=20)
        renamed = up.UpdateUserRequest(principal="user:alice", name="Alice")
        admin.identity.UpdateUser(renamed, timeout=10)
        again = policies.PutPolicySet(request, timeout=20)
    assert (again.version, again.revision) == (first.version, first.revision)
    query = "SELECT metadata FROM audit.events WHERE event_type = 'policy.put'"
    [(facts,)] = rows(served.database, query)
    assert facts.keys() == {"policies", "source_sha256"}
