"""The composition of policies, of their limits and replay, and of conditions of capabilities."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from secrets import randbits
from typing import Self

from licet.app.administration import AdminChanges
from licet.app.audit_ports import AuditEvents
from licet.app.policies import ManagePolicies
from licet.app.ports import Capabilities, Clock
from licet.app.replay import ReplayPolicies
from licet.app.user_ports import UserStore
from licet.policies.cel import compile_condition
from licet.policies.reading import Documents, compile_set
from licet.replica.conditions import CompiledConditions
from licet.replica.lease import Lease, boottime
from licet.replica.limits import SlicedLimits
from licet.replica.policies import HeldPolicySet
from licet.storage.limits import PostgresBuckets
from licet.storage.policies import PostgresPolicySets
from licet.storage.pool import Database
from licet.storage.tokens import SignedPageTokens
from licet.writer.ids import TimeOrderedIds


class Policies:
    """The policy sets of a database, and the conditions of capabilities."""

    def __init__(self, database: Database, lease: Lease) -> None:
        """Read nothing yet."""
        self._stored = PostgresPolicySets(database)
        self.limits = SlicedLimits(PostgresBuckets(database), boottime, partial(randbits, 63))
        """The buckets, of whichever set of policies; a new set keeps those whose limit it keeps."""
        self.held = HeldPolicySet(self._stored.held, compile_set, lease)
        """The set that holds, as this replica remembers it."""
        self.conditions = CompiledConditions(compile_condition)
        """Those of capabilities, compiled."""

    def start(self, stack: ExitStack) -> Self:
        """Start what keeps the buckets; the stack stops it."""
        stack.callback(self.limits.stop)
        self.limits.start()
        return self

    @property
    def asked(self) -> tuple[HeldPolicySet, CompiledConditions, SlicedLimits]:
        """What decisions ask, beside what is held."""
        return self.held, self.conditions, self.limits

    def managed(
        self,
        changes: AdminChanges,
        ids: TimeOrderedIds,
        tokens: SignedPageTokens,
        users: UserStore,
    ) -> ManagePolicies:
        """Return the use cases that change them."""
        return ManagePolicies(changes, self._stored, Documents(), ids, tokens, users)

    def replayed(
        self, events: AuditEvents, capabilities: Capabilities, clock: Clock
    ) -> ReplayPolicies:
        """Return the use case that puts decisions on record to one of them."""
        return ReplayPolicies(events, self._stored, Documents(), capabilities, clock)
