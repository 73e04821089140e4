"""A new epoch of the audit log: another tree, whose first leaf says how the former one ended.

For when what was signed last and the database contradict each other, and only a person can say
which of them is to be believed. Nothing that was signed before is contradicted by it: the new log
has a name of its own.

The database and the state file cannot change at once. So the file first notes what is about to
begin, then the database commits, then the file takes it over. Whatever fails or is lost between
them: nothing is signed, and to repeat it finishes what was begun, or begins anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

from licet.app.sealing import Checkpoints, Head, LatestCheckpoint, SealingTransaction
from licet.domain.audit_event import EventType
from licet.domain.canonical_json import JsonValue
from licet.domain.merkle import Frontier
from licet.steward.journal import Journal
from licet.steward.sealer import SealError, seal, stored_frontier
from licet.steward.signer import CheckpointSigner, RefusalError
from licet.steward.state_file import DamagedStateError, Signed, StateFile
from licet.steward.steward import Custody

MAX_EPOCH: Final = 32_767
_MAX_WRITERS: Final = 1000
_PATIENCE_SECONDS: Final = 15.0


class EpochError(Exception):
    """No epoch was begun; the message says why."""


class Connection(Checkpoints, Protocol):
    """The database connection that an epoch is begun by."""

    def register(self, writer_id: int) -> None:
        """See `app.sealing.Sealing.register`."""
        ...

    def transaction(self) -> AbstractContextManager[SealingTransaction]:
        """See `app.sealing.Sealing.transaction`."""
        ...


class Wish(NamedTuple):
    """What the operator asks for.

    Attributes:
        reason: why, for the record.
        force: begin one also where nothing contradicts anything.
        number: which epoch it is to be; None for the one after all that are known here.
    """

    reason: str
    force: bool = False
    number: int | None = None


class Begun(NamedTuple):
    """The epoch that the log is in.

    Attributes:
        epoch: its number.
        origin: the name of its log, and of the key that it is signed by.
        cause: what was wrong; None if nothing was.
        is_resumed: an earlier attempt had begun it, and was not told so.
    """

    epoch: int
    origin: str
    cause: str | None
    is_resumed: bool


def begin_epoch(connection: Connection, custody: Custody, writer_id: int, wish: Wish) -> Begun:
    """Begin a new epoch, or finish one that was begun before.

    Args:
        connection: the database.
        custody: of the host that signs.
        writer_id: of a writer that does not exist yet; the log says of it what happened.
        wish: what is asked for.

    Raises:
        EpochError: the wish cannot be granted, or nothing is wrong and it is not forced.
        StateFileError, UnavailableError: it was begun, or was not. Nothing is signed until this
            was repeated and has succeeded, unless nothing had begun.
    """
    state = custody.state
    with state.held(_PATIENCE_SECONDS):
        first = state.begun()
        with connection.transaction() as transaction:
            # Whatever an earlier attempt committed is seen here, under the head's lock.
            if first is not None and _has_begun(transaction, first):
                begun = Begun(transaction.head.epoch, first.origin, None, is_resumed=True)
            else:
                first, begun = _begin(connection, transaction, custody, writer_id, wish)
                state.begin(first)
        state.finish(first)
        return begun


def base_of(head: Head) -> str:
    """Return the name of the first epoch's log."""
    return head.origin if head.epoch == 1 else head.origin.removesuffix(f"/epoch{head.epoch}")


def _has_begun(transaction: SealingTransaction, first: Signed) -> bool:
    head = transaction.head
    return (
        head.origin == first.origin
        and head.size > 0
        and transaction.read_hashes(0, 0, 1) == first.root
    )


def _begin(
    connection: Connection,
    transaction: SealingTransaction,
    custody: Custody,
    writer_id: int,
    wish: Wish,
) -> tuple[Signed, Begun]:
    former = transaction.head
    cause = _trouble(connection, transaction, custody)
    if cause is None and not wish.force:
        raise EpochError(
            f"nothing is wrong with {former.origin}: a new epoch would only cut the log in two"
        )
    signed = _last_signed(custody.state)
    epoch = _number(former, signed, wish.number)
    origin = f"{base_of(former)}/epoch{epoch}"
    facts: Mapping[str, JsonValue] = {
        "epoch": epoch,
        "reason": wish.reason,
        "cause": cause,
        # Of what is here, of what the database has a checkpoint of, and of what was signed.
        "former": _shown(Signed(former.origin, former.size, former.root)),
        "checkpoint": _shown(connection.latest()),
        "signed": _shown(signed),
        "writers": {str(w): last for w, last in connection.standings(_MAX_WRITERS).items()},
    }
    connection.register(writer_id)
    transaction.begin_epoch(origin, epoch)
    Journal(writer_id, custody.keys).record(transaction, EventType.EPOCH, "", facts)
    waiting = transaction.queued_of(writer_id)
    grown, mismatches = seal(transaction, Frontier(), waiting, custody.keys)
    if mismatches or grown.size != 1:
        raise EpochError("the event that begins the epoch was changed while it was stored")
    return Signed(origin, grown.size, grown.root()), Begun(epoch, origin, cause, is_resumed=False)


def _trouble(
    connection: Connection, transaction: SealingTransaction, custody: Custody
) -> str | None:
    """Say why nothing is signed, or sealed, any more; None when nothing hinders it.

    Raises:
        StateFileError: what was signed last is there and cannot be read now.
    """
    signer = CheckpointSigner(connection, custody.signer, custody.state)
    try:
        signer.examine(transaction.head)
        stored_frontier(transaction)
    except (RefusalError, DamagedStateError, SealError) as exc:
        return str(exc)
    return None


def _last_signed(state: StateFile) -> Signed | None:
    try:
        return state.read()
    except DamagedStateError:
        return None


def _number(former: Head, signed: Signed | None, wanted: int | None) -> int:
    """Return a number that no epoch had: what was signed under a name must not be contradicted."""
    known = former.epoch
    found = re.fullmatch(re.escape(base_of(former)) + r"/epoch([0-9]{1,5})", _origin(signed))
    if found is not None:
        known = max(known, int(found.group(1)))
    number = known + 1 if wanted is None else wanted
    if not known < number <= MAX_EPOCH:
        raise EpochError(f"the epoch's number must be from {known + 1} to {MAX_EPOCH}")
    return number


def _origin(signed: Signed | None) -> str:
    return "" if signed is None else signed.origin


def _shown(checkpoint: Signed | LatestCheckpoint | None) -> JsonValue:
    if checkpoint is None:
        return None
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
    }
