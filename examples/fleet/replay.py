"""Replays a day: asks for its decisions when they are due, and does what people do about rights.

The decisions of five minutes of the day are asked together, as a gateway in front of many agents
would.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from threading import Event
from typing import Final, TypeVar, assert_never

from rich.console import Console

from examples.fleet.clock import MINUTES
from examples.fleet.day import Asked, CutOff, Day, Deed, EndRun, Lend, PassOn, TakeBack
from examples.fleet.load import Loaded
from examples.fleet.progress import progress
from licet.client import Client, Decision, LicetCallError

_TICK: Final = 5
_RECORD_ATTEMPTS: Final = 100
_RECORD_PAUSE_SECONDS: Final = 0.05

_Moment = TypeVar("_Moment", Asked, Deed)


@dataclass(frozen=True, slots=True)
class Answered:
    """A decision that was asked for, and the answer."""

    asked: Asked
    decision: Decision


@dataclass(frozen=True, slots=True)
class Done:
    """What somebody did about rights, what came of it, and how many capabilities it ended."""

    deed: Deed
    result: str
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a day."""

    answered: tuple[Answered, ...]
    done: tuple[Done, ...]


def replay(licet: Client, day: Day, loaded: Loaded, console: Console) -> Replayed:
    """Live through a day with a fleet that was loaded."""
    asked, deeds = _by_tick(day.asked), _by_tick(day.deeds)
    answered: list[Answered] = []
    done: list[Done] = []
    with progress(console, "deciding", len(day.asked)) as advance:
        for tick in range(MINUTES // _TICK):
            loaded.clock.wait_for(tick * _TICK)
            done += [_do(licet, deed, loaded) for deed in deeds[tick]]
            due = asked[tick]
            requests = [replace(one.request, trace_id=loaded.trace_id) for one in due]
            answered += map(Answered, due, licet.authorize_many(requests))
            advance(len(due))
        _wait_for_record(licet, answered[-1], trace_id=loaded.trace_id)
    return Replayed(tuple(answered), tuple(done))


def _wait_for_record(licet: Client, last: Answered, trace_id: str) -> None:
    """Wait, not for ever, until the last decision is in the audit log, 100 ms after its answer."""
    pause = Event()  # never set: a bounded wait
    for _ in range(_RECORD_ATTEMPTS):
        newest = licet.audit_page(page_size=1, event_types=["decision"], trace_id=trace_id).events
        if newest and newest[0].event_id == last.decision.decision_id:
            return
        pause.wait(_RECORD_PAUSE_SECONDS)


def _by_tick(moments: tuple[_Moment, ...]) -> defaultdict[int, list[_Moment]]:
    ticks: defaultdict[int, list[_Moment]] = defaultdict(list)
    for moment in moments:
        ticks[moment.minute // _TICK].append(moment)
    return ticks


def _do(licet: Client, deed: Deed, loaded: Loaded) -> Done:
    trace_id = loaded.trace_id
    match deed:
        case Lend():
            licet.grant(
                deed.principal,
                deed.actions.split(),
                deed.resource,
                # Not by the clock: a replay that lags behind it still lends for as long.
                ttl=loaded.clock.length(deed.until - deed.minute),
                metadata={"why": deed.why},
                trace_id=trace_id,
            )
            return Done(deed, "granted")
        case PassOn():
            return Done(deed, _pass_on(licet, deed, loaded))
        case TakeBack():
            ended = licet.revoke(loaded.ids[deed.right], reason=deed.why, trace_id=trace_id)
            return Done(deed, f"ended {ended.ended_count}", ended.ended_count)
        case CutOff():
            expected = licet.revoke(principal=deed.principal, dry_run=True)
            ended = licet.revoke(principal=deed.principal, reason=deed.why, trace_id=trace_id)
            result = f"a dry run said {expected.ended_count}, ended {ended.ended_count}"
            return Done(deed, result, ended.ended_count)
        case EndRun():
            ended = licet.revoke(session_id=deed.session, reason=deed.why, trace_id=trace_id)
            return Done(deed, f"ended {ended.ended_count}", ended.ended_count)
        case _:
            assert_never(deed)


def _pass_on(licet: Client, deed: PassOn, loaded: Loaded) -> str:
    try:
        licet.delegate(
            loaded.ids[deed.parent],
            deed.principal,
            deed.actions.split(),
            deed.resource,
            delegation_depth=deed.depth,
            trace_id=loaded.trace_id,
        )
    except LicetCallError as refusal:
        if not refusal.reason:
            raise
        return f"refused: {refusal.reason}"
    return "allowed"
