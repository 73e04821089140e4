"""The composition of who may call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from math import ceil
from typing import Final

from licet.app.agents import ManageAgents
from licet.app.bootstrap_tokens import ManageBootstrapTokens
from licet.app.keys import ManageKeys
from licet.app.ports import Clock, Deadline
from licet.app.suspend import SuspendPrincipals
from licet.app.users import ManageUsers
from licet.bootstrap.custody import soon
from licet.config import Settings
from licet.domain.agent import SILENT_BEATS, agent_identity, bootstrap_identity
from licet.domain.api_key import KeyId
from licet.domain.audit_event import EventType, Result
from licet.domain.caller import ANONYMOUS
from licet.domain.names import Caller, Principal
from licet.replica.api_keys import KEY_NAMES, ApiKeys, HeldKey, UsesThread
from licet.replica.capability_sets import Cached, CachedCapabilitySets, Loader
from licet.replica.heartbeats import FLUSH_SECONDS, HeartbeatBuffer
from licet.replica.lease import Lease
from licet.server.agent_methods import AgentUseCases
from licet.server.authority import Authority
from licet.server.failures import FailedCalls, RecordFailures
from licet.server.identity import Authentication, by_certificate
from licet.server.rates import Buckets
from licet.server.service import IdentityUseCases
from licet.server.strangers import BURST_SECONDS, Strangers
from licet.server.tls import ServerTls
from licet.spool.log import SpoolAuditLog
from licet.storage.administration import PostgresAdminChanges
from licet.storage.agents import PostgresAgents
from licet.storage.api_keys import PostgresApiKeys
from licet.storage.pool import Database
from licet.storage.tokens import SignedPageTokens
from licet.storage.users import PostgresSuspensions, PostgresUsers
from licet.writer.acknowledgements import Acknowledgements
from licet.writer.administration import AdminChangeWriter
from licet.writer.agents import AgentWriter
from licet.writer.ids import RandomKeys, TimeOrderedIds
from licet.writer.keys import KeyWriter
from licet.writer.mutations import MutationWriter
from licet.writer.users import StandingWriter, UserWriter

_KEY_BYTES: Final = 64 * 1024 * 1024
"""Memory for API keys, by estimate: some 30,000 in use at once."""
_UNKNOWN_KEYS: Final = 1000
"""Ids that this database made and has no key of: of a later state than one that was restored."""


class Callers:
    """The API keys of a database, and who is let in with them."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        clock: Clock,
        patience: Deadline,
        sets: CachedCapabilitySets,
    ) -> None:
        """Read with which key ids are made. Raises UnavailableError or DeadlineError."""
        self._database = database
        self._sets = sets
        self._stored = PostgresApiKeys(database)
        self._agents = PostgresAgents(database)
        self.users = PostgresUsers(database)
        """The users as stored."""
        self._clock = clock
        self._tag_key = self._stored.tag_key(patience)
        held = Cached(_loader(self._stored, self._agents), lease, _KEY_BYTES, _UNKNOWN_KEYS)
        self.keys = ApiKeys(held, clock, self._tag_key)
        """The keys as this replica remembers them."""

    def changes(
        self, acknowledgements: Acknowledgements, mutations: MutationWriter
    ) -> AdminChangeWriter:
        """Return what makes changes of licet's own administration."""
        return AdminChangeWriter(
            PostgresAdminChanges(self._database), acknowledgements, mutations.refuse
        )

    def managed(
        self,
        changes: AdminChangeWriter,
        ids: TimeOrderedIds,
        tokens: SignedPageTokens,
        settings: Settings,
        stack: ExitStack,
    ) -> IdentityUseCases:
        """Return the use cases that change them; the stack stops what they need."""
        mint, clock = RandomKeys(self._tag_key), self._clock
        users, suspensions = self.users, PostgresSuspensions(self._database)
        return IdentityUseCases(
            keys=ManageKeys(KeyWriter(changes), self._stored, mint, ids, clock, tokens, users),
            users=ManageUsers(UserWriter(changes), users, ids, clock, tokens),
            suspensions=SuspendPrincipals(
                StandingWriter(changes), suspensions, users, ids, clock, tokens
            ),
            agents=self._managed_agents(changes, ids, tokens, settings, stack),
        )

    def _managed_agents(
        self,
        changes: AdminChangeWriter,
        ids: TimeOrderedIds,
        tokens: SignedPageTokens,
        settings: Settings,
        stack: ExitStack,
    ) -> AgentUseCases:
        """Return the use cases of agents; start what keeps heartbeats, which the stack stops."""
        seconds = min(FLUSH_SECONDS, settings.agent_heartbeat_seconds / SILENT_BEATS)
        heartbeats = HeartbeatBuffer(self._agents, self._clock, soon, seconds)
        stack.callback(heartbeats.stop)
        heartbeats.start()
        writer, mint = AgentWriter(changes), RandomKeys(self._tag_key)
        ports = (mint, ids, self._clock, tokens, self.users)
        return AgentUseCases(
            ManageAgents(writer, self._agents, heartbeats, *ports),
            ManageBootstrapTokens(writer, self._agents, *ports),
            settings.agent_heartbeat_seconds,
        )

    def authority(
        self, settings: Settings, log: SpoolAuditLog, stack: ExitStack, tls: ServerTls | None
    ) -> Authority:
        """Start what lets callers in and keeps account of it; the stack stops it."""
        uses = UsesThread(self.keys.drain_used, self._stored, soon)
        stack.callback(uses.stop)
        uses.start()
        failures = FailedCalls(_recorder(log))
        stack.callback(failures.stop)
        failures.start()
        anonymous = ANONYMOUS if settings.admits_anonymous else None
        certificates = None
        if tls is not None and tls.verifies_clients:
            certificates = by_certificate(tls, self._is_barred)
        rate = settings.failure_rate
        strangers = Strangers(_buckets(rate, ceil(rate * BURST_SECONDS)))
        return Authority(
            Authentication(self.keys, anonymous, certificates, strangers),
            failures,
            _buckets(settings.caller_rate, settings.rate_burst),
            _buckets(settings.address_rate, settings.rate_burst),
        )

    def _is_barred(self, caller: Caller, deadline: Deadline) -> bool:
        # A caller with a certificate need hold nothing; then memory keeps just this of it.
        return self._sets.get(Principal(caller), deadline).is_barred


