"""Short ways to sign a log, to see why it is not signed, and to begin a new epoch of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from licet.replica.clock import SystemClock
from licet.steward import epochs
from licet.steward.signer import RefusalError
from licet.steward.state_file import StateFileError
from licet.writer.ids import audit_writer_id
from tests.fakes.api import count
from tests.fakes.postgres import Database
from tests.fakes.sealing import Host, hosting, writing_to

CHECKPOINTS = "SELECT count(*) FROM audit.checkpoints"


def grow(database: Database, folder: Path, events: int) -> None:
    """Store, seal and sign so many events; nobody is connected afterwards."""
    with writing_to(database) as writer, hosting(database, folder) as host:
        writer.store(events)
        assert host.sign() is not None


def refusal(database: Database, folder: Path) -> str:
    """Return why nothing is signed; that it is so is asserted, and that it is so again."""
    before = count(database, CHECKPOINTS)
    with hosting(database, folder) as host:
        messages = set()
        for _ in range(2):
            with pytest.raises((RefusalError, StateFileError)) as raised:
                host.sign()
            messages.add(str(raised.value))
    assert count(database, CHECKPOINTS) == before
    (message,) = messages
    return message


def begin(
    database: Database, folder: Path, *, force: bool = False, number: int | None = None
) -> epochs.Begun:
    """Begin a new epoch on a host of its own."""
    with hosting(database, folder) as host:
        return begin_on(host, force=force, number=number)


def begin_on(host: Host, *, force: bool = False, number: int | None = None) -> epochs.Begun:
    """Begin a new epoch."""
    wished = epochs.Wish("a disk was lost", force, number)
    return epochs.begin_epoch(host.sealing, host.custody, audit_writer_id(SystemClock()), wished)
