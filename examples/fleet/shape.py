"""The shape of the fleet: who there is, what each holds, and who delegated it to whom.

Nothing random and nothing of the API: the same number of teams is always the same fleet.

    lead --grants--> orchestrator --> worker --> sub-agent      three delegations deep
    people and services hold grants of their own
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

TEAMS: Final = {
    "payments": ("refunds", "settlements", "disputes", "ledger"),
    "support": ("triage", "escalations", "macros", "callbacks"),
    "logistics": ("routing", "carriers", "returns", "warehouse"),
    "catalog": ("products", "pricing", "media", "taxonomy"),
    "search": ("ranking", "indexing", "synonyms", "crawling"),
    "identity": ("accounts", "consent", "fraud", "recovery"),
    "insights": ("dashboards", "cohorts", "forecasts", "experiments"),
    "growth": ("campaigns", "newsletters", "referrals", "partners"),
    "mobile": ("android", "ios", "releases", "crashes"),
    "platform": ("clusters", "builds", "networks", "observability"),
    "legal": ("contracts", "privacy", "litigation", "licences"),
    "finance": ("invoices", "budgets", "payroll", "tax"),
}
"""Each team and its four areas of work."""

_PEOPLE: Final = (
    "amara bogdan chiara dmitri elif farid greta hana ines jonas kwame leila mateo nadia olu priya "
    "quentin rosa sven tariq uma viktor wanja ximena yusuf zofia anouk bram celia darko emeka "
    "freya goran hilde imran juno kamal lotte milos noor oskar petra rafael saskia tomas ursel "
    "vera wim"
)
_PEOPLE_A_TEAM: Final = 4

# What a team's lead is granted: all of the team's own, to be passed on three times.
_ROOTS: Final = (
    ("doc:{team}/**", "read write comment share"),
    ("repo:{team}/**", "read write review merge"),
    ("ticket:{team}/**", "read write close"),
    ("db:{team}/**", "select insert update"),
    ("tool:{team}/**", "invoke"),
    ("mail:{team}/**", "read send"),
    ("queue:{team}/**", "publish consume"),
    ("secret:{team}/**", "read"),
)
_NOT_FOR_AGENTS: Final = ("secret", "share")

_ANALYST: Final = (
    ("doc:{team}/{area}/**", "read comment"),
    ("doc:{team}/shared/*", "read"),
    ("doc:{team}/*/summary", "read"),
    ("repo:{team}/{area}/**", "read"),
    ("ticket:{team}/{area}/*", "read write"),
    ("db:{team}/{area}/**", "select"),
    ("tool:{team}/query/*", "invoke"),
    ("tool:{team}/browser", "invoke"),
    ("mail:{team}/{area}/inbox/**", "read"),
    ("queue:{team}/{area}", "consume"),
)
_OPERATOR: Final = (
    ("doc:{team}/{area}/**", "read write"),
    ("doc:{team}/runbooks/*", "read"),
    ("repo:{team}/{area}/**", "read write review"),
    ("ticket:{team}/{area}/*", "read write close"),
    ("db:{team}/{area}/**", "select insert"),
    ("tool:{team}/shell", "invoke"),
    ("tool:{team}/editor/*", "invoke"),
    ("mail:{team}/{area}/**", "read send"),
    ("queue:{team}/{area}", "publish consume"),
    ("queue:{team}/*/dead-letters", "consume"),
)
# Held during the shift only.
_LEASES: Final = (
    ("tool:{team}/deploy/{area}", "invoke"),
    ("db:{team}/{area}/**", "update"),
)
_PERSON: Final = (
    ("doc:{team}/**", "read comment"),
    ("doc:{team}/{area}/**", "read write share"),
    ("doc:{next}/shared/*", "read"),
    ("repo:{team}/**", "read review"),
    ("repo:{team}/{area}/**", "write merge"),
    ("ticket:{team}/**", "read write close"),
    ("db:{team}/{area}/**", "select"),
    ("tool:{team}/dashboard/*", "invoke"),
    ("mail:{team}/{area}/**", "read send"),
    ("queue:{team}/**", "consume"),
)
_SERVICE: Final = (
    ("db:{team}/{area}/**", "select insert update"),
    ("queue:{team}/{area}", "publish consume"),
    ("doc:{team}/{area}/published/*", "read"),
)


@dataclass(frozen=True, slots=True)
class Shift:
    """A part of the day: from one minute of it to another."""

    name: str
    begins: int
    ends: int


EARLY: Final = Shift("early", 6 * 60, 14 * 60)
LATE: Final = Shift("late", 14 * 60, 22 * 60)


@dataclass(frozen=True, slots=True)
class Right:
    """A capability that is to be granted.

    Attributes:
        key: names it among the fleet's rights.
        principal: who is to hold it.
        actions: what for, separated by spaces.
        resource: on which resources, a resource pattern.
        parent: the key of the right from which it is delegated, or empty.
        level: how many delegations are above it.
        depth: how many further times it may be delegated.
        shift: the part of the day in which it is valid; None: always.
        session: the session with which it ends, or empty.
    """

    key: str
    principal: str
    actions: str
    resource: str
    parent: str
    level: int
    depth: int = 0
    shift: Shift | None = None
    session: str = ""


@dataclass(frozen=True, slots=True)
class Team:
    """Who belongs to a team."""

    name: str
    areas: tuple[str, ...]
    people: tuple[str, ...]
    orchestrators: tuple[str, ...]
    workers: tuple[str, ...]
    sub_agents: tuple[str, ...]
    services: tuple[str, ...]
    guests: tuple[str, ...]

    @property
    def lead(self) -> str:
        """Who is granted what the team has."""
        return self.people[0]

    @property
    def principals(self) -> tuple[str, ...]:
        """Everybody."""
        agents = self.orchestrators + self.workers + self.sub_agents
        return self.people + agents + self.services + self.guests

    @property
    def run(self) -> str:
        """The session of the team's translators and checkers."""
        return f"run-{self.name}-translation"


