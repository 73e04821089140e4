"""The types of records, and what each must be on its own; docs/import.md shows them.

Nothing here knows of other records: references are only read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from licet.cli.importing.fields import Fields
from licet.domain import names
from licet.domain.agent import (
    MAX_PUBLIC_KEY_BYTES,
    agent_name,
    agent_principal,
    hostname,
)
from licet.domain.caller import Scope, acting_name
from licet.domain.canonical_json import JsonObject
from licet.domain.capability import MAX_DELEGATION_DEPTH, checked_actions
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import EARLIEST, Instant
from licet.domain.names import Action, Principal
from licet.domain.pattern import ResourcePattern, resource_pattern
from licet.domain.user import Role, email_address, user_name

ID_BYTES: Final = 128
NAME_BYTES: Final = 128
ACTOR_BYTES: Final = 256
KIND_BYTES: Final = 64
ADDRESS_BYTES: Final = 256


class Kind(StrEnum):
    """The types of records, in the order in which they are loaded."""

    USER = "user"
    AGENT = "agent"
    TOKEN = "token"  # noqa: S105 - it is a word
    CAPABILITY = "capability"
    AUDIT = "audit"


HOLDERS: Final = (Kind.USER, Kind.AGENT)
"""Whose records others refer to, in a field of this name."""
REFERRED: Final = (Kind.USER, Kind.AGENT, Kind.CAPABILITY)
"""What others refer to."""
HELD: Final = (Kind.TOKEN, Kind.CAPABILITY)
"""What refers to them."""


class Holder(NamedTuple):
    """Who holds or owns something: a principal, or the id of a user's or an agent's record.

    `kind` is None for a principal, whose `name` then is.
    """

    kind: Kind | None
    name: str


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user."""

    kind: ClassVar = Kind.USER
    holder: ClassVar[Holder | None] = None
    id: str
    principal: Principal
    email: str
    roles: tuple[Role, ...]
    name: str
    is_disabled: bool

    @property
    def unique(self) -> tuple[tuple[str, str], ...]:
        """What no other user has, by field."""
        return ("principal", self.principal), ("email", self.email)

    def needs_credential(self, _now: Instant) -> bool:
        """Say whether a credential is to be made for it."""
        return False


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """An agent; what else it is it says itself when it registers."""

    kind: ClassVar = Kind.AGENT
    holder: ClassVar[Holder | None] = None
    id: str
    name: str
    hostname: str
    is_disabled: bool

    @property
    def principal(self) -> Principal:
        """As whom it acts."""
        return agent_principal(self.name)

    @property
    def unique(self) -> tuple[tuple[str, str], ...]:
        """What no other agent has, by field; of one that was disabled, others may have its host."""
        host = () if self.is_disabled else (("hostname", self.hostname),)
        return ("name", self.name), *host

    def needs_credential(self, _now: Instant) -> bool:
        """Say whether a credential is to be made for it."""
        return not self.is_disabled


@dataclass(frozen=True, slots=True)
class CapabilityRecord:
    """A capability; `ended_at` is when it ended before its time."""

    kind: ClassVar = Kind.CAPABILITY
    id: str
    holder: Holder
    actions: tuple[Action, ...]
    resource: ResourcePattern
    parent: str
    delegation_depth: int
    not_before: Instant | None
    expires_at: Instant | None
    ended_at: Instant | None
    session_id: str
    granted_by: str
    granted_at: Instant | None
    metadata: JsonObject

    def is_live(self, now: Instant) -> bool:
        """Say whether it has neither ended nor expired."""
        return _is_live(self.ended_at, self.expires_at, now)

    def needs_credential(self, _now: Instant) -> bool:
        """Say whether a credential is to be made for it."""
        return False


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A row of the log; `capability` is the id that the capability has in the old system."""

    kind: ClassVar = Kind.AUDIT
    holder: ClassVar[Holder | None] = None
    id: str
    occurred_at: Instant
    event_type: str
    actor: str
    principal: str
    action: str
    resource: str
    capability: str
    result: str
    reason: str
    session_id: str
    trace_id: str
    metadata: JsonObject

    def needs_credential(self, _now: Instant) -> bool:
        """Say whether a credential is to be made for it."""
        return False


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token, whose secret no record has."""

    kind: ClassVar = Kind.TOKEN
    id: str
    holder: Holder
    name: str
    scopes: tuple[Scope, ...]
    expires_at: Instant | None
    ended_at: Instant | None

    def is_live(self, now: Instant) -> bool:
        """Say whether it has neither ended nor expired."""
        return _is_live(self.ended_at, self.expires_at, now)

    def needs_credential(self, now: Instant) -> bool:
        """Say whether a credential is to be made for it; an agent gets its own otherwise."""
        return self.is_live(now) and self.holder.kind is not Kind.AGENT


