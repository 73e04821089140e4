"""The sections of a run: what each measures, with how much effort, and under which settings.

Each has a database of its own, so that it can be run alone and leaves nothing to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from benchmarks import (
    audit_log,
    concurrency,
    customs,
    flood,
    latency,
    matching,
    memory,
    misses,
    mutations,
    policies,
    policy_sets,
    protocol,
    reads_and_changes,
    revocation,
    seed,
    spool,
    stored,
    throughput,
    tls,
    transports,
    workers,
)
from benchmarks.figures import Found
from benchmarks.report import Progress
from benchmarks.seed import FEW, MANY
from benchmarks.server import Variant
from benchmarks.stand import Cores, preparing, standing
from benchmarks.throughput import Rounds

_FLEET: Final = seed.principals("fleet", 10)
_COLD: Final = seed.principals("cold", 200)
_SINGLE: Final = seed.principals("single", 200)
_THOUSAND: Final = seed.principals("thousand", 1)
_MANY: Final = seed.principals("many", 1)
_GROUPS: Final = {1: _SINGLE, FEW: _COLD, 1000: _THOUSAND, MANY: _MANY}
_SMALL: Final = dict.fromkeys(_FLEET, FEW)
_HELD: Final = _SMALL | {principal: size for size, group in _GROUPS.items() for principal in group}
_NO_SERVER: Final = "no server"
_ANONYMOUS: Final = f"`group`, no key, no policies, {customs.LEASE}"
_DATABASE: Final = "synchronous commits"


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        name: of this effort.
        sections: what is measured unless told otherwise.
        in_memory: how many rounds of what needs no server.
        calls: rounds of the comparison of kinds of calls.
        concurrency: rounds of calls by how many are under way.
        latency: rounds of offered loads.
        loads: which are offered, as parts of the peak load.
        transports: rounds of the comparison of transports.
        misses: rounds of hits with misses beside them.
        stored: rounds of the comparison of databases.
        sizes: how many capabilities they have.
        principals: rounds of the comparison of principals.
        policies: rounds of the comparison of built-in policy sets with none.
        flood: rounds of the comparison of callers with and without a flood.
        repetitions: of what one client does.
        workers: rounds of the comparison of two workers with one.
        protocol: rounds of the comparison with a server without the replica protocol.
        tls: rounds of the comparison of TLS with plain text.
        mutations: rounds of the comparison of many clients that mutate with one.
        revocations: how many rounds of revocations.
        audit: rounds of what is measured again and again beside an audit log.
        audit_sizes: events in it; the last one is sealed, proven, verified and read.
    """

    name: str
    sections: tuple[str, ...]
    in_memory: int
    calls: Rounds
    concurrency: Rounds
    latency: Rounds
    loads: tuple[float, ...]
    transports: Rounds
    misses: Rounds
    stored: Rounds
    sizes: tuple[int, ...]
    principals: Rounds
    policies: Rounds
    flood: Rounds
    repetitions: int
    workers: Rounds
    protocol: Rounds
    tls: Rounds
    mutations: Rounds
    revocations: int
    audit: Rounds
    audit_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a run.

    Attributes:
        about: what it measures, for people.
        settings: of its figures that do not say otherwise.
        measure: does it.
    """

    about: str
    settings: str
    measure: Callable[[Cores, Effort, Progress], Found]

    def found(self, cores: Cores, effort: Effort, progress: Progress) -> Found:
        """Measure, and say beside each figure under which settings."""
        figures, plots = self.measure(cores, effort, progress)
        return Found(
            [replace(each, settings=each.settings or self.settings) for each in figures],
            [replace(each, settings=each.settings or self.settings) for each in plots],
        )


def _in_memory(_cores: Cores, effort: Effort, progress: Progress) -> Found:
    rounds = effort.in_memory
    return Found(
        [
            *matching.measure(rounds, progress),
            *policies.measure(rounds, progress),
            *spool.measure(rounds, progress),
        ]
    )


def _calls(cores: Cores, effort: Effort, progress: Progress) -> Found:
    variants = Variant.LICET, Variant.UNSYNCED, Variant.STOCK
    with preparing(cores, _SMALL) as site, standing(site, *variants) as stands:
        measured = throughput.measure(throughput.Stands(*stands), _FLEET, effort.calls, progress)
        return Found(measured)


def _concurrency(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, _SMALL) as site:
        return concurrency.measure(site, _FLEET[0], effort.concurrency, progress)


def _latency(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, _SMALL) as site:
        return latency.measure(site, _FLEET[0], effort.loads, effort.latency, progress)


def _transports(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, _SMALL) as site:
        return Found(transports.measure(site, _FLEET[0], effort.transports, progress))


def _misses(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, _SMALL | dict.fromkeys(misses.COLD, FEW)) as site:
        return Found(misses.measure(site, _FLEET[0], effort.misses, progress))


def _stored(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, {}) as site:
        return stored.measure(site, effort.sizes, effort.stored, progress)


def _holdings(cores: Cores, effort: Effort, progress: Progress) -> Found:
    progress.step(f"filling a database of its own with {sum(_HELD.values()):,} capabilities")
    with preparing(cores, _HELD) as site, standing(site, Variant.LICET) as (stand,):
        few, many = _FLEET[0], _MANY[0]
        measured = throughput.measure_matching(stand, few, many, effort.principals, progress)
        return Found([*measured, *memory.measure(stand.url, _GROUPS, progress)])


def _reads(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, _HELD) as site, standing(site, Variant.LICET) as (stand,):
        times = effort.repetitions
        return Found(
            [
                reads_and_changes.measure_grants(stand, times, progress),
                *reads_and_changes.measure_listing(stand, _MANY[0], times, progress),
                *reads_and_changes.measure_misses(stand, _COLD, _MANY[0], progress),
            ]
        )


def _policies(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, _SMALL) as site, standing(site, Variant.LICET) as (stand,):
        return Found(policy_sets.measure(stand, _FLEET[0], effort.policies, progress))


def _flood(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, _SMALL) as site, standing(site, Variant.LICET) as (stand,):
        return Found(flood.measure(stand, _FLEET[0], effort.flood, progress))


def _workers(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, _SMALL) as site:
        return Found(workers.measure(site, _FLEET[0], effort.workers, progress))


def _protocol(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, _SMALL) as site:
        return Found(protocol.measure(site, _FLEET[0], effort.protocol, progress))


def _tls(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, _SMALL) as site:
        return Found(tls.measure(site, _FLEET[0], effort.tls, progress))


def _mutations(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, {}) as site:
        return Found(mutations.measure(site, effort.mutations, progress))


def _revocation(cores: Cores, effort: Effort, progress: Progress) -> Found:
    with preparing(cores, {}) as site:
        return revocation.measure(site, effort.revocations, progress)


def _audit(cores: Cores, effort: Effort, progress: Progress) -> Found:
    return audit_log.measure(cores, effort.audit_sizes, effort.audit, progress)


SECTIONS: Final[Mapping[str, Section]] = {
    "calls": Section("calls a second, against a no-op", customs.GROUP, _calls),
    "concurrency": Section("by how many calls are under way", customs.IN_USE, _concurrency),
    "latency": Section("percentiles at offered loads", customs.IN_USE, _latency),
    "transports": Section("a Unix socket, and mTLS", customs.NONE, _transports),
    "misses": Section("one call in ten a miss", customs.GROUP, _misses),
    "stored": Section("by the capabilities stored; memory", customs.GROUP, _stored),
    "holdings": Section("by what a principal holds", _ANONYMOUS, _holdings),
    "policies": Section("built-in policy sets beside none", _ANONYMOUS, _policies),
    "flood": Section("a key; beside credentials not valid", _ANONYMOUS, _flood),
    "workers": Section("two workers beside one", _ANONYMOUS, _workers),
    "protocol": Section("with and without the replica protocol", _ANONYMOUS, _protocol),
    "tls": Section("TLS beside plain text", _ANONYMOUS, _tls),
    "mutations": Section("many clients that grant", _ANONYMOUS, _mutations),
    "revocation": Section("from Revoke to the last denial", _ANONYMOUS, _revocation),
    "reads": Section("lists, misses and grants, one by one", _ANONYMOUS, _reads),
    "in-memory": Section("matching, policies, the spool", _NO_SERVER, _in_memory),
    "audit": Section("sealing, proofs, pages; by its size", _DATABASE, _audit),
}
"""In the order of a run, by name."""
