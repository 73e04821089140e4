"""Rows of the old system's audit log, recorded in batches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from licet.cli.importing.desk import Desk
from licet.cli.importing.records import AuditRecord, Kind
from licet.cli.importing.sending import each
from licet.cli.importing.source import Read
from licet.cli.importing.tally import Fate
from licet.domain.errors import Violation
from licet.domain.instant import to_datetime
from licet.domain.names import CapabilityId

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import AuditImport, ForeignEvent, LicetCallError

BATCH_ROWS: Final = 500
"""So many are recorded together, while all other changes wait: some 80 ms."""
_BATCH_BYTES: Final = 128 * 1024
"""Of JSON; as a message it is six times as long, at most."""
_THREADS: Final = 2
_OTHERWISE: Final = Violation("id", "was imported before, and was not as it is here")
_FIELD: Final = re.compile(r"events\[([0-9]+)\]\.(.*)", re.DOTALL)

_Batch: TypeAlias = list[Read]


def load(desk: Desk, capability_ids: Mapping[str, CapabilityId]) -> None:
    """Record the rows of a file.

    Args:
        desk: of the import.
        capability_ids: of capabilities that are in licet, by their ids in the old system.

    Raises:
        LicetCallError: licet does not answer; what was recorded stays. CommandError: see `Desk`.
    """
    if desk.dry_run:
        desk.settle(Kind.AUDIT, Fate.IMPORTED, len(desk.catalogue.places[Kind.AUDIT]))
        return
    rest: Iterable[_Batch] = _batches(desk)
    while rest:
        refused: list[_Batch] = []
        for batch, outcome in each(_calls(desk, rest, capability_ids), _THREADS):
            if isinstance(outcome, Exception):
                refused.append(_without_refused(desk, batch, outcome))
            else:
                _settle(desk, batch, outcome)
        rest = [batch for batch in refused if batch]


def _batches(desk: Desk) -> Iterator[_Batch]:
    batch: _Batch = []
    size = 0
    for place in desk.catalogue.places[Kind.AUDIT]:
        read = desk.source.again(place)
        if len(batch) == BATCH_ROWS or (batch and size + len(read.parsed.text) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(read)
        size += len(read.parsed.text)
    if batch:
        yield batch


def _calls(
    desk: Desk, batches: Iterable[_Batch], capability_ids: Mapping[str, CapabilityId]
) -> Iterator[tuple[_Batch, Callable[[], AuditImport]]]:
    for batch in batches:
        events = [_event(read, capability_ids) for read in batch]
        yield batch, partial(desk.client.imports.audit, desk.name, events)


def _settle(desk: Desk, batch: _Batch, outcome: AuditImport) -> None:
    desk.settle(Kind.AUDIT, Fate.IMPORTED, outcome.recorded)
    desk.settle(Kind.AUDIT, Fate.PRESENT, outcome.already_recorded)
    for position in outcome.conflicting:
        desk.reject(batch[position], [_OTHERWISE])


def _without_refused(desk: Desk, batch: _Batch, error: LicetCallError) -> _Batch:
    """Reject the rows that licet names, and return the others.

    Raises:
        LicetCallError: it names none.
    """
    named: dict[int, list[Violation]] = {}
    for violation in error.violations:
        found = _FIELD.fullmatch(violation.field)
        if found is not None and int(found[1]) < len(batch):
            named.setdefault(int(found[1]), []).append(Violation(found[2], violation.rule))
    if not named:
        raise error
    for position, violations in named.items():
        desk.reject(batch[position], violations)
    return [read for position, read in enumerate(batch) if position not in named]


def _event(read: Read, capability_ids: Mapping[str, CapabilityId]) -> ForeignEvent:
    from licet.client import ForeignEvent  # noqa: PLC0415 - see the package

    row = read.record
    if not isinstance(row, AuditRecord):
        raise TypeError(f"line {read.place.number} is no row of an audit log")
    return ForeignEvent(
        id=row.id,
        occurred_at=to_datetime(row.occurred_at),
        event_type=row.event_type,
        actor=row.actor,
        principal=row.principal,
        action=row.action,
        resource=row.resource,
        capability_id=capability_ids.get(row.capability, ""),
        capability=row.capability,
        result=row.result,
        reason=row.reason,
        session_id=row.session_id,
        trace_id=row.trace_id,
        metadata=json.loads(row.metadata) or None,
    )
