"""Capabilities: granted, each after its parent, under the rules that hold for every grant.

A capability keeps what the old system said of its granting under `imported` in its metadata; in
licet it is granted now, by the caller.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from licet.cli.importing.desk import Desk
from licet.cli.importing.earlier import MARK, Earlier, capabilities, mark
from licet.cli.importing.fields import stored_object
from licet.cli.importing.order import CYCLIC, by_level, levels
from licet.cli.importing.records import CapabilityRecord, Kind
from licet.cli.importing.sending import each, refusal, violations_of
from licet.cli.importing.source import Read
from licet.cli.importing.tally import Fate
from licet.domain.capability import Capability, Terms, check_attenuation, inherit
from licet.domain.errors import InvalidRequestError, RefusedError
from licet.domain.instant import EARLIEST, Instant, rfc3339, to_datetime
from licet.domain.names import Caller, CapabilityId, Principal

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Capability as Granted

_REMEMBERED: Final = 4096
_NOBODY: Final = Caller("service:licet")
_NO_ID: Final = CapabilityId("")
_OTHERWISE: Final = "was imported before, and was not as it is here"


class _Prepared(NamedTuple):
    """A capability that passed its checks."""

    read: Read
    record: CapabilityRecord
    principal: Principal
    parent_id: CapabilityId
    metadata: dict[str, Any]
    digest: str


class GrantLoader:
    """Grants the capabilities of a file."""

    def __init__(self, desk: Desk, told: Callable[[int], None]) -> None:
        """Find out what is there already; `told` is given how many of licet's were looked at.

        Raises:
            LicetCallError: that cannot be known.
        """
        self._desk = desk
        self._catalogue = desk.catalogue
        self._places = desk.catalogue.places[Kind.CAPABILITY]
        self._positions = desk.catalogue.positions[Kind.CAPABILITY]
        parents = frozenset(desk.catalogue.parents.values())
        wanted = self._positions.keys() | parents | desk.catalogue.mentioned
        self._earlier: dict[str, Earlier] = {}
        if wanted:
            self._earlier = capabilities(desk.client, desk.name, wanted, parents, told)
        self.ids = {key: earlier.id for key, earlier in self._earlier.items()}
        """Of capabilities that are in licet, by their ids in the old system."""
        self._usable = bytearray(len(self._places))  # 1: others may be delegated from it
        self._terms = lru_cache(_REMEMBERED)(self._read_terms)

    def load(self) -> None:
        """Grant them all.

        Raises:
            LicetCallError: licet does not answer; what was granted stays. CommandError: see `Desk`.
        """
        found = levels(len(self._places), self._catalogue.parents, self._positions)
        for level in by_level(found):
            self._load(level, found)

    def _load(self, level: Sequence[int], found: array[int]) -> None:
        """Grant those whose parents have had their fate."""
        for (position, prepared), outcome in each(self._calls(level, found)):
            record = prepared.record
            if isinstance(outcome, Exception):
                self._desk.reject(prepared.read, violations_of(outcome))
            else:
                self.ids[record.id] = CapabilityId(outcome.id)
                self._use(position, Fate.IMPORTED)

    def _calls(
        self, level: Sequence[int], found: array[int]
    ) -> Iterator[tuple[tuple[int, _Prepared], Callable[[], Granted]]]:
        for position in level:
            read = self._desk.source.again(self._places[position])
            try:
                prepared = self._prepared(position, read, is_cyclic=found[position] == CYCLIC)
            except InvalidRequestError as exc:
                self._desk.reject(read, exc.violations)
                continue
            if prepared is None:
                continue
            if self._desk.dry_run:
                self._use(position, Fate.IMPORTED)
            else:
                yield (position, prepared), partial(self._grant, prepared)

    def _use(self, position: int, fate: Fate) -> None:
        self._usable[position] = 1
        self._desk.settle(Kind.CAPABILITY, fate)

    def _prepared(self, position: int, read: Read, *, is_cyclic: bool) -> _Prepared | None:
        """Check one in the light of the others; None: it is not to be granted, and counted.

        Raises:
            InvalidRequestError: it is to be rejected.
        """
        record = _capability(read)
        earlier = self._earlier.get(record.id)
        if earlier is None and not record.is_live(self._desk.source.now):
            self._desk.settle(Kind.CAPABILITY, Fate.ENDED)
            return None
        if is_cyclic:
            raise InvalidRequestError.of("parent", "leads back to the capability itself")
        principal = self._desk.principal_of(read, record.holder)
        digest = _digest(record, principal)
        if earlier is not None:
            _check_present(record, earlier, digest)
            self._use(position, Fate.PRESENT)
            return None
        parent_id = self._check_parent(record, principal) if record.parent else _NO_ID
        metadata = _metadata(self._desk.name, record, digest)
        return _Prepared(read, record, principal, parent_id, metadata, digest)

    def _check_parent(self, record: CapabilityRecord, principal: Principal) -> CapabilityId:
        """Check that one may be delegated from its parent, and return licet's id of that."""
        parent = self._parent(record.parent)
        child = inherit(_terms(record, principal), parent)
        try:
            check_attenuation(child, parent, self._desk.source.now)
        except RefusedError as exc:
            found = refusal(exc.code, exc.message)
            raise InvalidRequestError(found) from None
        if (
            child.not_before is not None
            and child.expires_at is not None
            and child.not_before >= child.expires_at
        ):
            raise InvalidRequestError.of("not_before", "must be before the parent's expiry")
        return parent.id

    def _parent(self, key: str) -> Capability:
        position = self._positions.get(key)
        earlier = self._earlier.get(key)
        if position is None:
            if earlier is not None and earlier.as_parent is not None:
                return earlier.as_parent
            if (Kind.CAPABILITY, key) in self._catalogue.refused:
                raise InvalidRequestError.of("parent", "was rejected itself")
            raise InvalidRequestError.of("parent", "must be the id of a capability")
        if not self._usable[position]:
            if (Kind.CAPABILITY, key) in self._catalogue.refused:
                number = self._places[position].number
                raise InvalidRequestError.of("parent", f"was rejected itself, in line {number}")
            raise InvalidRequestError.of("parent", "has ended, and so has what descends from it")
        if earlier is not None and earlier.as_parent is not None:
            return earlier.as_parent
        return _capability_of(self._terms(position), self.ids.get(key, _NO_ID))

    def _read_terms(self, position: int) -> Terms:
        """Return the terms of a capability that passed its checks, with what it inherits."""
        read = self._desk.source.again(self._places[position])
        record = _capability(read)
        own = _terms(record, self._desk.principal_of(read, record.holder))
        return inherit(own, self._parent(record.parent)) if record.parent else own

    def _grant(self, prepared: _Prepared) -> Granted:
        record = prepared.record
        fields: dict[str, Any] = {
            "expires_at": _moment(record.expires_at),
            "not_before": _moment(record.not_before),
            "delegation_depth": record.delegation_depth,
            "session_id": record.session_id,
            "metadata": prepared.metadata,
            "request_id": self._request_id(prepared),
        }
        client, what = self._desk.client, (prepared.principal, record.actions, record.resource)
        if prepared.parent_id:
            return client.delegate(prepared.parent_id, *what, **fields)
        return client.grant(*what, **fields)

    def _request_id(self, prepared: _Prepared) -> str:
        """Return the same for the same record: a second import at the same time grants nothing."""
        body = [self._desk.name, prepared.record.id, prepared.digest, prepared.parent_id]
        return f"import {hashlib.sha256(json.dumps(body).encode()).hexdigest()}"