@dataclass(frozen=True, slots=True)
class Fleet:
    """All teams, and all rights in an order in which they can be granted."""

    teams: tuple[Team, ...]
    rights: tuple[Right, ...]

    @property
    def principals(self) -> tuple[str, ...]:
        """Everybody."""
        return tuple(principal for team in self.teams for principal in team.principals)


def fleet(teams: int) -> Fleet:
    """Return the fleet of the first so many teams."""
    names = list(TEAMS)[:teams]
    made = tuple(_team(number, name) for number, name in enumerate(names))
    rights: list[Right] = []
    for number, team in enumerate(made):
        neighbour = names[(number + 1) % len(names)]
        rights += _rights(team, neighbour)
    # By level, so that a parent comes before its children.
    return Fleet(made, tuple(sorted(rights, key=lambda right: right.level)))


def _team(number: int, name: str) -> Team:
    areas = TEAMS[name]
    first = number * _PEOPLE_A_TEAM
    return Team(
        name,
        areas,
        people=tuple(
            f"user:{person}" for person in _PEOPLE.split()[first : first + _PEOPLE_A_TEAM]
        ),
        orchestrators=(f"agent:{name}-planner", f"agent:{name}-dispatcher"),
        workers=tuple(
            f"agent:{name}-{area}-{role}" for area in areas for role in ("analyst", "operator")
        ),
        sub_agents=(
            *(f"agent:{name}-{area}-{role}" for area in areas for role in ("reader", "drafter")),
            f"agent:{name}-translator",
            f"agent:{name}-checker",
        ),
        services=(f"service:{name}-api", f"service:{name}-nightly"),
        guests=("user:contractor-lindqvist",) if number == 0 else (),
    )


def _rights(team: Team, neighbour: str) -> Iterator[Right]:
    yield from _roots(team)
    yield from _orchestrators(team)
    for number, area in enumerate(team.areas):
        shift = EARLY if number % 2 == 0 else LATE
        yield from _worker(team, area, "analyst", _ANALYST, shift)
        yield from _worker(team, area, "operator", _OPERATOR, shift)
        yield from _reader(team, area)
        yield from _drafter(team, area)
    yield from _translators(team)
    for guest in team.guests:
        folder = f"doc:{team.name}/{team.areas[-1]}/**"
        yield Right(f"{guest}/share", guest, "read", folder, f"{team.name}/doc", 1)
    for number, person in enumerate(team.people[1:]):
        names = {"team": team.name, "area": team.areas[number], "next": neighbour}
        yield from _granted(person, _PERSON, names)
    for service in team.services:
        for area in team.areas:
            yield from _granted(service, _SERVICE, {"team": team.name, "area": area})


