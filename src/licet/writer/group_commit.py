"""Group commit: the mutations of all callers in one statement, one transaction, one revision.

One thread takes whatever waits, up to a batch, while the transaction before it runs: alone a
mutation costs what it costs, under load many share one commit. A mutation that was not sent when
its caller gave up is never sent. After a lost answer the same batch is sent again, with the same
request ids, until the last of its callers has given up: the database tells the first outcome or
makes it so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Final, Protocol
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


class _Submitted:
    """A mutation and its caller, who sleeps until the lock is released: once, at the end."""

    __slots__ = ("applied", "committed", "deadline", "done", "error", "is_sent", "mutation")

    def __init__(self, mutation: Grant | Revoke, deadline: Deadline) -> None:
        self.mutation = mutation
        self.deadline = deadline
        self.is_sent = False
        self.committed: Applied | None = None
        """What it did, which the replicas have not confirmed yet."""
        self.applied: Applied | None = None
        self.error: Exception | None = None
        self.done = Lock()
        self.done.acquire()

    def left(self) -> float:
        return self.deadline.remaining(MUTATION_SECONDS)

    def commit(self, applied: Applied) -> None:
        self.committed = applied

    def resolve(self, applied: Applied) -> None:
        self.applied = applied
        self.done.release()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.done.release()


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

    def start(self) -> None:
        """Start committing."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what waits, then end. Callers must have stopped before."""
        self._stopping.set()
        self._thread.join(5.0)

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
        submitted = _Submitted(mutation, deadline)
        self._queue.put(submitted)
        # An acquired lock is how a thread sleeps at least cost; it is released once.
        if not submitted.done.acquire(timeout=submitted.left()):
            self._give_up(submitted)
        if submitted.error is not None:
            raise submitted.error
        if submitted.applied is None:
            raise RuntimeError("a mutation was settled without an outcome")
        return submitted.applied

    def _give_up(self, submitted: _Submitted) -> None:
        """Say what is known of a mutation whose time is over, unless that is its outcome."""
        with self._sending:
            was_sent = submitted.is_sent
            submitted.is_sent = True
        if not was_sent:
            if submitted.left() > 0:
                raise UnavailableError("the database takes no changes now")
            raise DeadlineError("the deadline passed before the change was sent")
        if submitted.applied is not None or submitted.error is not None:
            return
        if submitted.committed is None:
            raise OutcomeUnknownError(
                "the outcome is not known yet; ask again with request_id"
                f" {submitted.mutation.request_id}"
            )
        raise UnconfirmedError(
            f"committed at revision {submitted.committed.revision}; not every replica confirmed it"
            " in time"
        )

    def _run(self) -> None:
        while True:
            batch = self._gather()
            if batch:
                self._settle(batch)
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

    def _settle(self, batch: Sequence[_Submitted]) -> None:
        try:
            results = self._apply(batch)
        except Exception as exc:  # noqa: BLE001 - handed to every caller, who raises it
            if not isinstance(exc, LicetError):
                _log.exception("a batch of mutations failed on a bug")
            for item in batch:
                item.fail(exc)
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
                item.commit(applied)
                changed.append(item)
            else:
                item.resolve(applied)
        if self._confirms is not None and changed:
            is_confirmed = self._is_confirmed = Event()

            def tell(waiter: Waiter) -> None:
                is_confirmed.set()
                _tell(changed, waiter)

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
                stop=lambda _: self._stopping.is_set() or deadline.remaining(MUTATION_SECONDS) <= 0,
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

    def _sleep(self, seconds: float) -> None:
        self._stopping.wait(seconds)


def _tell(changed: Sequence[_Submitted], waiter: Waiter) -> None:
    confirmation = waiter.confirmation()
    for item in changed:
        if isinstance(confirmation, LicetError):
            item.fail(confirmation)
        elif item.committed is not None:
            item.resolve(item.committed._replace(confirmation=confirmation))
