"""What is checked of the models, and what must come of it.

The base must be clean. A mutant is the base with a safeguard removed: the checker must find how the
promise breaks, or the safeguard is not modelled; a few are redundant alone, and that is checked as
well. A witness is the assertion that some situation never arises, and must be found to be wrong,
or the model is clean because nothing happens in it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class Outcome(Enum):
    """What the checker says of a configuration."""

    CLEAN = "clean"
    """Every reachable state was looked at, and no assertion fails."""
    FOUND = "found"
    """An assertion fails."""
    INCOMPLETE = "incomplete"
    """Memory, time or the depth of the search was not enough."""
    BROKEN = "broken"
    """The model does not compile, deadlocks or otherwise is not what was meant."""


class Check(NamedTuple):
    """One configuration of a model and what must come of it.

    Attributes:
        name: what it is, for people.
        model: the file.
        switches: the preprocessor's, separated by spaces, without -D.
        expected: what must come of it.
        is_quick: it belongs to the selection for CI.
    """

    name: str
    model: str
    switches: str
    expected: Outcome
    is_quick: bool = False


def _clean(name: str, switches: str, *, model: str = "revocation", quick: bool = False) -> Check:
    return Check(name, f"{model}.pml", switches, Outcome.CLEAN, quick)


def _found(name: str, switches: str, *, model: str = "revocation", quick: bool = False) -> Check:
    return Check(name, f"{model}.pml", switches, Outcome.FOUND, quick)


BASE: Final = (
    _clean("one replica", "NREP=1", quick=True),
    _clean("one replica, the parent's holder", "NREP=1 CHECKP"),
    _clean("one replica, entries with stamps", "NREP=1 STAMPS"),
    _clean("one replica, both mutations wait in one process", "NREP=1 ONE_WATCHER"),
    _clean("one replica, as in the code", "NREP=1 STAMPS ONE_WATCHER IN_FLIGHT"),
    _clean("one replica, crash and restart", "NREP=1 MAXCRASH=1 MAXRESTART=1"),
    _clean(
        "one replica, crash and restart, the parent's holder",
        "NREP=1 MAXCRASH=1 MAXRESTART=1 CHECKP",
    ),
    _clean(
        "one replica, renewals and waiting as in the code, crash",
        "NREP=1 ONE_WATCHER RENEW_ASYNC MAXCRASH=1",
    ),
    _clean("one replica, a longer lease", "NREP=1 HOLDMAX=3"),
    _clean("two replicas, one mutation", "NREP=2 ONE_MUT"),
    _clean("failover", "", model="failover", quick=True),
    _clean("near cache", "", model="nearcache"),
    _clean("near cache, a longer sub-lease", "HOLDMAX=3 SUB=2", model="nearcache"),
)

MUTANTS: Final = (
    _found("no waiting", "NREP=1 WAIT_NONE", quick=True),
    _found("no lease check", "NREP=1 NO_LEASE_CHECK", quick=True),
    _found("look-up before the lease check", "NREP=1 LOOKUP_FIRST", quick=True),
    _found("lease from the answer, not from the sending", "NREP=1 LEASE_FROM_RECV", quick=True),
    _found("no margin between lease held and waited", "NREP=1 NO_MARGIN"),
    _found("no eviction", "NREP=1 NO_EVICT"),
    _found("acknowledged before evicted", "NREP=1 ACK_FIRST", quick=True),
    _found("no discarding of fills", "NREP=1 NO_DISCARD", quick=True),
    _found("no discarding of fills, as in the code", "NREP=1 STAMPS IN_FLIGHT NO_DISCARD"),
    _found("fills from a standby that lags", "NREP=1 IN_FLIGHT FILL_STALE"),
    _clean("fills from a standby, no eviction forgotten", "NREP=1 FILL_STALE"),
    _found("discarding not atomic with storing", "NREP=1 FILL_NONATOMIC"),
    _found("revision read after the capabilities", "NREP=1 FILL_R_AFTER"),
    _found("revision read after the capabilities, with stamps", "NREP=1 STAMPS FILL_R_AFTER"),
    _found("a request joins any fill", "NREP=1 JOIN_RAW", quick=True),
    _found("no clearing at registration", "NREP=1 NO_CLEAR"),
    _found("no floor at registration", "NREP=1 NO_FLOOR"),
    _clean("no catch-up before the lease", "NREP=1 NO_CATCHUP"),
    _clean("no fencing", "NREP=1 NO_FENCE"),
    _found("no catch-up and no fencing", "NREP=1 NO_CATCHUP NO_FENCE", quick=True),
    _clean("renewal inserts a missing entry", "NREP=1 UPSERT"),
    _found("no catch-up, and renewal inserts", "NREP=1 NO_CATCHUP UPSERT"),
    _found("register read before the commit", "NREP=1 WAITSET_BEFORE"),
    _found("a repeated revocation does not wait", "NREP=1 RETRY_NOWAIT"),
    _found("a grant does not wait", "NREP=1 GRANT_NOWAIT"),
    _found("no mutation lock", "NREP=1 NO_LOCK"),
    _found("no mutation lock, the parent's holder", "NREP=1 NO_LOCK CHECKP"),
    _found("no mutation lock, gaps alone", "NREP=1 NO_LOCK CHECKP NO_ORPHAN_ASSERT"),
    _found("lock released before the commit is visible", "NREP=1 UNLOCK_EARLY"),
    _found("REPEATABLE READ", "NREP=1 RR_SNAPSHOT"),
    _found("an incarnation used twice", "NREP=2 ID_REUSE ONE_MUT"),
    _found("silence timed on one watcher without a margin", "NREP=1 ONE_WATCHER NO_MARGIN"),
    _clean("lease by the database's clock", "NREP=1 DBCLOCK"),
    _found("lease by the database's clock, which steps", "NREP=1 DBCLOCK CLOCKJUMP"),
    _found("registration commits asynchronously", "NREP=1 REG_ASYNC MAXCRASH=1"),
    _clean("renewal commits asynchronously", "NREP=1 RENEW_ASYNC MAXCRASH=1"),
    _found(
        "the same, and observations outlive their session",
        "NREP=1 RENEW_ASYNC MAXCRASH=1 NO_SESSION_RESTART",
    ),
    _clean("observations outlive their session", "NREP=1 MAXCRASH=1 NO_SESSION_RESTART"),
    _found("no order between replicas is promised", "NREP=2 FULL ONE_MUT ATOMIC"),
    _found("failover: renewals do not wait for the standby", "RENEW_LOCAL", model="failover"),
    _found("failover: a cancelled wait counts", "CANCEL_IS_OK", model="failover"),
    _found("failover: reads without a lease", "DIRECT_OLD", model="failover", quick=True),
    _found("near cache: sub-lease from the receipt", "SUB_FROM_RECV", model="nearcache"),
    # With a sub-lease of one tick the rule says nothing.
    _found("near cache: no nesting", "HOLDMAX=3 SUB=2 NO_NEST", model="nearcache"),
    _found("near cache: acknowledged before the client", "ACK_NOHOLD", model="nearcache"),
    _found("near cache: entries out of order", "UNORDERED", model="nearcache"),
    _found("near cache: sub-leases beside the stream", "GRANT_ASIDE", model="nearcache"),
    _found("near cache: any keep-alive is answered", "NO_MATCH", model="nearcache"),
    _found("near cache: no reset", "NO_RESET", model="nearcache"),
)

_SITUATIONS: Final = (
    ("an answer of ALLOW from memory", Outcome.FOUND),
    ("the same after the revocation committed, before it returned", Outcome.FOUND),
    ("an answer of DENY from memory after the revocation returned", Outcome.FOUND),
    ("the same, where acknowledgements were enough", Outcome.FOUND),
    ("the same, after a fencing and another registration", Outcome.FOUND),
    ("a fill that is discarded", Outcome.FOUND),
    ("a delegation under a revoked parent", Outcome.FOUND),
    ("a revocation of what is revoked", Outcome.FOUND),
    ("a delegation that returns after the parent's revocation", Outcome.FOUND),
    ("a revocation that returns before a replica with a lease applied it", Outcome.CLEAN),
)

WITNESSES: Final = tuple(
    Check(f"witness: {situation}", "revocation.pml", f"NREP=1 WITNESS={number}", expected)
    for number, (situation, expected) in enumerate(_SITUATIONS, start=1)
)

CHECKS: Final = BASE + MUTANTS + WITNESSES
