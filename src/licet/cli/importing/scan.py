"""The first reading: each record on its own, and which there are.

Of a million records, little more than their ids stays in memory: records are read again when they
are loaded.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from typing import Final

from licet.cli.importing.lines import Line, MalformedError, parse
from licet.cli.importing.records import (
    HELD,
    HOLDERS,
    REFERRED,
    AgentRecord,
    AuditRecord,
    CapabilityRecord,
    Kind,
    Record,
    UserRecord,
    kind_of,
)
from licet.cli.importing.rejects import RejectFile
from licet.cli.importing.source import Place, SourceFile
from licet.cli.importing.tally import UNKNOWN, Fate, Tally
from licet.domain.errors import InvalidRequestError

_DIGEST_BYTES: Final = 16


class Places:
    """Where the records of one type are, in their order in the file; 16 bytes each."""

    def __init__(self) -> None:
        """Begin with none."""
        self._numbers = array("Q")
        self._offsets = array("Q")

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, position: int) -> Place:
        return Place(self._numbers[position], self._offsets[position])

    def __iter__(self) -> Iterator[Place]:
        return map(Place, self._numbers, self._offsets)

    def add(self, line: Line) -> int:
        """Add that of a line, and return its position."""
        self._numbers.append(line.number)
        self._offsets.append(line.offset)
        return len(self._numbers) - 1


class Catalogue:
    """The records that are valid on their own.

    Attributes:
        places: of each type.
        positions: of the records of each type but audit, by id.
        parents: the parent's id, for the positions of capabilities that have one.
        mentioned: the ids of capabilities that audit rows are about.
        refused: types and ids of records that others may refer to, and that are not imported.
        deferred: where the records are that are not valid, refer to a user or an agent, and are to
            be written down when it is known who that is.
        credentials: how many records a new credential may have to be made for.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.places = {kind: Places() for kind in Kind}
        self.positions: dict[Kind, dict[str, int]] = {kind: {} for kind in Kind}
        self.parents: dict[int, str] = {}
        self.mentioned: set[str] = set()
        self.refused: set[tuple[Kind, str]] = set()
        self.deferred = Places()
        self.credentials = 0
        self._rows: set[bytes] = set()
        self._unique: dict[tuple[Kind, str, str], int] = {}

    def add(self, record: Record, line: Line) -> None:
        """Add a record that is valid on its own.

        Raises:
            InvalidRequestError: another one has what must be unique.
        """
        if isinstance(record, AuditRecord):
            self._add_row(record)
            self.places[Kind.AUDIT].add(line)
            return
        self.check_id(record)
        if isinstance(record, UserRecord | AgentRecord):
            self._check_unique(record, line)
        position = self.places[record.kind].add(line)
        self.positions[record.kind][record.id] = position
        if isinstance(record, CapabilityRecord) and record.parent:
            self.parents[position] = record.parent

    def check_id(self, record: Record) -> None:
        """Check that no other record has an id. Raises InvalidRequestError."""
        first = self.positions[record.kind].get(record.id)
        if first is not None:
            number = self.places[record.kind][first].number
            raise InvalidRequestError.of("id", f"must be unique: line {number} has it")

    def refuse(self, kind: str, identifier: object) -> None:
        """Note that a record is not imported, if others may refer to it."""
        if kind in REFERRED and isinstance(identifier, str):
            self.refused.add((Kind(kind), identifier))

    def _check_unique(self, record: UserRecord | AgentRecord, line: Line) -> None:
        """Check what must be unique besides the id. Raises InvalidRequestError."""
        for field, value in record.unique:
            first = self._unique.get((record.kind, field, value))
            if first is not None:
                raise InvalidRequestError.of(field, f"must be unique: line {first} has it")
        self._unique |= {(record.kind, *pair): line.number for pair in record.unique}

    def _add_row(self, record: AuditRecord) -> None:
        # There are many: 16 bytes say as well whether an id was there before.
        digest = hashlib.sha256(record.id.encode()).digest()[:_DIGEST_BYTES]
        if digest in self._rows:
            raise InvalidRequestError.of("id", "must be unique: an earlier line has it")
        self._rows.add(digest)
        if record.capability:
            self.mentioned.add(record.capability)


def scan(
    source: SourceFile, rejects: RejectFile, tally: Tally, told: Callable[[int], None]
) -> Catalogue:
    """Read a file and return what is valid in it; the rest is rejected.

    `told` is given how many bytes were read, after each record.

    Raises:
        CommandError: the file cannot be read, or that of the rejects not written.
    """
    catalogue = Catalogue()
    for line in source.lines():
        _take(line, catalogue, source, rejects, tally)
        told(line.offset + len(line.raw))
    return catalogue


def _take(
    line: Line, catalogue: Catalogue, source: SourceFile, rejects: RejectFile, tally: Tally
) -> None:
    try:
        parsed = parse(line)
    except MalformedError as exc:
        rejects.text(line.number, exc.rule, exc.text)
        tally.add(UNKNOWN, Fate.REJECTED)
        return
    kind: str = UNKNOWN
    try:
        kind = kind_of(parsed.fields)
        record = source.record(parsed)
        catalogue.add(record, line)
        catalogue.credentials += record.needs_credential(source.now)
    except InvalidRequestError as exc:
        tally.add(kind, Fate.REJECTED)
        catalogue.refuse(kind, parsed.fields.get("id"))
        if kind in HELD and any(isinstance(parsed.fields.get(field), str) for field in HOLDERS):
            catalogue.deferred.add(line)
        else:
            rejects.record(line.number, exc.violations, parsed)
