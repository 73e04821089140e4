"""Changes of users: what is checked against what, when state has moved on since the call began."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pytest

from licet.app.administration import AdminChange
from licet.app.key_ports import KeyChange, KeyChanged, KeyFilter
from licet.app.keys import CreateKeyCommand, ManageKeys
from licet.app.ports import Deadline
from licet.app.user_ports import UserChanged, UserFilter
from licet.app.users import CreateUserCommand, ManageUsers, UpdateUserCommand
from licet.domain.api_key import ApiKey, KeyId
from licet.domain.audit_event import AuditEvent
from licet.domain.caller import UNLIMITED, Identity, Scope
from licet.domain.errors import ConflictError, NotPermittedError
from licet.domain.instant import Instant
from licet.domain.names import Caller, Principal
from licet.domain.user import Role, User
from licet.storage.tokens import SignedPageTokens
from licet.writer.ids import RandomKeys, TimeOrderedIds
from tests.unit.builders import NOW, PATIENT, StillClock

ALICE, BOB = Principal("user:alice"), Principal("user:bob")


def user(principal: Principal, revision: int, *roles: Role) -> User:
    name = f"{principal[5:]}@example.org"
    return User(principal, "", name, roles, NOW, Caller("user:x"), revision, None, "", "")


class Stored:
    """The users there are; what is changed and refused is kept to be looked at."""

    def __init__(self, *users: User) -> None:
        self.users = {found.principal: found for found in users}
        self.changes: list[AdminChange] = []
        self.refused: list[AuditEvent] = []
        self.scopes: frozenset[Scope] = frozenset()

    def key_scopes(self, _: Principal, __: Deadline) -> frozenset[Scope]:
        return self.scopes

    def find(self, principals: Collection[str], _: Deadline) -> Mapping[str, User]:
        return {p: found for p, found in self.users.items() if p in principals}

    def with_email(self, email: str, _: Deadline) -> User | None:
        return next((found for found in self.users.values() if found.email == email), None)

    def page(self, _w: UserFilter, _a: str, _l: int, _d: Deadline) -> Sequence[User]:
        return list(self.users.values())

    def change(self, change: AdminChange, _: Deadline) -> UserChanged:
        self.changes.append(change)
        found = self.users.get(BOB, user(BOB, 1, Role.USER))
        return UserChanged(found, 1, 1, 0, already=False)

    def refuse(self, event: AuditEvent, _: Deadline) -> None:
        self.refused.append(event)


def manage(stored: Stored) -> ManageUsers:
    clock = StillClock()
    return ManageUsers(stored, stored, TimeOrderedIds(clock), clock, SignedPageTokens(bytes(32)))


def caller(key_id: str = "0123456789abcdef") -> Identity:
    """Return Alice as she was let in: an admin."""
    return Identity.of(Caller(ALICE), {Scope.ADMIN}, UNLIMITED, key_id)


PROMOTION = UpdateUserCommand(BOB, None, None, (Role.SRE,), "")


def test_a_role_that_was_lost_since_the_call_was_let_in_is_lost() -> None:
    stored = Stored(user(ALICE, 5, Role.DEVELOPER), user(BOB, 3, Role.USER))
    with pytest.raises(NotPermittedError) as raised:
        manage(stored).update(PROMOTION, caller(), PATIENT)
    assert raised.value.code == "SCOPES_WIDER"
    assert [event.reason for event in stored.refused] == ["SCOPES_WIDER"]
    assert not stored.changes
    # The scopes of a certificate are those of the operator's table.
    manage(stored).update(PROMOTION, caller(key_id=""), PATIENT)
    assert len(stored.changes) == 1


def test_what_a_change_was_checked_against_goes_with_it() -> None:
    stored = Stored(user(ALICE, 5, Role.ADMIN), user(BOB, 3, Role.USER))
    manage(stored).update(PROMOTION, caller(), PATIENT)
    create = CreateUserCommand(Principal("user:c"), "", "c@example.org", (Role.USER,), "")
    manage(stored).create(create, caller(), PATIENT)
    seen = [change.details["seen"] for change in stored.changes]
    # Whether there is a user already is for the database to say, which knows repetitions.
    assert seen == [{BOB: 3, ALICE: 5}, {ALICE: 5}]


def test_who_has_fewer_scopes_than_a_principals_keys_makes_no_user_of_it() -> None:
    """Its keys would be bound by the roles from then on."""
    stored = Stored()
    stored.scopes = frozenset({Scope.ADMIN})
    create = CreateUserCommand(Principal("user:root"), "", "r@example.org", (Role.USER,), "")
    identity = {Scope.IDENTITY, Scope.AUTHORIZE}
    with pytest.raises(NotPermittedError) as raised:
        manage(stored).create(
            create, Identity.of(Caller("key:k"), identity, UNLIMITED, "k"), PATIENT
        )
    assert raised.value.code == "SCOPES_WIDER"
    assert not stored.changes
    manage(stored).create(create, caller(), PATIENT)
    assert len(stored.changes) == 1


def test_the_same_request_has_the_same_digest_and_another_has_another() -> None:
    stored = Stored(user(ALICE, 5, Role.ADMIN), user(BOB, 3, Role.USER))
    commands = [
        PROMOTION,
        PROMOTION._replace(request_id="r"),
        PROMOTION._replace(roles=(Role.AUDITOR,)),
        PROMOTION._replace(name=""),
        PROMOTION._replace(email="b@example.org"),
        PROMOTION._replace(principal=Principal("user:c")),
    ]
    for command in commands:
        manage(stored).update(command, caller(), PATIENT)
    first, same, *others = [change.digest for change in stored.changes]
    assert first == same
    assert len({first, *others}) == len(others) + 1


class Keys:
    """No keys; what is to be changed is kept to be looked at."""

    def __init__(self) -> None:
        self.changes: list[KeyChange] = []

    def find(self, _k: KeyId, _d: Deadline) -> ApiKey | None:
        return None

    def page(
        self, _w: KeyFilter, _a: KeyId | None, _l: int, _n: Instant, _d: Deadline
    ) -> Sequence[ApiKey]:
        return []

    def change(self, change: KeyChange, _: Deadline) -> KeyChanged:
        self.changes.append(change)
        key_id = change.key.key_id if change.key else KeyId("")
        return KeyChanged(key_id, 1, 1, 0, already_ended=False, created_at=NOW)

    def refuse(self, event: AuditEvent, _: Deadline) -> None:
        raise AssertionError(event)


def test_no_key_is_made_by_roles_that_were_lost_since_the_call_was_let_in() -> None:
    stored, keys, clock = Stored(user(ALICE, 5, Role.ADMIN)), Keys(), StillClock()
    mint, tokens = RandomKeys(bytes(32)), SignedPageTokens(bytes(32))
    manage_keys = ManageKeys(keys, keys, mint, TimeOrderedIds(clock), clock, tokens, stored)
    command = CreateKeyCommand("a gate", (Scope.ADMIN,), UNLIMITED, None, None, None, "")
    manage_keys.create(command, caller(), PATIENT)
    assert [change.seen for change in keys.changes] == [{ALICE: 5}]
    stored.users[ALICE] = user(ALICE, 6, Role.DEVELOPER)
    with pytest.raises(ConflictError):
        manage_keys.create(command, caller(), PATIENT)
    assert len(keys.changes) == 1
    # Who is no user has no roles to lose, and what the table of callers says is the operator's.
    manage_keys.create(command, caller(key_id=""), PATIENT)
    assert keys.changes[-1].seen == {}