Record: TypeAlias = UserRecord | AgentRecord | CapabilityRecord | AuditRecord | TokenRecord


def kind_of(record: Mapping[str, Any]) -> Kind:
    """Return the type of a record, which need not be valid otherwise.

    Raises:
        InvalidRequestError: it has none.
    """
    found = record.get("type")
    if isinstance(found, str) and found in set(Kind):
        return Kind(found)
    raise InvalidRequestError.of("type", f"must be one of {', '.join(Kind)}")


def read(record: Mapping[str, Any], zone: tzinfo | None, now: Instant) -> Record:
    """Check a record on its own.

    Args:
        record: its JSON.
        zone: of instants that have no offset; None: they are refused.
        now: before which everything in it happened.

    Raises:
        InvalidRequestError: it breaks rules.
    """
    kind = kind_of(record)
    fields = Fields({name: value for name, value in record.items() if name != "type"}, zone)
    match kind:
        case Kind.CAPABILITY:
            return _capability(fields, now)
        case Kind.AUDIT:
            return _audit(fields, now)
        case Kind.TOKEN:
            return _token(fields, now)
        case Kind.USER:
            return _user(fields, now)
        case Kind.AGENT:
            return _agent(fields, now)


def _user(fields: Fields, now: Instant) -> UserRecord:
    identifier = fields.label("id", ID_BYTES, required=True)
    if not fields.has("principal"):
        fields.default("principal", f"user:{identifier}")
    found = UserRecord(
        id=identifier,
        principal=fields.text("principal", user_name) or Principal(""),
        email=fields.text("email", email_address, required=True) or "",
        roles=fields.texts("roles", _roles) or (),
        name=fields.label("name", NAME_BYTES),
        is_disabled=fields.flag("disabled"),
    )
    _past(fields, "created_at", now)
    fields.end()
    return found


def _agent(fields: Fields, now: Instant) -> AgentRecord:
    identifier = fields.label("id", ID_BYTES, required=True)
    if not fields.has("name"):
        fields.default("name", identifier)
    found = AgentRecord(
        id=identifier,
        name=fields.text("name", agent_name) or "",
        hostname=fields.text("hostname", hostname, required=True) or "",
        is_disabled=fields.flag("disabled"),
    )
    fields.label("address", ADDRESS_BYTES)
    fields.text("public_key", _public_key)
    _past(fields, "created_at", now)
    fields.end()
    return found


def _capability(fields: Fields, now: Instant) -> CapabilityRecord:
    found = CapabilityRecord(
        id=fields.label("id", ID_BYTES, required=True),
        holder=_holder(fields, names.principal),
        actions=fields.texts("actions", checked_actions) or (),
        resource=fields.text("resource", resource_pattern, required=True) or ResourcePattern(""),
        parent=fields.label("parent", ID_BYTES),
        delegation_depth=fields.integer("delegation_depth", 0, MAX_DELEGATION_DEPTH),
        not_before=fields.instant("not_before", up=True),
        expires_at=fields.instant("expires_at"),
        ended_at=_past(fields, "revoked_at", now),
        session_id=fields.label("session_id", names.LABEL_BYTES),
        granted_by=fields.label("granted_by", ACTOR_BYTES),
        granted_at=_past(fields, "granted_at", now),
        metadata=fields.json_object("metadata"),
    )
    if (
        found.not_before is not None
        and found.expires_at is not None
        and found.not_before >= found.expires_at
    ):
        fields.note("not_before", "must be before expires_at")
    fields.end()
    return found


