"""Group commit: the mutations of all callers in one statement, one transaction, one revision.

One thread takes whatever waits, up to a batch, while the transaction before it runs: alone a
mutation costs what it costs, under load many share one commit. A mutation that was not sent when
its caller gave up is never sent. After a lost answer the same batch is sent again, with the same
request ids, until the last of its callers has given up: the database tells the first outcome or
makes it so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Final, Protocol

from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

from licet.app.ports import Applied, Deadline, Grant, Revoke
from licet.domain.errors import (
    ConflictError,
    DeadlineError,
    LicetError,
    OutcomeUnknownError,
    UnavailableError,
)

_log: Final = logging.getLogger(__name__)

BATCH: Final = 200
MUTATION_SECONDS: Final = 15.0
"""How long a mutation is tried when its caller set no earlier deadline."""
_POLL_SECONDS: Final = 0.2


class BatchStore(Protocol):
    """Applies batches in the database; see `storage.mutations`."""

    def apply(self, batch: Sequence[Grant | Revoke], deadline: Deadline) -> Sequence[Applied]:
        """Apply a batch in one transaction, safely repeatable with the same request ids."""
        ...


@dataclass(slots=True)
class _Submitted:
    mutation: Grant | Revoke
    deadline: Deadline
    result: Future[Applied] = field(default_factory=Future)

    def left(self) -> float:
        return self.deadline.remaining(MUTATION_SECONDS)


class GroupCommit:
    """See the module."""

    def __init__(self, store: BatchStore) -> None:
        """Commit to this store."""
        self._store = store
        self._queue: SimpleQueue[_Submitted] = SimpleQueue()
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

        Raises:
            DeadlineError: the deadline passed before it was sent; nothing happened.
            OutcomeUnknownError: it passed after that; it happened whole or not at all.
            UnavailableError, ConflictError: nothing happened.
        """
        submitted = _Submitted(mutation, deadline)
        self._queue.put(submitted)
        try:
            return submitted.result.result(submitted.left())
        except FutureTimeoutError as exc:
            if submitted.result.cancel():
                if deadline.remaining(MUTATION_SECONDS) > 0:
                    raise UnavailableError("the database takes no changes now") from exc
                raise DeadlineError("the deadline passed before the change was sent") from exc
            if submitted.result.done():
                return submitted.result.result()
            raise OutcomeUnknownError(
                f"the outcome is not known yet; ask again with request_id {mutation.request_id}"
            ) from exc

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
            while len(batch) < BATCH:
                batch.append(self._queue.get_nowait())
        return [item for item in batch if item.result.set_running_or_notify_cancel()]

    def _settle(self, batch: Sequence[_Submitted]) -> None:
        try:
            results = self._apply(batch)
        except Exception as exc:  # noqa: BLE001 - handed to every caller, who raises it
            if not isinstance(exc, LicetError):
                _log.exception("a batch of mutations failed on a bug")
            for item in batch:
                item.result.set_exception(exc)
            return
        for item, applied in zip(batch, results, strict=True):
            with suppress(InvalidStateError):
                item.result.set_result(applied)

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
