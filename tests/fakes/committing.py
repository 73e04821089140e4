"""Group commit on a store that answers, fails, or does it and fails, and those who wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event

from licet.app.ports import Applied, Deadline, Grant, Revoke, RevokeTarget
from licet.domain.canonical_json import EMPTY
from licet.writer.group_commit import GroupCommit
from tests.unit.builders import CALLER, identifier

_SECONDS = 10.0


def revoke(request_id: str) -> Revoke:
    target = RevokeTarget(capability_id=identifier(1))
    return Revoke(request_id, bytes(32), target, "", CALLER, "", EMPTY)


class Patience:
    """A deadline that passes when a test says so, though a wait for it began before."""

    def __init__(self, left: float = _SECONDS) -> None:
        self.left = left
        self.deadline = Deadline(lambda: self.left)


class Store:
    """Keeps what was applied, by request id; each call meets the next of `faults`, if any is left.

    A fault says what is raised and whether the batch was applied before.
    """

    def __init__(self) -> None:
        self.applied: dict[str, int] = {}
        self.batches: list[list[str]] = []
        self.lefts: list[float] = []
        self.faults: list[tuple[Exception, bool]] = []
        self.fails_always: Exception | None = None
        self.meanwhile: Callable[[], object] = lambda: None
        """What happens while a batch is applied."""
        self.begun = Event()
        self.go_on = Event()
        self.go_on.set()

    def apply(self, batch: Sequence[Grant | Revoke], deadline: Deadline) -> Sequence[Applied]:
        self.batches.append([mutation.request_id for mutation in batch])
        self.begun.set()
        self.lefts.append(deadline.remaining(100.0))
        assert self.go_on.wait(_SECONDS)
        self.meanwhile()
        error, happens = self.faults.pop(0) if self.faults else (self.fails_always, True)
        if happens:
            for mutation in batch:
                self.applied.setdefault(mutation.request_id, len(self.batches))
        if error is not None:
            raise error
        return [Applied("done", self.applied[mutation.request_id], {}) for mutation in batch]


class Told:
    """A caller who does not sleep, and what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[Applied | Exception] = []
        self._told = Event()

    def __call__(self, outcome: Applied | Exception) -> None:
        self.outcomes.append(outcome)
        self._told.set()

    def outcome(self) -> Applied | Exception:
        assert self._told.wait(_SECONDS)
        (only,) = self.outcomes
        return only


@contextmanager
def committing(store: Store) -> Iterator[GroupCommit]:
    """Provide a group commit on a store; afterwards it is stopped."""
    group = GroupCommit(store)
    group.start()
    try:
        yield group
    finally:
        store.go_on.set()
        group.stop()
