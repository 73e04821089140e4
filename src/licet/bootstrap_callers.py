"""The composition of who may call: the part of `bootstrap.py` that is about callers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Final

from licet.app.keys import ManageKeys
from licet.app.ports import Clock, Deadline
from licet.app.suspend import SuspendPrincipals
from licet.app.users import ManageUsers
from licet.bootstrap_custody import soon
from licet.config import Settings
from licet.domain.api_key import KeyId
from licet.domain.audit_event import EventType, Result
from licet.domain.caller import ANONYMOUS
from licet.domain.names import Caller, Principal
from licet.replica.api_keys import KEY_NAMES, ApiKeys, HeldKey, UsesThread
from licet.replica.capability_sets import Cached, CachedCapabilitySets, Loader
from licet.replica.lease import Lease
from licet.server.authority import Authority
from licet.server.failures import FailedCalls, RecordFailures
from licet.server.identity import Authentication, by_certificate
from licet.server.service import IdentityUseCases
from licet.server.tls import ServerTls
from licet.spool.log import SpoolAuditLog
from licet.storage.administration import PostgresAdminChanges
from licet.storage.api_keys import PostgresApiKeys
from licet.storage.pool import Database
from licet.storage.tokens import SignedPageTokens
from licet.storage.users import PostgresSuspensions, PostgresUsers
from licet.writer.acknowledgements import Acknowledgements
from licet.writer.administration import AdminChangeWriter
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
        self._clock = clock
        self._tag_key = self._stored.tag_key(patience)
        held = Cached(_loader(self._stored), lease, _KEY_BYTES, _UNKNOWN_KEYS)
        self.keys = ApiKeys(held, clock, self._tag_key)
        """The keys as this replica remembers them."""

    def managed(
        self,
        acknowledgements: Acknowledgements,
        mutations: MutationWriter,
        ids: TimeOrderedIds,
        tokens: SignedPageTokens,
    ) -> IdentityUseCases:
        """Return the use cases that change them."""
        changes = AdminChangeWriter(
            PostgresAdminChanges(self._database), acknowledgements, mutations.refuse
        )
        mint, clock = RandomKeys(self._tag_key), self._clock
        users, suspensions = PostgresUsers(self._database), PostgresSuspensions(self._database)
        return IdentityUseCases(
            keys=ManageKeys(KeyWriter(changes), self._stored, mint, ids, clock, tokens, users),
            users=ManageUsers(UserWriter(changes), users, ids, clock, tokens),
            suspensions=SuspendPrincipals(
                StandingWriter(changes), suspensions, users, ids, clock, tokens
            ),
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
        return Authority(Authentication(self.keys, anonymous, certificates), failures)

    def _is_barred(self, caller: Caller, deadline: Deadline) -> bool:
        # A caller with a certificate need hold nothing; then memory keeps just this of it.
        return self._sets.get(Principal(caller), deadline).is_barred


def _loader(stored: PostgresApiKeys) -> Loader[str, HeldKey]:
    def load(names: Collection[str], deadline: Deadline) -> Mapping[str, HeldKey]:
        ids = {KeyId(name.removeprefix(KEY_NAMES)): name for name in names}
        revision, found = stored.held(ids, deadline)
        held = {name: HeldKey.nobody(name, revision) for name in names}
        for key_id, stored_key in found.items():
            name, dies_at = ids[key_id], stored_key.key.dies_at
            held[name] = HeldKey(name, revision, stored_key.digest, stored_key.identity(), dies_at)
        return held

    return load


def _recorder(log: SpoolAuditLog) -> RecordFailures:
    def record(who: str, why: str, count: int, seconds: float) -> None:
        facts = {"count": count, "seconds": seconds}
        log.append(EventType.AUTH_FAILED, why, facts, actor=who, result=Result.REFUSED)

    return record
