"""What happens in a day of the fleet: the decisions asked for, and what people do about rights.

The same fleet, seed and number of decisions are always the same day.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias

from examples.fleet.shape import EARLY, LATE, Fleet, Right, Team
from licet.client import AuthorizeRequest

# How busy each hour is. Agents do not sleep, but those who give them work do.
_BUSY: Final = (2, 2, 5, 5, 2, 1, 3, 5, 7, 9, 10, 9, 6, 8, 9, 9, 8, 7, 4, 3, 2, 2, 1, 1)
_NIGHT_ENDS: Final = 6 * 60
_NIGHT_BEGINS: Final = 22 * 60
_WORDS: Final = (
    "overview summary minutes draft-2 appendix q3 forecast checklist 4711 1207 readme figures "
    "handover template archive-2025 faq main release-notes"
)

# Of each hundred decisions.
_LEASE: Final = 0.10
_STRAY: Final = 0.04
_OVERREACH: Final = 0.02
# Nothing is asked so close to the begin or the end of a shift that a slow replay would miss it.
_MARGIN: Final = 30

SHARE_TAKEN_BACK: Final = 9 * 60 + 20
INCIDENT_BEGINS: Final = 10 * 60
INCIDENT_ENDS: Final = 11 * 60 + 30
COMPROMISE_BEGINS: Final = 14 * 60 + 40
COMPROMISE_ENDS: Final = 15 * 60 + 10
RUN_ENDS: Final = 17 * 60


@dataclass(frozen=True, slots=True)
class Asked:
    """A decision that is asked for; `title` says why it is worth explaining, if it is."""

    minute: int
    request: AuthorizeRequest
    title: str = ""


@dataclass(frozen=True, slots=True)
class Lend:
    """A right is granted for a while."""

    minute: int
    until: int
    principal: str
    actions: str
    resource: str
    why: str


@dataclass(frozen=True, slots=True)
class PassOn:
    """Somebody tries to pass on more than they hold."""

    minute: int
    parent: str
    principal: str
    actions: str
    resource: str
    depth: int
    why: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """One right, by its key, is revoked."""

    minute: int
    right: str
    why: str


@dataclass(frozen=True, slots=True)
class CutOff:
    """Everything that a principal holds is revoked, and so is all that was delegated from it."""

    minute: int
    principal: str
    why: str


@dataclass(frozen=True, slots=True)
class EndRun:
    """A session ends."""

    minute: int
    session: str
    why: str


Deed: TypeAlias = Lend | PassOn | TakeBack | CutOff | EndRun


@dataclass(frozen=True, slots=True)
class Day:
    """A day, in the order in which it happens."""

    asked: tuple[Asked, ...]
    deeds: tuple[Deed, ...]
    compromised: str


def a_day(fleet: Fleet, seed: int, decisions: int) -> Day:
    """Return a day with about so many decisions, and what comes on top of them."""
    random = Random(seed)
    team = fleet.teams[0]
    compromised = f"agent:{team.name}-{team.areas[1]}-operator"
    asked = [
        *_ordinary(fleet, random, decisions),
        *_at_the_guests(team, random),
        *_incident(team, random),
        *_compromise(fleet, compromised, random, decisions // 50),
        *_worth_explaining(team),
    ]
    return Day(
        tuple(sorted(asked, key=lambda one: one.minute)),
        tuple(_deeds(team, compromised)),
        compromised,
    )


def _ordinary(fleet: Fleet, random: Random, decisions: int) -> Iterator[Asked]:
    held: defaultdict[str, list[Right]] = defaultdict(list)
    leases: list[Right] = []
    for right in fleet.rights:
        if right.shift is not None:
            leases.append(right)
        elif not right.principal.startswith("user:contractor"):
            held[right.principal].append(right)
    awake = tuple(held)
    at_night = tuple(p for p in held if p.endswith(("-nightly", "-api", "-drafter", "-reader")))
    for hour in random.choices(range(24), weights=_BUSY, k=decisions):
        minute = hour * 60 + random.randrange(60)
        kind = random.random()
        if kind < _LEASE:
            yield _on_lease(random.choice(leases), random)
            continue
        is_night = minute < _NIGHT_ENDS or minute >= _NIGHT_BEGINS
        right = random.choice(held[random.choice(at_night if is_night else awake)])
        if kind < _LEASE + _STRAY:
            elsewhere = random.choice(fleet.teams).name
            path = f"{elsewhere}/{_word(random)}"
            resource = f"secret:{path}" if random.random() < 1 / 2 else f"db:{path}/{minute}"
            yield Asked(minute, AuthorizeRequest(right.principal, "read", resource))
        elif kind < _LEASE + _STRAY + _OVERREACH:
            resource = _some(right.resource, random)
            yield Asked(minute, AuthorizeRequest(right.principal, "delete", resource))
        else:
            yield Asked(minute, _use(right, random))


def _on_lease(lease: Right, random: Random) -> Asked:
    """Use a right of a shift: nearly always within it, sometimes too early or too late."""
    shift = lease.shift or EARLY
    kind = random.random()
    if kind < 1 / 8:
        minute = random.randrange(shift.begins - 4 * 60, shift.begins - _MARGIN)
    elif kind < 1 / 4:
        minute = random.randrange(shift.ends + _MARGIN, min(shift.ends + 4 * 60, 24 * 60))
    else:
        minute = random.randrange(shift.begins + _MARGIN, shift.ends - _MARGIN)
    return Asked(minute, _use(lease, random))


def _at_the_guests(team: Team, random: Random) -> Iterator[Asked]:
    resource = f"doc:{team.name}/{team.areas[-1]}/**"
    for guest in team.guests:
        for _ in range(9):
            minute = random.randrange(SHARE_TAKEN_BACK - 90, SHARE_TAKEN_BACK + 90)
            yield Asked(minute, AuthorizeRequest(guest, "read", _some(resource, random)))


def _incident(team: Team, random: Random) -> Iterator[Asked]:
    operator, secrets = _on_call(team)
    for _ in range(16):
        minute = random.randrange(INCIDENT_BEGINS + _MARGIN, INCIDENT_ENDS + 90)
        if abs(minute - INCIDENT_ENDS) >= _MARGIN:
            yield Asked(minute, AuthorizeRequest(operator, "read", _some(secrets, random)))


def _compromise(fleet: Fleet, agent: str, random: Random, probes: int) -> Iterator[Asked]:
    """Let an agent that is not itself any more try everything, also after it was cut off."""
    rights = [right for right in fleet.rights if right.principal == agent and not right.shift]
    for _ in range(max(probes, 20)):
        minute = random.randrange(COMPROMISE_BEGINS, COMPROMISE_ENDS + 60)
        if random.random() < 1 / 2:
            yield Asked(minute, _use(random.choice(rights), random))
        else:
            secrets = f"secret:{random.choice(fleet.teams).name}/**"
            yield Asked(minute, AuthorizeRequest(agent, "read", _some(secrets, random)))


def _worth_explaining(team: Team) -> Iterator[Asked]:
    name, area, other = team.name, team.areas[0], team.areas[1]

    def ask(minute: int, who: str, action: str, resource: str, title: str) -> Asked:
        request = AuthorizeRequest(f"agent:{name}-{who}", action, resource, explain=True)
        return Asked(minute, request, title)

    yield ask(
        9 * 60 + 30,
        f"{area}-reader",
        "read",
        f"doc:{name}/{area}/2026/03/minutes",
        "A sub-agent does what was delegated to it",
    )
    yield ask(
        9 * 60 + 40,
        f"{area}-analyst",
        "write",
        f"doc:{name}/{area}/2026/03/minutes",
        "An analyst tries to write what it may read",
    )
    yield ask(
        LATE.begins - 3 * 60,
        f"{other}-analyst",
        "invoke",
        f"tool:{name}/deploy/{other}",
        "A worker of the late shift deploys in the morning",
    )
    yield ask(
        EARLY.ends + 90,
        f"{area}-analyst",
        "invoke",
        f"tool:{name}/deploy/{area}",
        "A worker of the early shift deploys in the afternoon",
    )
    yield ask(
        COMPROMISE_ENDS + 50,
        f"{other}-drafter",
        "write",
        f"doc:{name}/{other}/drafts/week-07",
        "A sub-agent of the compromised agent goes on working",
    )
    yield ask(
        RUN_ENDS + 60,
        "translator",
        "read",
        f"doc:{name}/{area}/glossary/terms",
        "A translator goes on after its run has ended",
    )


def _deeds(team: Team, compromised: str) -> Iterator[Deed]:
    name, area = team.name, team.areas[0]
    analyst, reader = f"agent:{name}-{area}-analyst", f"agent:{name}-{area}-reader"
    for guest in team.guests:
        yield TakeBack(SHARE_TAKEN_BACK, f"{guest}/share", "shared with the wrong person")
    operator, secrets = _on_call(team)
    yield Lend(
        INCIDENT_BEGINS, INCIDENT_ENDS, operator, "read", secrets, "on call: disputes are stuck"
    )
    for actions, resource, depth, why in (
        ("write", f"doc:{name}/{area}/2026/**", 0, "to write what it may only read"),
        ("read", f"doc:{name}/**", 0, "to read more than its area"),
        ("read", f"doc:{name}/{area}/2026/**", 1, "to pass it on once more"),
    ):
        yield PassOn(12 * 60 + 30, f"{analyst}/0", reader, actions, resource, depth, why)
    yield CutOff(COMPROMISE_ENDS, compromised, "reads secrets of other teams: credential stolen")
    yield EndRun(RUN_ENDS, team.run, "the translation run is complete")


def _on_call(team: Team) -> tuple[str, str]:
    area = team.areas[2]
    return f"agent:{team.name}-{area}-operator", f"secret:{team.name}/{area}/**"


def _use(right: Right, random: Random) -> AuthorizeRequest:
    action = random.choice(right.actions.split())
    resource = _some(right.resource, random)
    return AuthorizeRequest(right.principal, action, resource, session_id=right.session)


def _some(pattern: str, random: Random) -> str:
    """Return a resource that a pattern covers."""
    kind, _, path = pattern.partition(":")
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "**":
            segments += (_word(random) for _ in range(random.randint(1, 2)))
        else:
            segments.append(_word(random) if segment == "*" else segment)
    return f"{kind}:{'/'.join(segments)}"


def _word(random: Random) -> str:
    return random.choice(_WORDS.split())
