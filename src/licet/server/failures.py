"""Calls that were not let in: counted, and recorded as one event for each caller and interval.

A flood of them fills neither the audit log nor memory: so many callers are told apart in an
interval, and the others are counted together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final, TypeAlias
from urllib.parse import unquote

from licet.domain.errors import LicetError

_log: Final = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 10.0
MAX_CALLERS: Final = 1000
OTHERS: Final = "address:others"
"""Who did not find room any more in an interval."""
UNIX: Final = "unix"
"""The address of all who call over the Unix socket."""

# What one client has of IPv6 at the least, and could take a new address from with each connection.
_IPV6_PREFIX: Final = 64

RecordFailures: TypeAlias = Callable[[str, str, int, float], None]
"""Records that a caller was not let in: who, why, how often, within how many seconds."""


class FailedCalls:
    """See the module."""

    def __init__(self, record: RecordFailures, seconds: float = INTERVAL_SECONDS) -> None:
        """Record each so many seconds; `record` may raise LicetError."""
        self._record = record
        self._seconds = seconds
        # Guards the two below.
        self._mutex = Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._since = monotonic()
        self.total = 0
        """How many there were; read by metrics."""
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-failed-calls", daemon=True)

    def start(self) -> None:
        """Start recording."""
        self._thread.start()

    def stop(self) -> None:
        """Record what was counted, and end."""
        self._stopping.set()
        self._thread.join(5.0)

    def note(self, who: str, why: str) -> None:
        """Count one. Does not block and raises nothing."""
        with self._mutex:
            self.total += 1
            key = (who, why)
            if key not in self._counts and len(self._counts) >= MAX_CALLERS:
                key = (OTHERS, why)
            self._counts[key] = self._counts.get(key, 0) + 1

    def flush(self) -> None:
        """Record what was counted since the last time."""
        with self._mutex:
            counts, self._counts = self._counts, {}
            since, self._since = self._since, monotonic()
        seconds = round(monotonic() - since, 3)
        for (who, why), count in counts.items():
            try:
                self._record(who, why, count, seconds)
            except LicetError as exc:
                _log.warning("%d calls of %s (%s) are not on record: %s", count, who, why, exc)
        if counts:
            _log.warning("%d calls were not let in", sum(counts.values()))

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            self.flush()
        self.flush()


def address_of(peer: str) -> str:
    """Return the address of a gRPC peer, without its port: those change with each connection."""
    kind, _, rest = unquote(peer).partition(":")
    if kind.startswith("unix"):
        # What a client has bound its end to is its own choice.
        return UNIX
    if kind not in {"ipv4", "ipv6"}:
        return kind or "unknown"
    return rest.rpartition(":")[0].removeprefix("[").removesuffix("]")


@lru_cache(4096)
def network_of(peer: str) -> str:
    """Return that of a gRPC peer's address which is counted together: of IPv6, the /64."""
    address = address_of(peer)
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed, _IPV6_PREFIX), strict=False))
