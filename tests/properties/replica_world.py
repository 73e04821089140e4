"""A model of the database under the replica protocol, and what its callers were promised."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from threading import current_thread
from typing import Final, NamedTuple
from uuid import UUID

from licet.app.ports import Deadline
from licet.app.replication import Change
from licet.domain.capability_set import ALWAYS, NEVER, CapabilitySet, HeldCapability
from licet.domain.errors import UnavailableError
from licet.domain.names import Action, CapabilityId, Principal
from licet.domain.pattern import ResourcePattern
from tests.properties.turns import Actor, Stage, point

HOLDER: Final = Principal("agent:a")
_READ: Final = Action("read")
_NEVER: Final = float("inf")


class PromiseBrokenError(AssertionError):
    """A request was answered as no request may be."""


@dataclass(slots=True)
class Known:
    """A capability of `HOLDER` and what its callers were told, by the moments of the world."""

    granted: float = _NEVER
    """When its grant had returned."""
    revoking: float = _NEVER
    """When its first revocation started."""
    revoked: float = _NEVER
    """When its first revocation had returned."""
    ended_revision: int | None = None


class Entry(NamedTuple):
    """A row of the register."""

    beat: int
    applied: int


@dataclass(slots=True)
class World:
    """The database, and what was promised."""

    stage: Stage
    tells: bool
    """Whether notifications arrive; they need not."""
    revision: int = 0
    changes: list[Change] = field(default_factory=list)
    entries: dict[UUID, Entry] = field(default_factory=dict)
    capabilities: dict[CapabilityId, Known] = field(default_factory=dict)
    moments: int = 0
    incarnations: int = 0
    seen: set[str] = field(default_factory=set)
    """What has happened of what a search must meet to be worth anything."""

    def moment(self) -> int:
        """Return the number of this moment."""
        self.moments += 1
        return self.moments

    def commit(self, *, touches_all: bool) -> int:
        """Change what the holder holds, and perhaps what everybody does."""
        self.revision += 1
        self.changes.append(Change(self.revision, None if touches_all else (HOLDER,)))
        return self.revision

    def load(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        """See `replica.capability_sets.Loader`."""
        del deadline
        if not isinstance(current_thread(), Actor):
            raise UnavailableError("from memory or not at all")
        point("read: sent")
        found = {
            principal: CapabilitySet(
                principal,
                self.revision,
                [
                    HeldCapability(name, ResourcePattern("doc:x"), (_READ,), ALWAYS, NEVER)
                    for name, known in self.capabilities.items()
                    if known.ended_revision is None
                ],
            )
            for principal in principals
        }
        point("read: answered")
        return found
