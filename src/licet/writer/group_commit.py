"""Group commit: the mutations of all callers in one statement, one transaction, one revision.

One thread takes whatever waits, up to a batch, while the transaction before it runs: alone a
mutation costs what it costs, under load many share one commit. A caller sleeps, or is called back,
until its mutation is settled or its time is over: it is told once. A mutation that was not sent
when its caller gave up is never sent. After a lost answer the same batch is sent again, with the
same request ids, until the last of its callers has given up: the database tells the first outcome
or makes it so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Final, Protocol, TypeAlias
from uuid import UUID

from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

from licet.app.ports import Applied, Deadline, Grant, Revoke
from licet.domain.errors import (
    ConflictError,
    DeadlineError,
    LicetError,
    OutcomeUnknownError,
    UnavailableError,
    UnconfirmedError,
)
from licet.writer.acknowledgements import Waiter
from licet.writer.expiries import Expiries

_log: Final = logging.getLogger(__name__)

BATCH: Final = 200
MUTATION_SECONDS: Final = 15.0
"""How long a mutation is tried when its caller set no earlier deadline."""
_CHANGES: Final = frozenset({"done", "already_ended"})
"""Statuses of mutations whose revision must hold on every replica."""
_POLL_SECONDS: Final = 0.2
_GATHER_SECONDS: Final = 0.003
"""For how long a batch that could be sent waits for the replicas to confirm the one before: what
comes meanwhile shares its commit, and its confirmation. They take about a millisecond; one that is
silent holds nobody up."""


class BatchStore(Protocol):
    """Applies batches in the database; see `storage.mutations`."""

    def apply(self, batch: Sequence[Grant | Revoke], deadline: Deadline) -> Sequence[Applied]:
        """Apply a batch in one transaction, safely repeatable with the same request ids."""
        ...


class Confirms(Protocol):
    """Tells when a revision holds on every replica; see `acknowledgements`."""

    def when_confirmed(
        self, revision: int, history: UUID | None, callers: int, then: Callable[[Waiter], None]
    ) -> None:
        """Call `then`, which must not block, once; for so many callers."""
        ...


Told: TypeAlias = "Callable[[Applied | Exception], None]"
"""Told once what a mutation did, or what `submit` raises for it. It must return at once, and not
raise: others are told by the same thread."""


class _Submitted:
    """A mutation, and who is told its outcome: by whoever settles it first."""

    __slots__ = ("_is_settled", "_tell", "committed", "deadline", "is_sent", "mutation")

    def __init__(self, mutation: Grant | Revoke, deadline: Deadline, tell: Told) -> None:
        self.mutation = mutation
        self.deadline = deadline
        self._tell = tell
        # Acquired by whoever settles it and never released: a flag that one thread alone can set.
        self._is_settled = Lock()
        self.is_sent = False
        self.committed: Applied | None = None
        """What it did, which the replicas have not confirmed yet."""

    def left(self) -> float:
        return self.deadline.remaining(MUTATION_SECONDS)

    @property
    def is_settled(self) -> bool:
        return self._is_settled.locked()

    def settle(self, outcome: Applied | Exception) -> None:
        if not self._is_settled.acquire(blocking=False):
            return
        try:
            self._tell(outcome)
        except Exception:  # noqa: BLE001 - the others of a batch are not concerned
            _log.exception("telling the outcome of a mutation failed on a bug")


class GroupCommit:
    """See the module."""

    def __init__(self, store: BatchStore, confirms: Confirms | None = None) -> None:
        """Commit to this store, and wait for the replicas if there is somebody who can tell."""
        self._store = store
        self._confirms = confirms
        self._queue: SimpleQueue[_Submitted] = SimpleQueue()
        # Guards `is_sent` of those in the queue: a mutation is either given up or sent.
        self._sending = Lock()
        # Set but while a batch waits for the replicas.
        self._is_confirmed = Event()
        self._is_confirmed.set()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-commit", daemon=True)
        # Those whose callers do not sleep.
        self._expiries: Expiries[_Submitted] = Expiries(self._give_up)

    def start(self) -> None:
        """Start committing."""
        self._thread.start()
        self._expiries.start()

    def stop(self) -> None:
        """Commit what waits, then end. Callers must have stopped before."""
        self._stopping.set()
        self._thread.join(5.0)
        self._expiries.stop()

    def submit(self, mutation: Grant | Revoke, deadline: Deadline) -> Applied:
        """Commit a mutation with others and return what it did.

        What it changed has been waited for when `confirmation` is set.

        Raises:
            DeadlineError: the deadline passed before it was sent; nothing happened.
            OutcomeUnknownError: it passed after that, or the history is another one by now; it
                happened whole or not at all.
            UnconfirmedError: it is committed, and not every replica has confirmed it in time.
            UnavailableError, ConflictError, HistoryUnconfirmedError: nothing happened.
        """
        outcomes: list[Applied | Exception] = []
        # An acquired lock is how a thread sleeps at least cost; it is released once.
        done = Lock()
        done.acquire()

        def tell(outcome: Applied | Exception) -> None:
            outcomes.append(outcome)
            done.release()

        submitted = _Submitted(mutation, deadline, tell)
        self._queue.put(submitted)
        if not done.acquire(timeout=submitted.left()):
            self._give_up(submitted)
            done.acquire()  # told by now, or just being told
        (outcome,) = outcomes
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def begin(self, mutation: Grant | Revoke, deadline: Deadline, tell: Told) -> None:
        """Do as `submit` does without waiting for it: another thread tells the outcome."""
        submitted = _Submitted(mutation, deadline, tell)
        self._expiries.add(submitted, submitted.left())
        self._queue.put(submitted)

    def _finish(self, submitted: _Submitted, outcome: Applied | Exception) -> None:
        self._expiries.discard(submitted)
        submitted.settle(outcome)

    def _give_up(self, submitted: _Submitted) -> None:
        """Tell what is known of a mutation whose time is over, unless its outcome was told."""
        with self._sending:
            was_sent = submitted.is_sent
            submitted.is_sent = True
        submitted.settle(_unsettled(submitted, was_sent=was_sent))

    def _run(self) -> None:
        while True:
            batch = self._gather()
            if batch:
                self._settle_whatever_happens(batch)
            elif self._stopping.is_set():
                return

    def _gather(self) -> list[_Submitted]:
        """Wait for one mutation and take all that wait with it; from then on they count as sent."""
        batch: list[_Submitted] = []
        with suppress(Empty):
            batch.append(self._queue.get(timeout=_POLL_SECONDS))
            self._is_confirmed.wait(_GATHER_SECONDS)
            while len(batch) < BATCH:
                batch.append(self._queue.get_nowait())
        with self._sending:
            sent = [item for item in batch if not item.is_sent]
            for item in sent:
                item.is_sent = True
        return sent

    def _settle_whatever_happens(self, batch: Sequence[_Submitted]) -> None:
        try:
            self._settle(batch)
        except Exception:  # noqa: BLE001 - without this thread nobody could change anything
            _log.exception("settling a batch of mutations failed on a bug")
            for item in batch:
                self._finish(item, _unsettled(item, was_sent=True))

    def _settle(self, batch: Sequence[_Submitted]) -> None:
        try:
            results = self._apply(batch)
        except Exception as exc:  # noqa: BLE001 - handed to every caller, who raises it
            if not isinstance(exc, LicetError):
                _log.exception("a batch of mutations failed on a bug")
            for item in batch:
                self._finish(item, exc)
            return
        # A refusal has changed nothing, and what happened earlier is of another revision: who has
        # to wait for that does it alone.
        newest = max(results, key=lambda applied: (applied.status in _CHANGES, applied.revision))
        changed = []
        for item, applied in zip(batch, results, strict=True):
            if (
                self._confirms is not None
                and applied.status in _CHANGES
                and applied.revision == newest.revision
            ):
                item.committed = applied
                changed.append(item)
            else:
                self._finish(item, applied)
        if self._confirms is not None and changed:
            is_confirmed = self._is_confirmed = Event()

            def tell(waiter: Waiter) -> None:
                is_confirmed.set()
                self._tell(changed, waiter)

            self._confirms.when_confirmed(newest.revision, newest.history, len(changed), tell)

    def _apply(self, batch: Sequence[_Submitted]) -> Sequence[Applied]:
        mutations = [item.mutation for item in batch]
        # The batch lives as long as its most patient caller.
        deadline = Deadline(lambda: max(item.left() for item in batch))
        try:
            return self._store.apply(mutations, deadline)
        except OutcomeUnknownError:
            _log.warning(
                "the answer to a commit of %d mutations was lost; asking again", len(batch)
            )
        unknown = OutcomeUnknownError("the outcome is not known yet; ask again with the request_id")
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(
                    (OutcomeUnknownError, UnavailableError, ConflictError)
                ),
                stop=lambda _: self._is_vain(batch),
                wait=wait_random_exponential(multiplier=0.05, max=0.5),
                sleep=self._sleep,
                reraise=True,
            ):
                with attempt:
                    return self._store.apply(mutations, deadline)
        except LicetError as exc:
            # Whatever this attempt met, the first one may have been committed.
            raise unknown from exc
        raise unknown

    def _is_vain(self, batch: Sequence[_Submitted]) -> bool:
        """Say whether nobody waits for a batch: of who set no deadline, the time never runs out."""
        return self._stopping.is_set() or all(item.is_settled or item.left() <= 0 for item in batch)

    def _sleep(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _tell(self, changed: Sequence[_Submitted], waiter: Waiter) -> None:
        confirmation = waiter.confirmation()
        for item in changed:
            if isinstance(confirmation, LicetError):
                self._finish(item, confirmation)
            elif item.committed is not None:
                self._finish(item, item.committed._replace(confirmation=confirmation))


def _unsettled(submitted: _Submitted, *, was_sent: bool) -> LicetError:
    """Return what is known of a mutation before it is settled."""
    if not was_sent:
        if submitted.left() > 0:
            return UnavailableError("the database takes no changes now")
        return DeadlineError("the deadline passed before the change was sent")
    if submitted.committed is None:
        return OutcomeUnknownError(
            "the outcome is not known yet; ask again with request_id"
            f" {submitted.mutation.request_id}"
        )
    return UnconfirmedError(
        f"committed at revision {submitted.committed.revision}; not every replica confirmed it"
        " in time"
    )
