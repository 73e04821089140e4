"""Who the callers are: API keys, verified from memory under the lease.

Invariants:

- A key counts only as the entry that memory has for it now, looked up under the lease; so it ends
  everywhere with the revision that ended it, as a capability does. A change of its user, or the
  suspension of the principal as whom it acts, touches it as well: the entry has what those allow.
- Of a header that was verified, only that is remembered: that it holds the secret with a certain
  digest. That stays true for ever; whether the key with that digest still counts is looked up each
  time.
- A key that is not known, one that has ended and a wrong secret cost the same work in memory and
  raise the same error.
"""

from __future__ import annotations

import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Sequence
from threading import Event, Thread
from typing import Final, NamedTuple, Protocol

from licet.app.ports import Clock, Deadline
from licet.domain import api_key
from licet.domain.api_key import KeyId
from licet.domain.caller import Identity
from licet.domain.errors import LicetError, UnauthenticatedError
from licet.domain.instant import Instant
from licet.replica.capability_sets import Cached

_log: Final = logging.getLogger(__name__)

KEY_NAMES: Final = "/api_keys/"
"""How keys are named in the changes; see the migration. No principal begins like that."""
BEARER: Final = "Bearer "
MAX_REMEMBERED: Final = 30_000
"""How many headers are remembered; there is one for each key and agent's token in use."""
USES_SECONDS: Final = 60.0

_NOBODY: Final = bytes(32)
"""What the secret of a key that does not exist is compared with; no secret has this digest."""


class HeldKey(NamedTuple):
    """What memory has of a key, or of an id without one. Never changes.

    Attributes:
        name: of the key in the changes.
        revision: of the snapshot that it was read in.
        digest: SHA-256 of the secret.
        identity: whom it authenticates; None: nobody, because it does not exist or has ended, or
            because its user is disabled or its principal suspended.
        dies_at: when it ends by itself; None: it does not.
    """

    name: str
    revision: int
    digest: bytes
    identity: Identity | None
    dies_at: Instant | None

    @property
    def extra_bytes(self) -> int:
        """See `capability_sets.Entry`."""
        return 0

    @property
    def size(self) -> int:
        """See `capability_sets.Entry`."""
        return 0 if self.identity is None else 1

    @classmethod
    def nobody(cls, name: str, revision: int) -> HeldKey:
        """Return the entry of an id without a key."""
        return cls(name, revision, _NOBODY, None, None)


class KeyUses(Protocol):
    """Where the time is kept at which keys were used last."""

    def used(self, keys: Sequence[KeyId], deadline: Deadline) -> None:
        """Keep that these keys were used just now. Raises UnavailableError or DeadlineError."""
        ...


