"""An import that breaks off: running it again completes it, and nothing is there twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from licet.cli.errors import CommandError
from licet.client import AuditImport, Client, ForeignEvent, LicetCallError
from licet.domain.instant import Instant, to_datetime
from tests.fakes.api import count, rows
from tests.fakes.importing import capability, counts, imported, reasons, row, written
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.serving import Served
from tests.fakes.terminal import running

EVENT = ForeignEvent("e-1", to_datetime(Instant(0)), "check")
# Lost before the server saw it, or executed with the answer lost.
both = pytest.mark.parametrize("executed", [False, True], ids=["lost", "executed"])


@pytest.fixture
def client(fragile: Served) -> Iterator[Client]:
    with Client(fragile.address, timeout=10) as opened:
        yield opened


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Provide a file of 8 capabilities in two generations, and of 4 rows."""
    # Few, so that what one statement holds is sent at once.
    roots = [capability(f"c-{n}", delegation_depth=1) for n in range(4)]
    children = [capability(f"d-{n}", parent=f"c-{n}") for n in range(4)]
    events = [row(f"e-{n}", capability=f"d-{n}") for n in range(4)]
    return written(tmp_path / "old", *children, *roots, *events)


def check_complete(database: Database) -> None:
    found = "SELECT metadata #>> '{imported,id}' FROM licet.capabilities ORDER BY 1"
    expected = sorted([f"{kind}-{n}" for n in range(4) for kind in "cd"])
    assert [key for (key,) in rows(database, found)] == expected
    events = "SELECT count(*) FROM audit.events WHERE event_type = 'import.event'"
    assert count(database, events) == 4


@both
def test_a_batch_whose_answer_is_lost_is_recorded_once(
    client: Client, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    fault = proxy.arm(Fault(b'"import.event"', forward=executed))
    assert client.imports.audit("old", [EVENT]) == AuditImport(1, 0, ())
    assert fault.happened()
    assert client.imports.audit("old", [EVENT]) == AuditImport(0, 1, ())
    assert count(database, "SELECT count(*) FROM audit.imported") == 1


@pytest.mark.parametrize("where", [(b'"c-2"', True), (b'"d-2"', False), (b'"e-2"', True)])
def test_a_database_that_goes_away_ends_an_import_that_can_go_on(
    fragile: Served, proxy: PostgresProxy, old: Path, client: Client, where: tuple[bytes, bool]
) -> None:
    statement, executed = where
    fault = proxy.arm(Fault(statement, forward=executed, then=proxy.go_down))
    with (
        Client(fragile.address, timeout=1.5) as hasty,
        pytest.raises(CommandError, match="stay: run the same command again to go on"),
    ):
        imported(hasty, old)
    assert fault.happened()
    proxy.come_back()

    def is_back() -> bool:
        try:
            return bool(client.callers.whoami()) and list(client.capabilities()) is not None
        except LicetCallError:
            return False

    assert eventually(is_back)
    report = imported(client, old)
    assert report.rejects is None
    new, present, *_ = counts(report, "capability")
    assert new + present == 8
    check_complete(fragile.database)


def test_an_import_that_is_killed_is_completed_by_the_next_one(
    fragile: Served, client: Client, proxy: PostgresProxy, database: Database, old: Path
) -> None:
    fault = proxy.arm(Fault(b'"d-2"', then=proxy.stall))
    variables = {"LICET_ADDRESS": fragile.address}
    with running("import", str(old), "--source", "old", variables=variables) as process:
        assert fault.happened()
        process.process.send_signal(signal.SIGKILL)
        process.process.wait(10)
    proxy.resume()
    assert eventually(lambda: len(list(client.capabilities())) >= 4)
    report = imported(client, old)
    assert report.rejects is None
    assert counts(report, "capability")[1] >= 4
    check_complete(database)


def test_a_server_that_is_not_there_is_said_and_nothing_is_written(
    tmp_path: Path, old: Path
) -> None:
    with Client("127.0.0.1:1", timeout=1) as nobody, pytest.raises(LicetCallError):
        imported(nobody, old)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_file_that_changes_meanwhile_is_not_gone_on_with(
    client: Client, proxy: PostgresProxy, database: Database, old: Path
) -> None:
    text = old.read_text(encoding="utf-8")

    def change() -> None:
        written(old, text.replace("read", "riot").rstrip())

    proxy.arm(Fault(b'"c-2"', then=change))
    with pytest.raises(CommandError, match="was changed while it was imported"):
        imported(client, old)
    granted = "SELECT DISTINCT actions FROM licet.capabilities"
    assert rows(database, granted) == [(["read", "write"],)]
    assert reasons(imported(client, old)) != {}
