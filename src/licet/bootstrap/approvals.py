"""The composition of approvals."""

from __future__ import annotations

from time import monotonic

from licet.app.administration import AdminChanges
from licet.app.approvals import ManageApprovals
from licet.app.authorize import Authorize
from licet.app.conditions import CompiledConditions
from licet.app.limit_ports import Limits
from licet.app.policy_ports import ActivePolicies
from licet.app.ports import CapabilitySets, Clock
from licet.app.recording import AuditLog
from licet.app.user_ports import UserStore
from licet.storage.approvals import PostgresApprovals
from licet.storage.pool import Database
from licet.storage.tokens import SignedPageTokens
from licet.writer.approvals import ApprovalWriter
from licet.writer.ids import TimeOrderedIds


class ComposedApprovals:
    """The approvals of a database."""

    def __init__(
        self, database: Database, changes: AdminChanges, ids: TimeOrderedIds, clock: Clock
    ) -> None:
        """Read nothing yet."""
        self._stored = PostgresApprovals(database, clock)
        self._ids = ids
        self._clock = clock
        self.writer = ApprovalWriter(changes, self._stored, ids, monotonic)
        """Read by metrics."""

    def deciding(
        self,
        sets: CapabilitySets,
        log: AuditLog,
        policies: ActivePolicies,
        conditions: CompiledConditions,
        limits: Limits,
    ) -> Authorize:
        """Return the use case of decisions, which asks for approvals and uses them."""
        return Authorize(
            *(sets, log, self._clock, policies),
            approvals=self.writer,
            limits=limits,
            conditions=conditions,
        )

    def managed(self, users: UserStore, tokens: SignedPageTokens) -> ManageApprovals:
        """Return the use cases of those who resolve them."""
        return ManageApprovals(self.writer, self._stored, users, self._ids, self._clock, tokens)
