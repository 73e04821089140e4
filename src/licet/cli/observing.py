"""Looks at the fleet for long enough to say which replicas renew their leases.

One look tells nothing of that: a row stays when its replica has died. Two looks do, a lease apart:
a replica renews three times in that time. Only this host's clock is used, and no other is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final
from uuid import UUID

from licet import config
from licet.cli.errors import CommandError
from licet.domain.errors import LicetError
from licet.replica.lease import LEASE_MARGIN
from licet.storage.embedded import EmbeddedPostgresError, data_folder, running_conninfo
from licet.storage.register import Register, RegisteredReplica, opened_register

_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class ObservedReplica:
    """A replica as it was at the last look.

    Attributes:
        incarnation: its id; fresh with each registration.
        host: the name of its machine.
        started: when it registered, by the database's clock.
        lease_seconds: how long it answers from memory after a renewal.
        applied_revision: up to which its memory is current.
        newest_revision: of the database, at the same moment.
        behind: how many revisions lie between.
        renewing: whether it renewed while it was looked at.
        lagging: whether it lacked something at the last look that there was at the first.
    """

    incarnation: UUID
    host: str
    started: datetime
    lease_seconds: float
    applied_revision: int
    newest_revision: int
    behind: int
    renewing: bool
    lagging: bool


def fleet(data_dir: Path | None) -> Sequence[ObservedReplica]:
    """Return the replicas of the configured database. Raises CommandError."""
    try:
        # Nothing is served, so a public address, which `serve` may have to refuse, does not matter.
        settings = config.load(data_dir=data_dir, listen="127.0.0.1:0")
        # The login with the lesser rights, unlike `licet migrate`.
        url = settings.database_url or settings.migration_database_url
        conninfo = (
            running_conninfo(data_folder(settings.data_dir))
            if url is None
            else url.get_secret_value()
        )
        if conninfo is None:
            return []  # the embedded one runs as long as it is served from
        with opened_register(conninfo) as register:
            return observed(register.look, monotonic, Event().wait)
    except (config.ConfigurationError, LicetError, EmbeddedPostgresError) as exc:
        raise CommandError(str(exc)) from exc


def observed(
    look: Callable[[], Register],
    clock: Callable[[], float],
    pause: Callable[[float], object],
) -> Sequence[ObservedReplica]:
    """Look until every replica has renewed, or for each one's lease; return those that are left.

    One that has gone meanwhile is no part of the fleet; one that has come is, and looked at too.
    """
    first = now = look()
    seen = {replica.incarnation: (replica.beat, clock()) for replica in first.replicas}

    def undecided(replica: RegisteredReplica) -> bool:
        beat, since = seen.setdefault(replica.incarnation, (replica.beat, clock()))
        waited = clock() - since
        return replica.beat == beat and waited < replica.lease_seconds * LEASE_MARGIN

    while [replica for replica in now.replicas if undecided(replica)]:
        pause(_LOOK_SECONDS)
        now = look()
    return [
        ObservedReplica(
            replica.incarnation,
            replica.host,
            replica.started,
            replica.lease_seconds,
            replica.applied,
            now.revision,
            max(now.revision - replica.applied, 0),
            replica.beat != seen[replica.incarnation][0],
            replica.applied < first.revision,
        )
        for replica in now.replicas
    ]
