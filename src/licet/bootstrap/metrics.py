"""What is measured of a serving process; read when it is scraped."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from licet.app.authorize import Authorize
from licet.bootstrap.audit import AuditTrail
from licet.domain.capability_set import CapabilitySet
from licet.domain.names import Principal
from licet.replica.capability_sets import CachedCapabilitySets
from licet.replica.clock import DatabaseClock
from licet.replica.coherence import Replica
from licet.replica.feed import MemoryFeed
from licet.replica.lease import Lease
from licet.replica.limits import SlicedLimits
from licet.replica.policies import HeldPolicySet
from licet.replica.reading_ahead import ReadingAhead
from licet.replica.retention import Retention
from licet.server.authority import ADDRESS, CALLER
from licet.server.lifecycle import Server
from licet.server.strangers import FAILURES
from licet.server.tls import expires_at
from licet.telemetry import metrics
from licet.writer.acknowledgements import Acknowledgements
from licet.writer.approvals import ApprovalWriter


class Watched(NamedTuple):
    """The parts that metrics are read from."""

    sets: CachedCapabilitySets
    ahead: ReadingAhead[Principal, CapabilitySet]
    lease: Lease
    replica: Replica
    clock: DatabaseClock
    trail: AuditTrail
    acknowledgements: Acknowledgements
    feed: MemoryFeed
    retention: Retention
    server: Server
    newest: Callable[[], int]
    authorize: Authorize
    policies: HeldPolicySet
    limits: SlicedLimits
    approvals: ApprovalWriter


def sources_of(of: Watched) -> metrics.Sources:
    """Return what is measured of a serving process, and of the steward in it if there is one."""
    sets, trail, watchers, tls = of.sets, of.trail, of.server.watchers, of.server.tls
    steward = metrics.Sources({}, {}, {})
    if trail.stewardship is not None:
        steward = trail.stewardship.sources()
    return metrics.Sources(
        counters={**_counters(of), **steward.counters},
        gauges={
            "applied_revision": (
                "Revision up to which memory is current.",
                lambda: of.replica.applied,
            ),
            "revision_lag": (
                "Revisions that memory lacks.",
                lambda: max(of.newest() - of.replica.applied, 0),
            ),
            "lease_remaining_seconds": ("How long memory may be used.", of.lease.remaining),
            "capability_sets": ("Principals in memory.", lambda: len(sets)),
            "capability_sets_bytes": ("What they weigh, by estimate.", lambda: sets.bytes),
            "audit_events_pending": ("Audit events that wait to be stored.", lambda: trail.pending),
            "spool_bytes": ("What the spool takes.", lambda: trail.writer.taken),
            "spool_max_bytes": ("What it may take.", lambda: trail.writer.max_bytes),
            "policy_set_version": (
                "Version of the policies that memory has.",
                lambda: of.policies.version,
            ),
            "limit_buckets": (
                "Buckets of limits that memory has something of.",
                lambda: len(of.limits),
            ),
            "watchers": ("Clients that watch changes.", lambda: len(watchers)),
            "streams": ("Open streams of decisions.", lambda: len(of.server.streams)),
            **_under_way(of.server),
            "tls_certificate_expiry_timestamp_seconds": (
                "When the certificate expires; not a number without TLS.",
                lambda: expires_at(tls),
            ),
            "feed_changes": ("Changes in memory, for watches.", lambda: len(of.feed)),
            **steward.gauges,
        },
        histograms={
            "mutation_wait_seconds": (
                "How long mutations waited for the replicas.",
                of.acknowledgements.waits,
            ),
        },
    )


def _sets(of: Watched) -> dict[str, tuple[str, Callable[[], float]]]:
    sets, log = of.sets, of.trail.log
    hits = metrics.NeverLess(lambda: log.decisions - sets.misses)
    return {
        "set_hits": ("Decisions answered from memory.", hits),
        "set_misses": ("Principals that memory could not answer for.", lambda: sets.misses),
        "set_reads": ("Capability sets read because memory had none.", lambda: sets.reads),
        "set_reads_joined": ("Requests that waited for another's read.", lambda: sets.joined),
        "set_reads_apart": (
            "Requests that nothing could be read ahead for.",
            lambda: of.ahead.turned_away,
        ),
        "set_evictions": ("Capability sets that made room for others.", lambda: sets.evictions),
    }


def _counters(of: Watched) -> dict[str, tuple[str, Callable[[], float]]]:
    trail, watchers, tls = of.trail, of.server.watchers, of.server.tls
    spans = of.server.spans
    return {
        "decisions": ("Decisions taken.", lambda: trail.log.decisions),
        **_sets(of),
        "replicas_fenced": ("Replicas this one shut out.", lambda: of.acknowledgements.fenced),
        "watchers_dropped": ("Watches ended for being slow.", lambda: watchers.dropped),
        "history_trimmed": ("Changes and keys trimmed.", lambda: of.retention.trimmed),
        "policy_denials": ("ALLOWs that a policy denied.", lambda: of.authorize.policy_denials),
        "policy_errors": (
            "Of these, those because a policy could not be told.",
            lambda: of.authorize.policy_errors,
        ),
        "condition_denials": (
            "Decisions denied for a condition of a capability.",
            lambda: of.authorize.condition_denials,
        ),
        "condition_errors": (
            "Of these, those because a condition could not be told.",
            lambda: of.authorize.condition_errors,
        ),
        **_buckets(of.limits),
        "approvals_requested": (
            "Approvals asked for by denials.",
            lambda: of.approvals.requested,
        ),
        "approvals_not_requested": (
            "Denials that need an approval and could ask for none.",
            lambda: of.approvals.not_requested,
        ),
        "approvals_used": ("Approvals used up by decisions.", lambda: of.approvals.used),
        "calls_refused": ("Calls not let in.", lambda: of.server.authority.failures.total),
        **_limits(of.server),
        "decisions_refused": (
            "Decisions that could not be recorded, and did not leave.",
            lambda: trail.log.refused,
        ),
        "audit_events_lost": (
            "Audit events lost with a damaged spool, or not storable.",
            lambda: trail.lost,
        ),
        "database_clock_steps": ("Steps of the database's clock.", lambda: of.clock.steps),
        "tls_reload_failures": (
            "New certificates, keys and tables of callers that could not be used.",
            lambda: 0 if tls is None else tls.reload_failures,
        ),
        "spans_sent": ("Spans sent.", lambda: 0 if spans is None else spans.sent),
        "spans_lost": (
            "Spans of sampled calls that were not.",
            lambda: 0 if spans is None else spans.lost,
        ),
    }


def _buckets(limits: SlicedLimits) -> dict[str, tuple[str, Callable[[], float]]]:
    return {
        "limit_tokens_taken": ("Tokens taken by decisions.", lambda: limits.taken),
        "limit_refusals": ("Requests that found a bucket empty.", lambda: limits.refused),
        "limit_waits": ("Calls that waited for the database to grant.", lambda: limits.waits),
        "limit_exchanges": ("Statements about buckets.", lambda: limits.exchanges),
        "limit_exchange_failures": ("Of them, those that failed.", lambda: limits.failures),
        "limit_tokens_granted": ("Tokens granted to this process.", lambda: limits.granted),
        "limit_tokens_returned": ("Of them, given back unused.", lambda: limits.given_back),
        "limit_tokens_lost": (
            "Of them, lost unused: without the database for too long.",
            lambda: limits.lost,
        ),
    }


def _under_way(server: Server) -> dict[str, tuple[str, Callable[[], float]]]:
    return {
        "decisions_under_way": (
            "Calls for decisions that run or wait.",
            lambda: server.decisions.under_way,
        ),
        "reads_under_way": ("Reads that run or wait.", lambda: server.reads.under_way),
        "changes_under_way": ("Changes that are being made.", lambda: len(server.mutations)),
        "strangers_under_way": (
            "Calls without a credential known to be valid that run or wait.",
            lambda: server.authority.strangers.lane.under_way,
        ),
    }


def _limits(server: Server) -> dict[str, tuple[str, Callable[[], float]]]:
    limited = server.authority.limited

    def streams() -> int:
        places = (server.watchers, server.exports, server.replays)
        parts = (server.streams, *places, server.shares)
        return sum(int(part.refused) for part in parts)

    return {
        "limited_caller_calls": ("Beyond their caller's rate.", lambda: int(limited[CALLER])),
        "limited_address_calls": ("Beyond their address's rate.", lambda: int(limited[ADDRESS])),
        "limited_failures_calls": (
            "Not verified: too many from their address have failed.",
            lambda: int(limited[FAILURES]),
        ),
        "shed_decisions": ("Decisions refused: too many.", lambda: int(server.decisions.shed)),
        "shed_reads": ("Reads refused: too many.", lambda: int(server.reads.shed)),
        "shed_changes": ("Changes refused: too many.", lambda: int(server.mutations.refused)),
        "shed_streams": ("Streams, watches, exports and replays refused: too many.", streams),
    }