def _audit(fields: Fields, now: Instant) -> AuditRecord:
    found = AuditRecord(
        id=fields.label("id", ID_BYTES, required=True),
        occurred_at=_past(fields, "occurred_at", now, required=True) or EARLIEST,
        event_type=fields.label("event_type", KIND_BYTES, required=True),
        actor=fields.label("actor", ACTOR_BYTES),
        principal=fields.text("principal", names.principal) or "",
        action=fields.text("action", names.action) or "",
        resource=fields.text("resource", resource_pattern) or "",
        capability=fields.label("capability", ID_BYTES),
        result=fields.label("result", KIND_BYTES),
        reason=fields.label("reason", names.REASON_BYTES),
        session_id=fields.label("session_id", names.LABEL_BYTES),
        trace_id=fields.label("trace_id", names.LABEL_BYTES),
        metadata=fields.json_object("metadata"),
    )
    fields.end()
    return found


def _token(fields: Fields, now: Instant) -> TokenRecord:
    found = TokenRecord(
        id=fields.label("id", ID_BYTES, required=True),
        holder=_holder(fields, acting_name),
        name=fields.label("name", NAME_BYTES, required=True),
        scopes=fields.texts("scopes", _scopes) or (),
        expires_at=fields.instant("expires_at"),
        ended_at=_past(fields, "revoked_at", now),
    )
    fields.end()
    return found


def _is_live(ended_at: Instant | None, expires_at: Instant | None, now: Instant) -> bool:
    return ended_at is None and (expires_at is None or expires_at > now)


def _holder(fields: Fields, check: Callable[[str, str], Principal]) -> Holder:
    """Take who holds something: one of `principal`, `user` and `agent`."""
    given = [field for field in ("principal", "user", "agent") if fields.has(field)]
    principal = fields.text("principal", check)
    ids = {kind: fields.label(kind, ID_BYTES) for kind in HOLDERS}
    if len(given) != 1:
        fields.note("principal", "or user or agent must be set, and only one of them")
    for kind, identifier in ids.items():
        if identifier:
            return Holder(kind, identifier)
    return Holder(None, principal or "")


def _past(fields: Fields, field: str, now: Instant, *, required: bool = False) -> Instant | None:
    found = fields.instant(field, required=required)
    if found is not None and found > now:
        fields.note(field, "must not be in the future")
    return found


def _public_key(text: str, field: str) -> str:
    if len(text) > MAX_PUBLIC_KEY_BYTES or not text.startswith("-----BEGIN PUBLIC KEY-----\n"):
        raise InvalidRequestError.of(
            field, f"must be a public key in PEM of at most {MAX_PUBLIC_KEY_BYTES} bytes"
        )
    return text


def _roles(texts: Sequence[str], field: str) -> tuple[Role, ...]:
    return tuple(map(Role, _known(texts, field, set(Role), ", ".join(Role))))


def _scopes(texts: Sequence[str], field: str) -> tuple[Scope, ...]:
    return tuple(map(Scope, _known(texts, field, set(Scope), ", ".join(Scope))))


def _known(
    texts: Sequence[str], field: str, known: Collection[str], all_of_them: str
) -> Sequence[str]:
    for position, text in enumerate(texts):
        if text not in known:
            raise InvalidRequestError.of(f"{field}[{position}]", f"must be one of {all_of_them}")
    if not texts or len(set(texts)) != len(texts):
        raise InvalidRequestError.of(field, "must be at least one, and distinct")
    return texts
