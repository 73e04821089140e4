"""The composition of what follows a file of policies in development.

It is a part of the host's steward: of the processes of a host there is one. The first look is
before anybody serves, so that nothing is ever decided without the policies of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from licet.app.policies import ManagePolicies
from licet.app.policy_file import PolicyFileError, PutPolicyFile
from licet.bootstrap_custody import START_SECONDS, soon
from licet.config import Settings
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
    with ExitStack() as stack:
        stack.callback(database.close)
        database.open(START_SECONDS)
        try:
            source = read_policy_file(path)
            with _putting(path, url, database) as put:
                put(source, soon(START_SECONDS))
        except PolicyFileError as exc:
            raise UnavailableError(f"LICET_POLICY_FILE: {exc}") from exc


def follow(settings: Settings, url: str, database: Database, stack: ExitStack) -> None:
    """Start to follow the file, if there is one; the stack stops it. Raises UnavailableError."""
    path = settings.policy_file
    if path is None:
        return
    put = stack.enter_context(_putting(path, url, database))
    thread = PolicyFileThread(path, put, soon)
    stack.callback(thread.stop)
    thread.start()


@contextmanager
def _putting(path: Path, url: str, database: Database) -> Iterator[PutPolicyFile]:
    acknowledgements = Acknowledgements(
        lambda: PostgresReplicaObserver(url), boottime, LEASE_MARGIN
    )
    changes = AdminChangeWriter(
        PostgresAdminChanges(database), acknowledgements, PostgresMutations(database).refuse
    )
    documents = Documents()
    policies = ManagePolicies(
        changes,
        PostgresPolicySets(database),
        documents,
        TimeOrderedIds(SystemClock()),
        SignedPageTokens.from_database(database, soon(START_SECONDS)),
        PostgresUsers(database),
    )
    acknowledgements.start()
    try:
        yield PutPolicyFile(policies, documents, str(path))
    finally:
        acknowledgements.stop()
