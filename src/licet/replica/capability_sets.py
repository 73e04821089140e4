"""The capability sets in memory.

Facts, never decisions, so that time and request are no part of the key.

Invariants:

- An entry is what its principal holds at the entry's revision, and no change up to the present
  touched the principal since; whoever commits a change evicts the principals that it touched before
  the change is acknowledged.
- A set that was read before an eviction is never stored after it: a fill carries the highest
  revision that was evicted while it ran, and is stored only if it was read at that revision or
  later.
- While a change is in doubt (sent, and its outcome unknown) nothing is answered from memory.
- Principals that hold nothing are kept apart, counted and not weighed, so that asking for unknown
  principals cannot evict real ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Final, Protocol

from licet.app.ports import Deadline
from licet.domain.capability_set import CapabilitySet
from licet.domain.names import Principal

SET_BYTES: Final = 1500
"""What a set with its indexes weighs, without its capabilities (docs/benchmarks.md)."""
CAPABILITY_BYTES: Final = 600
"""What one capability of two actions weighs in a set."""


class Loader(Protocol):
    """Reads what principals hold from the database."""

    def __call__(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        """Return a set for each principal, all of one snapshot and stamped with its revision."""
        ...


class _Fill:
    """A read in flight. `invalidated` is guarded by the mutex of the cache."""

    __slots__ = ("invalidated", "principals")

    def __init__(self, principals: frozenset[Principal]) -> None:
        self.principals = principals
        self.invalidated = -1


class CachedCapabilitySets:
    """See `ports.CapabilitySets`.

    A hit takes no lock: single operations on an OrderedDict are atomic.
    """

    def __init__(self, load: Loader, max_bytes: int, max_negative: int) -> None:
        """Keep about `max_bytes` of sets, and `max_negative` principals that hold nothing."""
        self._load = load
        self._max_bytes = max_bytes
        self._max_negative = max_negative
        # Guards everything below against other writers; readers of `_held` and `_negative` do
        # without it.
        self._mutex = Lock()
        self._held: OrderedDict[Principal, CapabilitySet] = OrderedDict()
        self._negative: OrderedDict[Principal, CapabilitySet] = OrderedDict()
        self._bytes = 0
        self._fills: set[_Fill] = set()
        self._doubts = 0
        # Nothing read before this revision may be stored: everything was evicted at it.
        self._floor = 0

    def get(self, principal: Principal, deadline: Deadline) -> CapabilitySet:
        """See `ports.CapabilitySets.get`."""
        # Whether memory may be used is asked first and the entry looked up second: the other way
        # round, a pause between the two would answer from an entry that was evicted meanwhile.
        if not self._doubts:
            found = self._hit(principal)
            if found is not None:
                return found
        return self._fill((principal,), deadline)[principal]

    def get_many(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        """See `ports.CapabilitySets.get_many`."""
        with self._mutex:
            if not self._doubts:
                # Evictions take the mutex, so all entries seen under it are of one state.
                found = {p: entry for p in principals if (entry := self._hit(p)) is not None}
                if len(found) == len(principals):
                    return found
        # One statement for all of them, cached or not: entries and rows together would be of two
        # snapshots.
        return self._fill(principals, deadline)

    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        """Forget what these principals, or all for None, held before a revision."""
        with self._mutex:
            if principals is None:
                self._floor = max(self._floor, revision)
                self._held.clear()
                self._negative.clear()
                self._bytes = 0
                return
            touched = frozenset(principals)
            for principal in touched:
                self._forget(principal, revision)
            for fill in self._fills:
                if not fill.principals.isdisjoint(touched):
                    fill.invalidated = max(fill.invalidated, revision)

    @contextmanager
    def doubting(self) -> Iterator[None]:
        """Answer nothing from memory, and store nothing, until the block is left."""
        with self._mutex:
            self._doubts += 1
        try:
            yield
        finally:
            with self._mutex:
                self._doubts -= 1

    @property
    def bytes(self) -> int:
        """What the sets weigh, by estimate."""
        return self._bytes

    def __len__(self) -> int:
        """Return how many principals are kept, those that hold nothing included."""
        return len(self._held) + len(self._negative)

    def __contains__(self, principal: Principal) -> bool:
        """Say whether a principal is kept."""
        return principal in self._held or principal in self._negative

    def _hit(self, principal: Principal) -> CapabilitySet | None:
        segment = self._held
        found = segment.get(principal)
        if found is None:
            segment = self._negative
            found = segment.get(principal)
            if found is None:
                return None
        try:  # noqa: SIM105 - `suppress` costs more than the look-up
            segment.move_to_end(principal)
        except KeyError:
            pass  # evicted meanwhile: the request was under way, and may have either answer
        return found

    def _fill(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        fill = _Fill(frozenset(principals))
        with self._mutex:
            self._fills.add(fill)
        try:
            loaded = self._load(principals, deadline)
        except BaseException:
            with self._mutex:
                self._fills.discard(fill)
            raise
        with self._mutex:
            self._fills.discard(fill)
            if not self._doubts:
                for found in loaded.values():
                    if found.revision >= fill.invalidated and found.revision >= self._floor:
                        self._store(found)
        # Stored or not: the statement's snapshot is later than the request.
        return loaded

    def _store(self, found: CapabilitySet) -> None:
        principal = found.principal
        if not self._forget(principal, found.revision):
            return
        if not found.size:
            self._negative[principal] = found
            while len(self._negative) > self._max_negative:
                self._negative.popitem(last=False)
            return
        self._held[principal] = found
        self._bytes += _weight(found)
        while self._bytes > self._max_bytes:
            _, evicted = self._held.popitem(last=False)
            self._bytes -= _weight(evicted)

    def _forget(self, principal: Principal, revision: int) -> bool:
        """Drop an entry older than a revision; say whether none is left."""
        old = self._held.get(principal)
        if old is not None:
            if old.revision >= revision:
                return False
            del self._held[principal]
            self._bytes -= _weight(old)
            return True
        old = self._negative.get(principal)
        if old is None:
            return True
        if old.revision >= revision:
            return False
        del self._negative[principal]
        return True


def _weight(held: CapabilitySet) -> int:
    return SET_BYTES + CAPABILITY_BYTES * held.size
