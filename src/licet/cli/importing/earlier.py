"""What an earlier import has left in licet: capabilities, by the ids that they had.

What licet holds is the truth about it. A file beside the records could say otherwise, or get lost;
request ids are forgotten after a day. Those that have ended since count as well: what was revoked
in licet must not come back because the old file is imported again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from licet.domain.canonical_json import EMPTY
from licet.domain.capability import Capability, End, EndCause, Terms
from licet.domain.instant import Instant, from_datetime
from licet.domain.names import Action, Caller, CapabilityId, Principal
from licet.domain.pattern import ResourcePattern

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Capability as Listed
    from licet.client import Client

MARK: Final = "imported"
"""The key of a capability's metadata under which its import is noted."""


class Earlier(NamedTuple):
    """A capability that was imported before.

    Attributes:
        id: licet's.
        digest: of what was imported.
        is_ended: whether it has ended in licet since.
        as_parent: for what is delegated from it; None where nobody asked.
    """

    id: CapabilityId
    digest: str
    is_ended: bool
    as_parent: Capability | None


def capabilities(
    client: Client,
    source: str,
    wanted: Collection[str],
    parents: Collection[str],
    told: Callable[[int], None],
) -> dict[str, Earlier]:
    """Return those of a source, by their ids there.

    Args:
        client: to ask with.
        source: which.
        wanted: the ids that matter.
        parents: those of them that something may be delegated from.
        told: is given how many of licet's capabilities were looked at.

    Raises:
        LicetCallError: not all could be read.
    """
    found: dict[str, Earlier] = {}
    for count, listed in enumerate(client.capabilities(include_ended=True), 1):
        told(count)
        mark = listed.metadata.get(MARK)
        if not isinstance(mark, Mapping) or mark.get("source") != source:
            continue
        key, digest = mark.get("id"), mark.get("sha256")
        if not isinstance(key, str) or not isinstance(digest, str) or key not in wanted:
            continue
        # Of two, which should not be: the first one, and it does not hide that one has ended.
        if key in found:
            continue
        found[key] = Earlier(
            CapabilityId(listed.id),
            digest,
            listed.ended_at is not None,
            _domain(listed) if key in parents else None,
        )
    return found


def mark(source: str, identifier: str, digest: str, **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """Return what is noted of an import."""
    given = {name: value for name, value in facts.items() if value}
    return {MARK: {"source": source, "id": identifier, "sha256": digest, **given}}


def _domain(listed: Listed) -> Capability:
    ended = listed.ended_at
    return Capability(
        id=CapabilityId(listed.id),
        terms=Terms(
            principal=Principal(listed.principal),
            actions=tuple(map(Action, listed.actions)),
            resource=ResourcePattern(listed.resource),
            not_before=_instant(listed.not_before),
            expires_at=_instant(listed.expires_at),
            delegation_depth=listed.delegation_depth,
            session_id=listed.session_id,
            metadata=EMPTY,
        ),
        parent_id=None,
        granted_by=Caller(listed.granted_by),
        granted_at=from_datetime(listed.granted_at),
        revision=listed.revision,
        end=None
        if ended is None
        else End(from_datetime(ended), Caller(listed.ended_by), "", EndCause.REVOKED),
    )


def _instant(moment: datetime | None) -> Instant | None:
    return None if moment is None else from_datetime(moment)