def _capability(read: Read) -> CapabilityRecord:
    if not isinstance(read.record, CapabilityRecord):
        raise TypeError(f"line {read.place.number} is no capability")
    return read.record


def _check_present(record: CapabilityRecord, earlier: Earlier, digest: str) -> None:
    """Check that one that was imported before is as it was.

    Raises:
        InvalidRequestError: it is not, or has ended in the old system only.
    """
    if earlier.digest != digest:
        raise InvalidRequestError.of("id", _OTHERWISE)
    if record.ended_at is not None and not earlier.is_ended:
        raise InvalidRequestError.of(
            "revoked_at", f"is later than its import: revoke the capability {earlier.id} in licet"
        )


def _terms(record: CapabilityRecord, principal: Principal) -> Terms:
    return Terms(
        principal=principal,
        actions=record.actions,
        resource=record.resource,
        not_before=record.not_before,
        expires_at=record.expires_at,
        delegation_depth=record.delegation_depth,
        session_id=record.session_id,
        metadata=record.metadata,
    )


def _capability_of(terms: Terms, capability_id: CapabilityId) -> Capability:
    return Capability(
        id=capability_id,
        terms=terms,
        parent_id=None,
        granted_by=_NOBODY,
        granted_at=EARLIEST,
        revision=0,
        end=None,
    )


def _digest(record: CapabilityRecord, principal: Principal) -> str:
    """Return a digest of what is granted; not of whether it has ended."""
    body = [
        *(principal, record.actions, record.resource, record.parent, record.delegation_depth),
        *(record.not_before, record.expires_at, record.session_id, record.granted_by),
        *(record.granted_at, record.metadata),
    ]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def _metadata(source: str, record: CapabilityRecord, digest: str) -> dict[str, Any]:
    own = json.loads(record.metadata)
    if MARK in own:
        raise InvalidRequestError.of("metadata", f"must not have the key `{MARK}`")
    granted_at = "" if record.granted_at is None else rfc3339(record.granted_at)
    whole: dict[str, Any] = own | mark(
        source, record.id, digest, granted_by=record.granted_by, granted_at=granted_at
    )
    stored_object(whole, "metadata")
    return whole


def _moment(at: Instant | None) -> Any:  # noqa: ANN401 - as the client takes it
    return None if at is None else to_datetime(at)