def _roots(team: Team) -> Iterator[Right]:
    for pattern, actions in _ROOTS:
        kind = pattern.partition(":")[0]
        resource = pattern.format(team=team.name)
        yield Right(f"{team.name}/{kind}", team.lead, actions, resource, "", 0, depth=3)


def _orchestrators(team: Team) -> Iterator[Right]:
    for pattern, actions in _ROOTS:
        kind = pattern.partition(":")[0]
        if kind in _NOT_FOR_AGENTS:
            continue
        passed_on = " ".join(a for a in actions.split() if a not in _NOT_FOR_AGENTS)
        for orchestrator in team.orchestrators:
            yield Right(
                f"{orchestrator}/{kind}",
                orchestrator,
                passed_on,
                pattern.format(team=team.name),
                f"{team.name}/{kind}",
                1,
                depth=2,
            )


def _worker(
    team: Team, area: str, role: str, held: tuple[tuple[str, str], ...], shift: Shift
) -> Iterator[Right]:
    worker = f"agent:{team.name}-{area}-{role}"
    orchestrator = team.orchestrators[role == "operator"]
    for number, (pattern, actions) in enumerate(held + _LEASES):
        kind = pattern.partition(":")[0]
        yield Right(
            f"{worker}/{number}",
            worker,
            actions,
            pattern.format(team=team.name, area=area),
            f"{orchestrator}/{kind}",
            2,
            depth=1,
            shift=shift if number >= len(held) else None,
        )


def _reader(team: Team, area: str) -> Iterator[Right]:
    reader, worker = f"agent:{team.name}-{area}-reader", f"agent:{team.name}-{area}-analyst"
    for month in range(1, 13):
        resource = f"doc:{team.name}/{area}/2026/{month:02}/**"
        yield Right(f"{reader}/{month}", reader, "read", resource, f"{worker}/0", 3)
    tool = f"tool:{team.name}/query/read-only"
    yield Right(f"{reader}/tool", reader, "invoke", tool, f"{worker}/6", 3)
    tickets = f"ticket:{team.name}/{area}/*"
    yield Right(f"{reader}/tickets", reader, "read", tickets, f"{worker}/4", 3)


def _drafter(team: Team, area: str) -> Iterator[Right]:
    drafter, worker = f"agent:{team.name}-{area}-drafter", f"agent:{team.name}-{area}-operator"
    for week in range(1, 13):
        resource = f"doc:{team.name}/{area}/drafts/week-{week:02}"
        yield Right(f"{drafter}/{week}", drafter, "read write", resource, f"{worker}/0", 3)
    tool = f"tool:{team.name}/editor/markdown"
    yield Right(f"{drafter}/tool", drafter, "invoke", tool, f"{worker}/6", 3)
    outbox = f"mail:{team.name}/{area}/outbox"
    yield Right(f"{drafter}/mail", drafter, "send", outbox, f"{worker}/7", 3)


def _translators(team: Team) -> Iterator[Right]:
    for role in ("translator", "checker"):
        agent = f"agent:{team.name}-{role}"
        for area in team.areas:
            parent = f"agent:{team.name}-{area}-analyst/0"
            for folder in ("published", "glossary", "translations"):
                resource = f"doc:{team.name}/{area}/{folder}/**"
                yield Right(
                    f"{agent}/{area}/{folder}",
                    agent,
                    "read comment",
                    resource,
                    parent,
                    3,
                    session=team.run,
                )


def _granted(
    principal: str, held: tuple[tuple[str, str], ...], names: dict[str, str]
) -> Iterator[Right]:
    for number, (pattern, actions) in enumerate(held):
        key = f"{principal}/{names['area']}/{number}"
        yield Right(key, principal, actions, pattern.format_map(names), "", 0)