def _buckets(rate: float, burst: int) -> Buckets | None:
    """Return buckets that fill at a rate; None for 0, which is no limit."""
    return Buckets(rate, burst) if rate else None


def _loader(stored: PostgresApiKeys, agents: PostgresAgents) -> Loader[str, HeldKey]:
    def load(names: Collection[str], deadline: Deadline) -> Mapping[str, HeldKey]:
        ids = {KeyId(name.removeprefix(KEY_NAMES)): name for name in names}
        revision, found = stored.held(ids, deadline)
        # Of what is found nowhere the older of two snapshots is told: nothing had it then.
        held = {name: HeldKey.nobody(name, revision) for name in names}
        for key_id, stored_key in found.items():
            name, dies_at = ids[key_id], stored_key.key.dies_at
            held[name] = HeldKey(name, revision, stored_key.digest, stored_key.identity(), dies_at)
        others = [key_id for key_id in ids if key_id not in found]
        if others:
            held |= _tokens(agents, others, deadline)
        return held

    return load


def _tokens(
    agents: PostgresAgents, ids: Collection[KeyId], deadline: Deadline
) -> dict[str, HeldKey]:
    """Return those of the ids that are tokens of agents, or bootstrap tokens."""
    revision, found = agents.held(ids, deadline)
    held = {}
    for token_id, token in found.items():
        name = KEY_NAMES + token_id
        if token.agent:
            identity = agent_identity(token.agent, token_id, token.dies_at)
        else:
            identity = bootstrap_identity(token_id, token.principals, token.dies_at)
        held[name] = HeldKey(name, revision, token.digest, identity, token.dies_at)
    return held


def _recorder(log: SpoolAuditLog) -> RecordFailures:
    def record(who: str, why: str, count: int, seconds: float) -> None:
        facts = {"count": count, "seconds": seconds}
        log.append(EventType.AUTH_FAILED, why, facts, actor=who, result=Result.REFUSED)

    return record
