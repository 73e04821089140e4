"""The life of something, as the audit log has it: what was changed, and what was decided."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from licet.cli import output

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import AuditEvent, AuditFilter, Client

_CHANGES: Final = (
    *("grant", "delegate", "revoke"),
    *("approval.requested", "approval.approved", "approval.rejected", "approval.used"),
    *("principal.suspended", "principal.resumed"),
)


class Trail(NamedTuple):
    """Events, oldest first, and whether decisions or changes older than these were left out."""

    events: list[AuditEvent]
    is_cut: bool


def trail_of(client: Client, wanted: AuditFilter, limit: int) -> Trail:
    """Read the changes and the decisions that match: of each the newest `limit`, 0 for all.

    A capability's delegations are part of its life, too: they are events of its children.

    Raises:
        LicetCallError: the log cannot be read.
    """
    # One by one: however many decisions there are, the grant they rest on is shown.
    parts: list[AuditFilter] = [
        {**wanted, "event_types": _CHANGES},
        {**wanted, "event_types": ("decision",)},
    ]
    capability_id = wanted.get("capability_id")
    if capability_id:
        children: AuditFilter = {**wanted, "metadata": {"parent_id": capability_id}}
        del children["capability_id"]
        parts.append({**children, "event_types": ("delegate",)})
    found: dict[str, AuditEvent] = {}
    is_cut = False
    for part in parts:
        events = client.audit(page_size=output.page_size(limit), **part)
        found |= {event.event_id: event for event in islice(events, limit or None)}
        is_cut = is_cut or (limit > 0 and next(events, None) is not None)
    return Trail(sorted(found.values(), key=_order), is_cut)


def _order(event: AuditEvent) -> tuple[object, str]:
    return event.occurred_at, event.event_id


def summary(events: Iterable[AuditEvent]) -> str:
    """Say in one line how many of what there are."""
    counts: dict[str, int] = {}
    for event in events:
        kind = event.event_type if event.result == "done" else f"{event.event_type} {event.result}"
        counts[kind] = counts.get(kind, 0) + 1
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
