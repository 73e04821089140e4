"""The ports of the replica protocol (revocation.md).

How a replica stays current, and how others know.

Clocks here are monotonic, count while the machine sleeps, and are never compared between machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from licet.domain.instant import EARLIEST, Instant
from licet.domain.names import Principal


class Change(NamedTuple):
    """What one revision touched: these principals' capability sets, or all of them for None."""

    revision: int
    principals: tuple[Principal, ...] | None
    at: Instant = EARLIEST
    """When, by the database's clock; not known of several changes that are told as one."""


class Registration(NamedTuple):
    """A replica's entry in the register, at a revision of a history."""

    revision: int
    epoch: UUID


class ReplicaSession(Protocol):
    """One database connection of one replica.

    Every method raises UnavailableError when it is lost.
    """

    def register(self, incarnation: UUID) -> Registration:
        """Enter a fresh incarnation, durably, and *then* read the revision."""
        ...

    def changes_after(self, revision: int) -> Sequence[Change]:
        """Return all later changes, in order; one for everything when some are not retained."""
        ...

    def renew(self, incarnation: UUID, applied: int) -> UUID | None:
        """Renew the entry, acknowledge, and return the history's epoch; None: the entry is gone.

        In another history nothing is renewed, and its epoch is returned.
        """
        ...

    def wait(self, seconds: float) -> bool:
        """Return at the next notification of a change, or after the time; say whether it came."""
        ...

    def deregister(self, incarnation: UUID) -> None:
        """Take the entry back: nobody needs to wait for this replica any more."""
        ...

    def close(self) -> None:
        """Close the connection. Raises nothing."""
        ...


class ReplicaEntry(NamedTuple):
    """A replica as the others see it; `beat` changes with every renewal."""

    incarnation: UUID
    beat: int
    applied: int
    lease_seconds: float
    history: UUID | None = None
    """The history that the register was read in; None where there is only one."""


class ReplicaObserver(Protocol):
    """One database session that watches the register.

    Methods raise UnavailableError when it is lost.
    """

    def entries(self) -> Sequence[ReplicaEntry]:
        """Return every entry."""
        ...

    def fence(self, incarnation: UUID, beat: int) -> bool:
        """Delete an entry whose beat is still this one; say whether it was."""
        ...

    def close(self) -> None:
        """Close the connection. Raises nothing."""
        ...