class ApiKeys:
    """Finds out who calls, from an `authorization` header."""

    def __init__(
        self,
        held: Cached[str, HeldKey],
        clock: Clock,
        tag_key: bytes,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        """Compose it.

        Args:
            held: the keys in memory.
            clock: the database's, which decides what has expired.
            tag_key: with which the ids of this database's keys are made.
            max_remembered: how many headers that were verified are kept.
        """
        self._max_remembered = max_remembered
        self._held = held
        self._clock = clock
        self._tag_key = tag_key
        # Single operations on dicts, which are atomic; written by every thread.
        self._verified: OrderedDict[str, HeldKey] = OrderedDict()
        self._used: dict[str, None] = {}

    @property
    def remembered(self) -> Container[str]:
        """The headers that were verified before: the key of one may have ended, and is no guess."""
        return self._verified

    def __call__(self, header: str, deadline: Deadline) -> Identity:
        """Return whom the header's credential authenticates, now.

        Raises:
            UnauthenticatedError: nobody.
            UnavailableError, DeadlineError: that cannot be known.
        """
        identity = self.known(header, deadline)
        if identity is not None:
            return identity
        return self._alive(header, self._verified_entry(header, deadline))

    def current(self, header: str) -> Identity | None:
        """Return whom a header that was verified before authenticates, if memory can say so.

        That is while the lease is held, and its key in memory; nothing is hashed, and nothing read.

        Raises:
            UnauthenticatedError: the key has ended.
        """
        known = self._verified.get(header)
        if known is None or not self._held.has(known, known.name):
            return None
        return self._alive(header, known)

    def known(self, header: str, deadline: Deadline) -> Identity | None:
        """Return whom a header that was verified before authenticates; None: it was not.

        Nothing is hashed. Raises as verifying does.
        """
        known = self._verified.get(header)
        if known is None:
            return None
        entry = self._held.get(known.name, deadline)
        if entry.digest != known.digest:
            self._verified.pop(header, None)
            raise _nobody()
        if header in self._verified:
            self._verified[header] = entry
        return self._alive(header, entry)

    def _alive(self, header: str, entry: HeldKey) -> Identity:
        """Return whom a key authenticates. Raises UnauthenticatedError if it has ended."""
        identity = entry.identity
        # The clock is read after the look-up: a slow one can only make a key expire.
        if identity is None or (entry.dies_at is not None and self._clock.now() >= entry.dies_at):
            self._verified.pop(header, None)
            raise _nobody()
        self._used[identity.key_id] = None
        return identity

    def evict(self, names: Iterable[str] | None, revision: int) -> None:
        """See `coherence.Memory.evict`."""
        touched = None if names is None else [n for n in names if n.startswith(KEY_NAMES)]
        self._held.evict(touched, revision)
        if touched:
            # Not wrong, but secrets of keys that may have ended need not be kept. Those of others
            # are: who has to be verified anew competes with whoever floods from the same address.
            gone = frozenset(touched)
            for header, entry in list(self._verified.items()):
                if entry.name in gone:
                    self._verified.pop(header, None)

    def reset(self, revision: int) -> None:
        """See `coherence.Memory.reset`."""
        self._held.reset(revision)

    def drain_used(self) -> list[KeyId]:
        """Return the keys that were used since this was asked last."""
        used = list(self._used)
        for key_id in used:
            self._used.pop(key_id, None)
        return [KeyId(key_id) for key_id in used]

    def _verified_entry(self, header: str, deadline: Deadline) -> HeldKey:
        """Return what memory has of the key whose secret is in the header."""
        scheme, _, text = header.partition(" ")
        token = api_key.parse(text) if scheme.lower() == "bearer" else None
        if token is None or not api_key.is_issued(token.key_id, self._tag_key):
            raise _nobody()
        entry = self._held.get(KEY_NAMES + token.key_id, deadline)
        if not hmac.compare_digest(api_key.digest(token.secret), entry.digest):
            raise _nobody()
        # In its one canonical form only, so that a key's owner cannot fill memory with others.
        if header.startswith(BEARER):
            self._verified[header] = entry
            if len(self._verified) > self._max_remembered:
                self._verified.popitem(last=False)
        return entry


def _nobody() -> UnauthenticatedError:
    return UnauthenticatedError(api_key.EXPECTED)


class UsesThread:
    """Writes once a minute which keys were used, in one statement."""

    def __init__(
        self,
        drain: Callable[[], list[KeyId]],
        uses: KeyUses,
        deadline: Callable[[float], Deadline],
        seconds: float = USES_SECONDS,
    ) -> None:
        """Write what `drain` returns; `deadline` makes one of so many seconds."""
        self._drain = drain
        self._uses = uses
        self._deadline = deadline
        self._seconds = seconds
        self._stopping = Event()
        self._runner = Thread(target=self._run, name="licet-key-uses", daemon=True)

    def start(self) -> None:
        """Start writing."""
        self._runner.start()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._stopping.set()
        self._runner.join(5.0)

    def write(self) -> None:
        """Write now."""
        used = self._drain()
        if not used:
            return
        try:
            self._uses.used(used, self._deadline(2.0))
        except LicetError as exc:
            _log.warning("when API keys were used last could not be kept: %s", exc)

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            self.write()
        self.write()
