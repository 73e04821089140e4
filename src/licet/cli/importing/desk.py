"""What every loader works with, and how it says what became of a record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from licet.cli.importing.lines import Parsed
from licet.cli.importing.records import HOLDERS, Holder, Kind
from licet.cli.importing.rejects import RejectFile
from licet.cli.importing.scan import Catalogue
from licet.cli.importing.source import Place, Read, SourceFile
from licet.cli.importing.tally import Fate, Tally
from licet.domain import names
from licet.domain.errors import InvalidRequestError, Violation
from licet.domain.names import Principal

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Client


@dataclass(frozen=True, slots=True)
class Desk:
    """One import.

    Attributes:
        client: calls licet.
        name: of the old system.
        source: its records.
        catalogue: which of them there are.
        rejects: takes those that are not imported.
        tally: counts all.
        dry_run: whether nothing is to be changed.
        told: is given the type, and how many of its records have had their fate.
        holders: the principals of users and agents that are in licet, or in a dry run would be, by
            type and id.
    """

    client: Client
    name: str
    source: SourceFile
    catalogue: Catalogue
    rejects: RejectFile
    tally: Tally
    dry_run: bool
    told: Callable[[Kind, int], None]
    holders: dict[tuple[str, str], Principal] = field(default_factory=dict)

    def settle(self, kind: Kind, fate: Fate, count: int = 1) -> None:
        """Say what became of so many records."""
        if count:
            self.tally.add(kind, fate, count)
            self.told(kind, count)

    def reject(self, read: Read, violations: Iterable[Violation]) -> None:
        """Write down a record that is not imported. Raises CommandError."""
        kind = read.record.kind
        self._write(read.place, violations, read.parsed)
        self.catalogue.refuse(kind, read.record.id)
        self.settle(kind, Fate.REJECTED)

    def reject_deferred(self) -> None:
        """Write down those that are not valid on their own, now that their holders are known.

        Raises:
            CommandError: the file cannot be written, or has changed.
        """
        for place in self.catalogue.deferred:
            parsed = self.source.parsed(place)
            try:
                self.catalogue.check_id(self.source.record(parsed))
            except InvalidRequestError as exc:
                self._write(place, exc.violations, parsed)
            else:
                raise self.source.changed()

    def _write(self, place: Place, violations: Iterable[Violation], parsed: Parsed) -> None:
        """Write a record down, and who its holder is: so that it can be imported without that."""
        known = dict(parsed.references)
        for kind in HOLDERS:
            key = parsed.fields.get(kind)
            if isinstance(key, str) and (kind, key) in self.holders:
                known[kind, key] = self.holders[kind, key]
        self.rejects.record(place.number, violations, parsed._replace(references=known))

    def principal_of(self, read: Read, holder: Holder) -> Principal:
        """Return the principal of who holds something.

        Raises:
            InvalidRequestError: no such record is imported.
        """
        if holder.kind is None:
            return Principal(holder.name)
        kind, key = holder.kind, holder.name
        found = self.holders.get((kind, key)) or read.parsed.references.get((kind, key))
        if found is not None:
            return names.principal(found, kind)
        if (kind, key) in self.catalogue.refused:
            raise InvalidRequestError.of(kind, "was rejected itself")
        if key in self.catalogue.positions[kind]:
            raise InvalidRequestError.of(kind, "had ended, and is not imported")
        raise InvalidRequestError.of(kind, f"must be the id of a record of the type {kind}")
