"""The composition of what follows a file of policies in development.

It is a part of the host's steward: of the processes of a host there is one. The first look is
before anybody serves, so that nothing is ever decided without the policies of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from licet.app.administration import AdminChange, AdminChanges
from licet.app.policies import ManagePolicies
from licet.app.policy_file import PolicyFileError, PutPolicyFile
from licet.app.ports import Applied, Deadline
from licet.bootstrap.custody import START_SECONDS, soon
from licet.config import Settings
from licet.domain.audit_event import AuditEvent
from licet.domain.errors import UnavailableError
from licet.policies.reading import Documents
from licet.replica.clock import SystemClock
from licet.replica.lease import LEASE_MARGIN, boottime
from licet.steward.policy_file import PolicyFileThread, read_policy_file
from licet.storage.administration import PostgresAdminChanges
from licet.storage.mutations import PostgresMutations
from licet.storage.policies import PostgresPolicySets
from licet.storage.pool import Database, PoolLimits
from licet.storage.replicas import PostgresReplicaObserver
from licet.storage.tokens import SignedPageTokens
from licet.storage.users import PostgresUsers
from licet.writer.acknowledgements import Acknowledgements
from licet.writer.administration import AdminChangeWriter
from licet.writer.ids import TimeOrderedIds

_POOL: Final = PoolLimits(min_size=1, max_size=2)


def put_first(settings: Settings, url: str) -> None:
    """Put what the file holds, if there is one, before anybody serves.

    Raises:
        UnavailableError: it cannot be used, or the database cannot.
    """
    path = settings.policy_file
    if path is None:
        return
    database = Database(url, _POOL)
    try:
        database.open(START_SECONDS)
        put = _put(path, database, _Unconfirmed(database))
        put(read_policy_file(path), soon(START_SECONDS))
    except PolicyFileError as exc:
        raise UnavailableError(f"LICET_POLICY_FILE: {exc}") from exc
    finally:
        database.close()


def follow(settings: Settings, url: str, database: Database, stack: ExitStack) -> None:
    """Start to follow the file, if there is one; the stack stops it. Raises UnavailableError."""
    path = settings.policy_file
    if path is None:
        return
    acknowledgements = Acknowledgements(
        lambda: PostgresReplicaObserver(url), boottime, LEASE_MARGIN
    )
    stack.callback(acknowledgements.stop)
    acknowledgements.start()
    changes = AdminChangeWriter(
        PostgresAdminChanges(database), acknowledgements, PostgresMutations(database).refuse
    )
    thread = PolicyFileThread(path, _put(path, database, changes), soon)
    stack.callback(thread.stop)
    thread.start()


class _Unconfirmed:
    """Makes changes that no replica has to confirm: those of this host do not serve yet.

    Whoever registers later has read them. Where another host serves the same database, it learns of
    them by itself; nothing here waits for that.
    """

    def __init__(self, database: Database) -> None:
        self._store = PostgresAdminChanges(database)
        self._refuse = PostgresMutations(database).refuse

    def make(
        self, change: AdminChange, raise_refusal: Callable[[str], None], deadline: Deadline
    ) -> Applied:
        """See `AdminChanges.make`."""
        applied = self._store.make(change, deadline)
        raise_refusal(applied.status)
        return applied

    def commit(self, change: AdminChange, deadline: Deadline) -> Applied:
        """See `AdminChanges.commit`."""
        return self._store.make(change, deadline)

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """See `AdminChanges.refuse`."""
        self._refuse(event, deadline)


def _put(path: Path, database: Database, changes: AdminChanges) -> PutPolicyFile:
    documents = Documents()
    policies = ManagePolicies(
        changes,
        PostgresPolicySets(database),
        documents,
        TimeOrderedIds(SystemClock()),
        SignedPageTokens.from_database(database, soon(START_SECONDS)),
        PostgresUsers(database),
    )
    return PutPolicyFile(policies, documents, str(path))
