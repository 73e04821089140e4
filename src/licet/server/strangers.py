"""Strangers: callers with a credential that was not verified yet, or with none where one is needed.

Whoever floods is one of them, and they must not be in the way of those who are known. So they have
threads of their own, and are refused at a measured pace: their next calls wait in the lane, and
once a connection has as many calls waiting as it may have, its client has to wait as well. Of an
address whose credentials failed too often, no more are verified for a while; those that are known
already are let in from there as from anywhere.
"""

from __future__ import annotations

from threading import Event
from typing import Final

import grpc

from licet.domain.errors import LicetError, RateLimitedError, UnauthenticatedError
from licet.server.failures import network_of
from licet.server.lanes import Lane
from licet.server.rates import Buckets

THREADS: Final = 4
PACE: Final = 500.0
"""How many strangers a second are refused; some 0.2 ms of processor time each."""
MOST: Final = 8192
"""How many may wait for that; with more they are refused as fast as can be. Some 17 kB each."""
BURST_SECONDS: Final = 10
"""A network that was quiet may fail as often at once as otherwise in so many seconds."""
FAILURES: Final = "failures"
"""The name of the limit."""
BURST: Final = 50
"""How many may come at once before they are paced."""
_PAUSE_SECONDS: Final = 0.05


class Strangers:
    """See the module."""

    def __init__(self, failures: Buckets | None = None) -> None:
        """Let each network fail as often as `failures` allow; None: as often as it likes."""
        self._failures = failures
        self._refusals = Buckets(PACE, BURST)
        self._ending = Event()
        self.lane = Lane(THREADS, "stranger", MOST)
        """Their threads."""

    def check(self, context: grpc.ServicerContext) -> None:
        """Check that a credential may be verified. Says the same of every credential.

        Raises:
            RateLimitedError: too many from there have failed.
        """
        if self._failures is None:
            return
        seconds = self._failures.wait(network_of(context.peer()))
        if seconds:
            message = "too many credentials from this address were not valid"
            raise RateLimitedError(FAILURES, message, seconds)

    def failed(self, context: grpc.ServicerContext) -> None:
        """Take note that a credential was not valid."""
        if self._failures is not None:
            self._failures.take(network_of(context.peer()))

    def slow_down(self, error: LicetError) -> None:
        """Wait before a stranger is told this error, unless too many wait already."""
        if not isinstance(error, UnauthenticatedError | RateLimitedError):
            return
        while not self.lane.is_full and self._refusals.take(""):
            if self._ending.wait(_PAUSE_SECONDS):
                return

    def end(self) -> None:
        """Refuse those that wait at once: the server is stopping."""
        self._ending.set()
