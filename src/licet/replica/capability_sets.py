"""What replicas keep in memory: capability sets, and who the callers are (`api_keys.py`).

Facts, never decisions, so that time and request are no part of the key. One class for all of them,
because the protocol by which they stay exact is one. Below, a principal stands for any name.

Invariants:

- An entry is what its principal held at the entry's revision, and no change since, up to the
  revision that this replica has applied, touched the principal. How recent that is the lease says:
  entries are used under it only.
- A set that was read before an eviction is never stored after it: a fill carries the highest
  revision that was evicted while it ran, and is stored only if it was read at that revision or
  later.
- Principals that hold nothing are kept apart, counted and not weighed, so that asking for unknown
  principals cannot evict real ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from threading import Event, Lock
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.capability_set import CapabilitySet
from licet.domain.names import Principal
from licet.replica.lease import Lease

# From 2 to 8 % more than a process grows by, for principals of 1 to 100,000 capabilities: a bound
# that memory exceeds would be none.
SET_BYTES: Final = 800
"""What a set with its indexes weighs, and its place here, without its capabilities."""
CAPABILITY_BYTES: Final = 390
"""What one capability of two actions weighs in a set (docs/caching.md)."""
_JOIN_SECONDS: Final = 5.0
_NOTHING: Final = 1 << 63
"""A revision that is never reached."""


class Entry(Protocol):
    """What is kept of a name: nothing of it ever changes."""

    @property
    def revision(self) -> int:
        """The revision of the snapshot that it was read in."""
        ...

    @property
    def size(self) -> int:
        """How many facts it holds; 0: there is nothing of that name."""
        ...

    @property
    def extra_bytes(self) -> int:
        """What it weighs besides the facts, by estimate."""
        ...


_Name = TypeVar("_Name", bound=str)
_LoadedName = TypeVar("_LoadedName", bound=str)
_Entry = TypeVar("_Entry", bound=Entry)
_Entry_co = TypeVar("_Entry_co", bound=Entry, covariant=True)


class Loader(Protocol[_LoadedName, _Entry_co]):
    """Reads what principals hold from the database."""

    def __call__(
        self, principals: Collection[_LoadedName], deadline: Deadline, /
    ) -> Mapping[_LoadedName, _Entry_co]:
        """Return a set for each principal, all of one snapshot and stamped with its revision."""
        ...


Ask: TypeAlias = Callable[[_LoadedName, Callable[[], None]], bool]
"""Has a name read ahead, and then something called; see `ports.Later`."""


class _Fill:
    """A read in flight. `invalidated` is guarded by the mutex of the cache."""

    __slots__ = ("invalidated", "principals")

    def __init__(self, principals: frozenset[str]) -> None:
        self.principals = principals
        self.invalidated = -1


class _Flight(Generic[_Entry]):
    """A read of one principal that others wait for. `result` is set before `landed`, if ever."""

    __slots__ = ("landed", "result")

    def __init__(self) -> None:
        self.landed = Event()
        self.result: _Entry | None = None


class Cached(Generic[_Name, _Entry]):
    """See `ports.CapabilitySets`.

    A hit takes no lock: single operations on an OrderedDict are atomic.
    """

    def __init__(
        self, load: Loader[_Name, _Entry], lease: Lease, max_bytes: int, max_negative: int
    ) -> None:
        """Keep about `max_bytes` of sets, and `max_negative` principals that hold nothing."""
        self._load = load
        self._lease = lease
        self._max_bytes = max_bytes
        self._max_negative = max_negative
        # Guards everything below against other writers; readers of `_held` and `_negative` do
        # without it.
        self._mutex = Lock()
        self._held: OrderedDict[str, _Entry] = OrderedDict()
        self._negative: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._fills: set[_Fill] = set()
        self._flights: dict[_Name, _Flight[_Entry]] = {}
        # Counted under the mutex, and read without it.
        self.reads = 0
        """How many reads of the database there were."""
        self.misses = 0
        """How many principals were asked for that memory could not answer for."""
        self.joined = 0
        """How many requests waited for the read of another instead of reading themselves."""
        self.evictions = 0
        """How many entries made room for others; not those that a change touched."""
        # Nothing read before this revision may be stored: everything was evicted at it. At first
        # nothing at all: a replica that is not registered is not told of changes.
        self._floor = _NOTHING
        # Every change up to this revision has evicted what it touched.
        self._applied = 0
        self._ask: Ask[_Name] | None = None

    def read_ahead_by(self, ask: Ask[_Name]) -> None:
        """Have what is wanted `AT_ONCE` and is not in memory asked for there."""
        self._ask = ask

    def get(self, principal: _Name, deadline: Deadline) -> _Entry:
        """See `ports.CapabilitySets.get`."""
        # (8) The lease first, the entry second: the other way round, a pause between the two would
        # answer from an entry that was evicted meanwhile, under a lease that was extended
        # meanwhile.
        if self._lease.is_valid():
            found = self._hit(principal)
            if found is not None:
                return found
        return self._joined_fill(principal, deadline)

    def has(self, entry: _Entry, name: _Name) -> bool:
        """Say whether `get` would return just this entry now, which makes it no more recent."""
        # (8) In the same order as there.
        return self._lease.is_valid() and self._held.get(name) is entry

    def get_many(self, principals: Collection[_Name], deadline: Deadline) -> Mapping[_Name, _Entry]:
        """See `ports.CapabilitySets.get_many`."""
        if self._lease.is_valid():
            with self._mutex:
                # Evictions take the mutex, so all entries seen under it are of one state.
                found = {p: entry for p in principals if (entry := self._hit(p)) is not None}
                # An entry may be ahead of what was applied, and so of a change that another entry
                # does not have yet; up to there, each is what its principal holds.
                if len(found) == len(principals) and self._applied >= max(
                    (entry.revision for entry in found.values()), default=0
                ):
                    return found
        if deadline is AT_ONCE:
            raise NotAtOnceError
        with self._mutex:
            self.misses += len(principals)
        # One statement for all of them, cached or not: entries and rows together would be of two
        # snapshots.
        return self._fill(principals, deadline)

    def read_ahead(
        self, wanted: Mapping[_Name, int], load: Loader[_Name, _Entry], deadline: Deadline
    ) -> None:
        """Read what memory has nothing of, in one statement, for requests that wait for it.

        They may not use the read, which may be older than they are: they look for the entry that it
        leaves, under the lease. Those who find none read for themselves.

        Args:
            wanted: how many requests wait, by the name that they wait for.
            load: reads, and may leave out whatever would take long.
            deadline: of the read.

        Raises:
            LicetError: as `load` does; nothing was kept.
        """
        with self._mutex:
            flights = {
                name: _Flight[_Entry]()
                for name in wanted
                if name not in self and name not in self._flights
            }
            self._flights |= flights
        try:
            if flights:
                loaded = self._fill(flights, deadline, load)
                for name, found in loaded.items():
                    flights[name].result = found
        finally:
            with self._mutex:
                for name in flights:
                    del self._flights[name]
                for name, requests in wanted.items():
                    if name in self:
                        self.misses += requests
                        self.joined += requests - (name in flights)
            for flight in flights.values():
                flight.landed.set()

    def reset(self, revision: int) -> None:
        """Forget everything, and store nothing that was read before the revision."""
        with self._mutex:
            self._clear()
            self._floor = self._applied = revision
            # What is being read may be of a history that is no more, at a revision of that one.
            for fill in self._fills:
                fill.invalidated = _NOTHING

    def evict(self, principals: Iterable[_Name] | None, revision: int) -> None:
        """Forget what these principals, or all for None, held before a revision."""
        with self._mutex:
            self._applied = max(self._applied, revision)
            if principals is None:
                self._clear()
                self._floor = max(self._floor, revision)
                return
            touched = frozenset(principals)
            for principal in touched:
                self._forget(principal, revision)
            for fill in self._fills:
                if not fill.principals.isdisjoint(touched):
                    fill.invalidated = max(fill.invalidated, revision)

    @property
    def bytes(self) -> int:
        """What the sets weigh, by estimate."""
        return self._bytes

    def __len__(self) -> int:
        """Return how many principals are kept, those that hold nothing included."""
        return len(self._held) + len(self._negative)

    def __contains__(self, principal: _Name) -> bool:
        """Say whether a principal is kept."""
        return principal in self._held or principal in self._negative

    def _clear(self) -> None:
        self._held.clear()
        self._negative.clear()
        self._bytes = 0

    def _hit(self, principal: _Name) -> _Entry | None:
        # The order is that of use from half of the room on; nothing goes before all is taken. To
        # keep it costs as much as the look-up.
        segment = self._held
        found = segment.get(principal)
        if found is not None:
            if 2 * self._bytes < self._max_bytes:
                return found
        else:
            segment = self._negative
            found = segment.get(principal)
            if found is None or 2 * len(segment) < self._max_negative:
                return found
        try:  # noqa: SIM105 - `suppress` costs more than the look-up
            segment.move_to_end(principal)
        except KeyError:
            pass  # evicted meanwhile: the request was under way, and may have either answer
        return found

    def _joined_fill(self, principal: _Name, deadline: Deadline) -> _Entry:
        """Read a principal once for all who ask for it now.

        A request must not use a read that was sent before the request began: the read may be older
        than a revocation that the request must know. So it lets such a read land and looks for the
        entry it left, under the lease; only the next read, which began after it, may be shared.
        """
        if deadline is AT_ONCE:
            # Without the lease whatever is read ahead could not be used.
            if self._ask is None or not self._lease.is_valid():
                raise NotAtOnceError
            raise NotAtOnceError(partial(self._ask, principal))
        with self._mutex:
            self.misses += 1
        flight, leads = self._board(principal)
        if not leads:
            if not flight.landed.wait(deadline.remaining(_JOIN_SECONDS)):
                return self._fill((principal,), deadline)[principal]
            if self._lease.is_valid():
                found = self._hit(principal)
                if found is not None:
                    return found
            flight, leads = self._board(principal)
        if not leads:
            flight.landed.wait(deadline.remaining(_JOIN_SECONDS))
            # None when it failed, perhaps by its own caller's deadline: this one reads for itself.
            if flight.result is not None:
                return flight.result
            return self._fill((principal,), deadline)[principal]
        try:
            flight.result = self._fill((principal,), deadline)[principal]
            return flight.result
        finally:
            # Taken off first: nobody who waited for this flight boards it once more.
            with self._mutex:
                del self._flights[principal]
            flight.landed.set()

    def _board(self, principal: _Name) -> tuple[_Flight[_Entry], bool]:
        """Return the flight under way, or a new one and true: then the caller flies it."""
        with self._mutex:
            flight = self._flights.get(principal)
            if flight is not None:
                self.joined += 1
                return flight, False
            flight = self._flights[principal] = _Flight()
            return flight, True

    def _fill(
        self,
        principals: Collection[_Name],
        deadline: Deadline,
        load: Loader[_Name, _Entry] | None = None,
    ) -> Mapping[_Name, _Entry]:
        fill = _Fill(frozenset(principals))
        with self._mutex:
            # Whatever answers this read must not be behind what was applied already.
            fill.invalidated = self._applied
            self._fills.add(fill)
            self.reads += 1
        try:
            loaded = (load or self._load)(principals, deadline)
        except BaseException:
            with self._mutex:
                self._fills.discard(fill)
            raise
        with self._mutex:
            self._fills.discard(fill)
            # (9) Not what may be older than something that was evicted while it was read.
            for principal, found in loaded.items():
                if found.revision >= fill.invalidated and found.revision >= self._floor:
                    self._store(principal, found)
        # Stored or not: the statement's snapshot is later than the request.
        return loaded

    def _store(self, principal: _Name, found: _Entry) -> None:
        if not self._forget(principal, found.revision):
            return
        if not found.size:
            self._negative[principal] = found
            while len(self._negative) > self._max_negative:
                self._negative.popitem(last=False)
            return
        weight = _weight(found)
        if weight > self._max_bytes:
            return  # it would evict every other and then itself
        self._held[principal] = found
        self._bytes += weight
        while self._bytes > self._max_bytes:
            _, evicted = self._held.popitem(last=False)
            self._bytes -= _weight(evicted)
            self.evictions += 1

    def _forget(self, principal: str, revision: int) -> bool:
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


CachedCapabilitySets: TypeAlias = Cached[Principal, CapabilitySet]
SetLoader: TypeAlias = Loader[Principal, CapabilitySet]


def _weight(held: Entry) -> int:
    return SET_BYTES + CAPABILITY_BYTES * held.size + held.extra_bytes
