"""The report of a day: what was decided and why, and what people did about rights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from examples.fleet.clock import time_of_day
from examples.fleet.day import CutOff, Day, Deed, EndRun, Lend, PassOn, TakeBack
from examples.fleet.load import Loaded
from examples.fleet.replay import Answered, Replayed
from examples.fleet.shape import Fleet
from licet.client import Client

_BAR: Final = 40
_MOST: Final = 8
_LEVELS: Final = ("granted", "delegated", "delegated twice", "delegated three times")


def report(console: Console, fleet: Fleet, day: Day, loaded: Loaded, replayed: Replayed) -> None:
    """Print the whole report."""
    _print_fleet(console, fleet, loaded)
    _print_reasons(console, replayed.answered)
    _print_hours(console, replayed.answered)
    _print_most_denied(console, replayed.answered)
    _print_deeds(console, replayed)
    _print_aftermath(console, day, replayed.answered)
    _print_explained(console, replayed.answered)


def print_record(console: Console, licet: Client, day: Day, loaded: Loaded) -> None:
    """Say what the audit log has of this run."""
    events = Counter(
        (event.event_type, event.result) for event in licet.audit(trace_id=loaded.trace_id)
    )
    table = _table("On record", "event", "result", "events")
    for (kind, result), count in sorted(events.items()):
        table.add_row(kind, result, f"{count:,}")
    console.print(table)
    ended = Counter(
        (event.principal, event.reason)
        for event in licet.audit(
            event_types=["revoke"],
            trace_id=loaded.trace_id,
            metadata={"target": {"principal": day.compromised}},
        )
    )
    table = _table("Ended with the compromised agent", "holder", "because", "capabilities")
    for (principal, reason), count in sorted(ended.items()):
        because = "it was delegated by it" if reason == "CASCADE" else "it was revoked"
        table.add_row(principal, because, f"{count:,}")
    console.print(table)


def _print_fleet(console: Console, fleet: Fleet, loaded: Loaded) -> None:
    table = _table("The fleet", "rights", "how many")
    levels = Counter(right.level for right in fleet.rights)
    for level, count in sorted(levels.items()):
        table.add_row(_LEVELS[level], f"{count:,}")
    table.add_row("in all", f"{len(fleet.rights):,}", style="bold")
    console.print(table)
    console.print(
        f"{len(fleet.principals):,} principals; granted in {loaded.seconds:.1f} s", highlight=False
    )


def _print_reasons(console: Console, answered: Iterable[Answered]) -> None:
    reasons = Counter((one.decision.allowed, one.decision.reason) for one in answered)
    total = reasons.total()
    table = _table("What was decided, and why", "decision", "reason", "decisions", "share")
    for (allowed, reason), count in sorted(reasons.items(), key=lambda item: -item[1]):
        style = "green" if allowed else "red"
        decision = Text("ALLOW" if allowed else "DENY", style)
        table.add_row(decision, reason, f"{count:,}", f"{count / total:.1%}")
    table.add_row("", "in all", f"{total:,}", "", style="bold")
    console.print(table)


def _print_hours(console: Console, answered: Iterable[Answered]) -> None:
    hours = Counter((one.asked.minute // 60, one.decision.allowed) for one in answered)
    most = max(hours[hour, True] + hours[hour, False] for hour in range(24))
    table = _table("By hour of the fleet's day", "from", "allow", "deny", "")
    for hour in range(24):
        allowed, denied = hours[hour, True], hours[hour, False]
        # A denial shows, however few there are.
        red = min(max(round(_BAR * denied / most), 1), _BAR) if denied else 0
        green = round(_BAR * (allowed + denied) / most) - red
        bar = Text("█" * max(green, 0), "green") + Text("▒" * red, "red")
        table.add_row(time_of_day(hour * 60), f"{allowed:,}", f"{denied:,}", bar)
    console.print(table)


def _print_most_denied(console: Console, answered: Iterable[Answered]) -> None:
    denied = [one for one in answered if not one.decision.allowed]
    reasons = Counter((one.asked.request.principal, one.decision.reason) for one in denied)
    table = _table("Most denied", "principal", "denials", "why")
    for principal, count in Counter(one.asked.request.principal for one in denied).most_common(
        _MOST
    ):
        why = ", ".join(
            f"{reason} {times}"
            for (who, reason), times in reasons.most_common()
            if who == principal
        )
        table.add_row(principal, f"{count:,}", why)
    console.print(table)


def _print_deeds(console: Console, replayed: Replayed) -> None:
    table = _table("What people did about rights", "at", "what", "why", "outcome")
    for done in replayed.done:
        what, why = _told(done.deed)
        table.add_row(time_of_day(done.deed.minute), what, why, done.result)
    console.print(table)


def _told(deed: Deed) -> tuple[str, str]:
    match deed:
        case Lend():
            until = time_of_day(deed.until)
            return f"{deed.principal} may {deed.actions} {deed.resource} until {until}", deed.why
        case PassOn():
            return f"{deed.principal} is to {deed.actions} {deed.resource}", deed.why
        case TakeBack():
            return f"take back {deed.right}", deed.why
        case CutOff():
            return f"cut off {deed.principal}", deed.why
        case EndRun():
            return f"end {deed.session}", deed.why


def _print_aftermath(console: Console, day: Day, answered: Iterable[Answered]) -> None:
    """Show the cascade: who else stood on what the compromised agent held."""
    cut_off = next(deed.minute for deed in day.deeds if isinstance(deed, CutOff))
    area = day.compromised.removesuffix("-operator")
    table = _table("The compromised agent and its sub-agent", "principal", "when", "allow", "deny")
    for principal in (day.compromised, f"{area}-drafter"):
        for when, is_after in (("before the cut", False), ("after it", True)):
            decisions = Counter(
                one.decision.allowed
                for one in answered
                if one.asked.request.principal == principal
                and (one.asked.minute >= cut_off) is is_after
            )
            table.add_row(principal, when, f"{decisions[True]:,}", f"{decisions[False]:,}")
    console.print(table)


def _print_explained(console: Console, answered: Iterable[Answered]) -> None:
    console.print(Text("\nSome decisions explained", style="bold"))
    for one in answered:
        if one.asked.title:
            console.print(_explained(one), soft_wrap=True)


def _explained(one: Answered) -> Tree:
    request, decision = one.asked.request, one.decision
    verdict = "[green]ALLOW[/]" if decision.allowed else "[red]DENY[/]"
    tree = Tree(f"{time_of_day(one.asked.minute)} {one.asked.title}: {verdict} {decision.reason}")
    tree.add(f"{request.principal} {request.action} {request.resource}")
    tree.add(decision.detail)
    if decision.explanation is not None:
        for line in _candidates(one):
            tree.add(line)
    return tree


def _candidates(one: Answered) -> Iterator[str]:
    explanation = one.decision.explanation
    if explanation is None or not explanation.candidates:
        yield "no capability that it holds or held covers the resource"
        return
    for candidate in explanation.candidates:
        yield (
            f"{', '.join(candidate.actions)} on {candidate.resource}: "
            f"{candidate.verdict}, {candidate.detail}"
        )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in columns:
        is_count = name in {
            "how many",
            "decisions",
            "share",
            "allow",
            "deny",
            "denials",
            "events",
            "capabilities",
        }
        table.add_column(name, justify="right" if is_count else "left", overflow="fold")
    return table
