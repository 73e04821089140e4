"""The way of an event from its decision into the database, and under a signed checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from time import monotonic, perf_counter
from typing import Final, LiteralString
from uuid import UUID

from benchmarks.figures import BenchmarkError, Bound, Figure, Target, spread, tail
from benchmarks.report import Progress
from benchmarks.seed import ACTIONS
from benchmarks.spool import bodies, spool
from benchmarks.stand import Site, Stand, opened_database, patience
from licet.app.ports import Grant
from licet.app.prove import ProveAudit
from licet.domain.audit_batch import MacKeys
from licet.domain.canonical_json import EMPTY, canonical
from licet.domain.capability import Terms
from licet.domain.errors import NotFoundError, NotSealedError
from licet.domain.names import Caller, Principal
from licet.domain.pattern import ResourcePattern
from licet.replica.clock import SystemClock
from licet.spool.shipper import Retention, Shipper
from licet.spool.writer import Durability, SpoolWriter
from licet.storage.audit_shipping import PostgresEventStore
from licet.storage.mutations import PostgresMutations
from licet.storage.pool import Database
from licet.storage.proofs import PostgresSealedLogs
from licet.v1 import authorization_pb2 as pb
from licet.writer.ids import TimeOrderedIds, audit_writer_id

SECTION: Final = "Storing audit events"
SHIP_TARGET: Final = Target(Bound.AT_LEAST, 20_000.0)
BATCH_TARGET: Final = Target(Bound.AT_MOST, 50.0)
GRANT_MILLISECONDS: Final = 5.0
BESIDE_COMMIT: Final = 2.0
"""How many milliseconds longer than a commit of one row it may take, where those are long."""
WHOLE_TARGET: Final = Target(Bound.AT_MOST, 3.0)

BATCH: Final = 100
WHOLE: Final = 10_000
_SHIPPED: Final = 20_000
"""How many events wait in the spool when they are shipped."""
_EACH: Final = 20
"""How many batches, grants and commits there are in a round."""
_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.01
_RETENTION: Final = Retention(0.0, 1 << 30)
_TABLE: Final[LiteralString] = "CREATE TABLE IF NOT EXISTS bare_commits (n integer)"
_COMMIT: Final[LiteralString] = "INSERT INTO bare_commits VALUES (1)"


def measure(site: Site, keys: MacKeys, rounds: int, progress: Progress) -> list[Figure]:
    """Ship spools with many events and with one batch, and grant, beside commits of one row."""
    site.admin.execute(_TABLE)
    decided = bodies(_SHIPPED, SystemClock().now())
    rates: list[float] = []
    batches: list[float] = []
    grants: list[float] = []
    commits: list[float] = []
    with opened_database(site.url) as database, _shipping(site, database, keys) as (writer, ship):
        for number in range(1, rounds + 1):
            progress.step(f"storing audit events, round {number} of {rounds}")
            for first in range(0, _SHIPPED, BATCH):
                writer.append_all(decided[first : first + BATCH])
            writer.wait(writer.appended, _SECONDS)
            rates.append(_SHIPPED / _taken(ship))
            for _ in range(_EACH):
                batches.append(1000 * _taken(lambda: _store(writer, ship, decided[:BATCH])))
                grants.append(1000 * _taken(_grant(database)))
                commits.append(1000 * _taken(lambda: site.admin.execute(_COMMIT)))
    commit = tail(commits)
    # A machine that others use as well may take longer for any commit.
    grant_target = Target(Bound.AT_MOST, max(GRANT_MILLISECONDS, commit.middle + BESIDE_COMMIT))
    p95 = "p95, p50 and longest"
    return [
        Figure(SECTION, "from the spool", spread(rates), "events/s", SHIP_TARGET),
        Figure(SECTION, f"{BATCH} decisions at once: {p95}", tail(batches), "ms", BATCH_TARGET),
        Figure(SECTION, f"a grant with its event: {p95}", tail(grants), "ms", grant_target),
        Figure(SECTION, f"a commit of one row: {p95}", commit, "ms"),
    ]


def measure_whole(stand: Stand, rounds: int, progress: Progress) -> Figure:
    """Decide WHOLE requests over gRPC, in batches, and wait until the last one can be proven."""
    principal = "agent:end-to-end"
    stand.stub.Grant(
        pb.GrantRequest(principal=principal, actions=ACTIONS, resource="doc:reports/*/q3")
    )
    request = pb.BatchAuthorizeRequest(
        requests=[
            pb.AuthorizeRequest(principal=principal, action="read", resource=f"doc:reports/{i}/q3")
            for i in range(BATCH)
        ]
    )
    taken = []
    with opened_database(stand.url) as database:
        prove = ProveAudit(PostgresSealedLogs(database))
        for number in range(1, rounds + 1):
            progress.step(f"from a decision to a checkpoint, {number} of {rounds}")
            begin = perf_counter()
            answers = [stand.stub.BatchAuthorize(request) for _ in range(WHOLE // BATCH)]
            # Those of a writer are stored and sealed in their order.
            _await_signed(prove, UUID(answers[-1].responses[-1].decision_id))
            taken.append(perf_counter() - begin)
    name = f"{WHOLE:,} decisions in batches of {BATCH}: decided, stored, sealed and signed"
    return Figure(SECTION, name, spread(taken), "s", WHOLE_TARGET)


@contextmanager
def _shipping(
    site: Site, database: Database, keys: MacKeys
) -> Iterator[tuple[SpoolWriter, Callable[[], None]]]:
    """Provide a writer, and what stores all that it has appended."""
    store = PostgresEventStore(database)
    writer_id = audit_writer_id(SystemClock())
    store.register(writer_id, patience(_SECONDS))
    with spool(site.state, Durability.GROUP, writer_id) as writer:
        shipper = Shipper(writer.folder, store, keys, _RETENTION, lambda: writer.appended)

        def ship() -> None:
            while shipper.step():
                pass

        try:
            yield writer, ship
        finally:
            shipper.close()


def _store(writer: SpoolWriter, ship: Callable[[], None], decided: Sequence[bytes]) -> None:
    writer.append_all(decided)
    writer.wait(writer.appended, _SECONDS)
    ship()


def _grant(database: Database) -> Callable[[], None]:
    ids = TimeOrderedIds(SystemClock())
    terms = Terms(
        principal=Principal("agent:granted"),
        actions=ACTIONS,
        resource=ResourcePattern("doc:reports/2026/granted"),
        not_before=None,
        expires_at=None,
        delegation_depth=0,
        session_id="",
        metadata=EMPTY,
    )
    request = Grant(
        request_id=ids.request_id(),
        digest=bytes(32),
        capability_id=ids.capability_id(),
        terms=terms,
        parent_id=None,
        actor=Caller("service:benchmark"),
        trace_id="",
        facts=canonical({"actions": list(ACTIONS)}),
    )
    mutations = PostgresMutations(database)

    def grant() -> None:
        (applied,) = mutations.apply([request], patience(_SECONDS))
        if applied.status != "done":
            raise BenchmarkError(f"a grant came out as {applied.status}")

    return grant


def _taken(do: Callable[[], object]) -> float:
    begin = perf_counter()
    do()
    return perf_counter() - begin


def _await_signed(prove: ProveAudit, event_id: UUID) -> None:
    end, pause = (
        monotonic() + _SECONDS,
        Event(),
    )  # never set: the log tells nobody when it is signed
    while monotonic() < end:
        try:
            prove.inclusion(event_id, patience(_SECONDS))
        except (NotFoundError, NotSealedError):
            pause.wait(_POLL_SECONDS)
        else:
            return
    raise BenchmarkError(f"event {event_id} was not signed")
