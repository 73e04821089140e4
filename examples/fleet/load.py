"""Loads the fleet through the API: grants first, then level by level what was delegated."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from time import monotonic
from typing import Final

from rich.console import Console

from examples.fleet.clock import FleetClock
from examples.fleet.progress import progress
from examples.fleet.shape import Fleet, Right
from licet.client import Capability, Client

_THREADS: Final = 8
_TIMEOUT_SECONDS: Final = 30.0
# The rights of a shift are granted before the day begins; how long that takes is estimated from
# the others, generously.
_LEAST_LEAD_SECONDS: Final = 0.5
_CAUTION: Final = 1.5


@dataclass(frozen=True, slots=True)
class Loaded:
    """The fleet as it is in licet.

    Attributes:
        ids: the capability of each right, by the right's key.
        clock: of the day that begins now.
        trace_id: under which every grant is on record.
        seconds: how long it took.
    """

    ids: dict[str, str]
    clock: FleetClock
    trace_id: str
    seconds: float


def load(
    licet: Client, fleet: Fleet, trace_id: str, hour_seconds: float, console: Console
) -> Loaded:
    """Grant all rights of the fleet.

    Those of a shift come last: when a shift begins is known once the day is about to begin.
    """
    lasting = [right for right in fleet.rights if right.shift is None]
    of_shifts = [right for right in fleet.rights if right.shift is not None]
    ids: dict[str, str] = {}
    begun = monotonic()
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        progress(console, "granting", len(fleet.rights)) as advance,
    ):

        def grant_all(rights: Sequence[Right], clock: FleetClock | None) -> Capability | None:
            granted = None
            for capability in pool.map(
                lambda right: _grant(licet, right, ids, trace_id, clock), rights
            ):
                granted = capability
                advance(1)
            return granted

        last = None
        # A level at a time: children need their parents' ids.
        for _, level in groupby(lasting, key=lambda right: right.level):
            last = grant_all(list(level), None)
        if last is None:
            message = "a fleet has at least one team"
            raise ValueError(message)
        each = (monotonic() - begun) / len(lasting)
        lead = _LEAST_LEAD_SECONDS + _CAUTION * each * len(of_shifts)
        clock = FleetClock(last.granted_at, lead, hour_seconds)
        grant_all(of_shifts, clock)
    return Loaded(ids, clock, trace_id, monotonic() - begun)


def _grant(
    licet: Client, right: Right, ids: dict[str, str], trace_id: str, clock: FleetClock | None
) -> Capability:
    not_before = expires_at = None
    if clock is not None and right.shift is not None:
        not_before, expires_at = clock.instant(right.shift.begins), clock.instant(right.shift.ends)
    if right.parent:
        capability = licet.delegate(
            ids[right.parent],
            right.principal,
            right.actions.split(),
            right.resource,
            not_before=not_before,
            expires_at=expires_at,
            delegation_depth=right.depth,
            session_id=right.session,
            trace_id=trace_id,
            timeout=_TIMEOUT_SECONDS,
        )
    else:
        capability = licet.grant(
            right.principal,
            right.actions.split(),
            right.resource,
            delegation_depth=right.depth,
            metadata={"ticket": "FLEET-1"},
            trace_id=trace_id,
            timeout=_TIMEOUT_SECONDS,
        )
    ids[right.key] = capability.id
    return capability
