"""The supervisor with small workers of its own: what it starts, replaces, revives and drains."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

_WORKER = textwrap.dedent("""
    import os, signal, sys, time
    from pathlib import Path
    from licet.supervisor.reports import Reports

    folder, slot, fault = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if fault == "fails" or fault == f"{slot} fails":
        sys.exit(3)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    (folder / f"{slot}-{os.getpid()}").write_text("serves")
    reports = Reports.of_environment()
    reports.ready()
    # Without a timeout: Python returns nonsense when one is over after a SIGCONT.
    while not (received := signal.sigtimedwait(ends, 0)):
        time.sleep(0.1)
        reports.serves(not (folder / "sick").exists())
    reports.leaving()
    if slot == "2":
        # As the steward does: only the supervisor knows when everyone else has gone.
        while received.si_signo != signal.SIGINT:
            received = signal.sigtimedwait(ends, 0) or received
            time.sleep(0.02)
    elif received.si_signo == signal.SIGINT:
        time.sleep(0.3)
    left = "left" if received.si_signo == signal.SIGTERM else "drained"
    (folder / f"{slot}-{os.getpid()}").write_text(left)
""")
_SUPERVISOR = textwrap.dedent("""
    import logging, os, sys, time
    from licet.supervisor import Fleet, Patience, Worker, WorkerError

    logging.basicConfig(level=logging.INFO)
    folder, count, fault, steward, program = sys.argv[1:]
    has_steward = steward == "steward"

    def start(slot):
        command = [sys.executable, "-c", program, folder, str(slot), fault]
        name = "steward" if has_steward and slot == int(count) else None
        return Worker(slot, command, os.environ, silent_after=2.0, name=name)

    try:
        patience = Patience(leave=5.0, drain=5.0, hung=10.0 if fault != "pauses" else 2.0)
        fleet = Fleet(start, int(count), patience, has_steward=has_steward)
        if fault == "pauses":
            # As when it is stopped between listening to its workers and looking at them.
            hangs = fleet._hangs
            def looked_at(worker, pauses=[3.0]):
                time.sleep(pauses.pop() if pauses else 0.0)
                return hangs(worker)
            fleet._hangs = looked_at
        sys.exit(fleet.run(lambda: print("ready", flush=True), lambda: False))
    except WorkerError as exc:
        print(exc, flush=True)
        sys.exit(2)
""")
_SECONDS = 30.0


def until(holds: Callable[[], bool]) -> None:
    pause = Event()
    end = monotonic() + _SECONDS
    while not holds():
        assert monotonic() < end
        pause.wait(0.02)


@contextmanager
def supervised(
    folder: Path, count: int, fault: str = "none", *, steward: bool = False
) -> Iterator[subprocess.Popen[str]]:
    arguments = [str(folder), str(count), fault, "steward" if steward else "", _WORKER]
    command = [sys.executable, "-c", _SUPERVISOR, *arguments]
    with (
        (folder.parent / f"{folder.name}.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def errors(folder: Path) -> str:
    """Return what the supervisor of a folder has logged."""
    return (folder.parent / f"{folder.name}.log").read_text()


def serving(folder: Path) -> set[tuple[str, int]]:
    found = set()
    for file in folder.glob("*-*"):
        slot, _, pid = file.name.partition("-")
        if file.read_text() == "serves" and Path(f"/proc/{pid}").exists():
            found.add((slot, int(pid)))
    return found


def test_it_says_ready_when_every_worker_serves_and_drains_them_all_at_the_end(
    tmp_path: Path,
) -> None:
    with supervised(tmp_path, 3) as supervisor:
        assert first_line(supervisor) == "ready"
        assert {slot for slot, _ in serving(tmp_path)} == {"0", "1", "2"}
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0
    assert [file.read_text() for file in tmp_path.iterdir()] == ["drained"] * 3


def test_a_worker_that_dies_is_started_again_in_its_slot(tmp_path: Path) -> None:
    with supervised(tmp_path, 2) as supervisor:
        assert first_line(supervisor) == "ready"
        (dead,) = (pid for slot, pid in serving(tmp_path) if slot == "1")
        os.kill(dead, signal.SIGKILL)
        until(lambda: any(slot == "1" and pid != dead for slot, pid in serving(tmp_path)))
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0


def test_sighup_replaces_every_worker_and_never_leaves_a_slot_empty(tmp_path: Path) -> None:
    with supervised(tmp_path, 2) as supervisor:
        assert first_line(supervisor) == "ready"
        before = serving(tmp_path)
        supervisor.send_signal(signal.SIGHUP)

        def replaced() -> bool:
            now = serving(tmp_path)
            assert {slot for slot, _ in now} == {"0", "1"}
            return len(now) == 2 and not now & before

        until(replaced)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0
    ends = sorted(file.read_text() for file in tmp_path.iterdir())
    assert ends == ["drained", "drained", "left", "left"]


def test_a_worker_that_is_told_to_go_by_somebody_else_is_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path, 2) as supervisor:
        assert first_line(supervisor) == "ready"
        (told,) = (pid for slot, pid in serving(tmp_path) if slot == "1")
        os.kill(told, signal.SIGTERM)
        until(lambda: any(slot == "1" and pid != told for slot, pid in serving(tmp_path)))
        assert (tmp_path / f"1-{told}").read_text() == "left"
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0
    assert "ended with code" not in errors(tmp_path)


def test_what_a_worker_says_is_logged_once_and_changes_nothing(tmp_path: Path) -> None:
    with supervised(tmp_path, 1) as supervisor:
        assert first_line(supervisor) == "ready"
        before = serving(tmp_path)
        (tmp_path / "sick").touch()
        until(lambda: "not serving" in errors(tmp_path))
        (tmp_path / "sick").unlink()
        until(lambda: errors(tmp_path).count(": serving") == 2)
        assert serving(tmp_path) == before
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0
    said = [line.rpartition(": ")[2] for line in errors(tmp_path).splitlines() if ": " in line]
    assert said == ["serving", "not serving", "serving", "leaving"]


def test_a_worker_that_hangs_is_reported_and_then_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path, 2) as supervisor:
        assert first_line(supervisor) == "ready"
        (hung,) = (pid for slot, pid in serving(tmp_path) if slot == "0")
        os.kill(hung, signal.SIGSTOP)
        until(lambda: any(slot == "0" and pid != hung for slot, pid in serving(tmp_path)))
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0
    lines = [line for line in errors(tmp_path).splitlines() if f"process {hung}" in line]
    told = [line.partition(") ")[2] for line in lines[1:]]
    assert told[:2] == ["is silent", "hangs; killed"]
    assert told[2].startswith("ended with code -9")


def test_a_worker_that_is_heard_again_lives(tmp_path: Path) -> None:
    with supervised(tmp_path, 1) as supervisor:
        assert first_line(supervisor) == "ready"
        ((_, paused),) = serving(tmp_path)
        os.kill(paused, signal.SIGSTOP)
        until(lambda: "is silent" in errors(tmp_path))
        os.kill(paused, signal.SIGCONT)
        until(lambda: "is heard again" in errors(tmp_path))
        assert serving(tmp_path) == {("0", paused)}
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0
    assert "hangs" not in errors(tmp_path)


def test_a_supervisor_that_was_stopped_itself_blames_nobody(tmp_path: Path) -> None:
    with supervised(tmp_path, 2) as supervisor:
        assert first_line(supervisor) == "ready"
        before = serving(tmp_path)
        everyone = [supervisor.pid, *(pid for _, pid in before)]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        Event().wait(12)
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)
        Event().wait(1)
        assert serving(tmp_path) == before
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0
    assert "hangs" not in errors(tmp_path)


def test_a_supervisor_that_was_stopped_after_it_had_listened_blames_nobody(tmp_path: Path) -> None:
    with supervised(tmp_path, 2, "pauses") as supervisor:
        assert first_line(supervisor) == "ready"
        before = serving(tmp_path)
        Event().wait(4)
        assert serving(tmp_path) == before
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0
    assert "hangs" not in errors(tmp_path)


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with supervised(tmp_path, 2) as supervisor:
        assert first_line(supervisor) == "ready"
        pids = {pid for _, pid in serving(tmp_path)}
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        supervisor.send_signal(signal.SIGTERM)
        Event().wait(0.5)
        assert supervisor.poll() is None
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_cannot_start_at_all_ends_the_supervisor(tmp_path: Path, count: int) -> None:
    with supervised(tmp_path, count, "fails") as supervisor:
        assert re.fullmatch("worker [01] ended with code 3", first_line(supervisor))
        assert supervisor.wait(_SECONDS) == 2
    assert not list(tmp_path.iterdir())


def ended(folder: Path, slot: int) -> list[int]:
    """Return when the workers of a slot wrote how they ended."""
    return [file.stat().st_mtime_ns for file in folder.glob(f"{slot}-*")]


def test_the_steward_is_drained_when_all_workers_have_gone(tmp_path: Path) -> None:
    with supervised(tmp_path, 2, steward=True) as supervisor:
        assert first_line(supervisor) == "ready"
        assert {slot for slot, _ in serving(tmp_path)} == {"0", "1", "2"}
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0
    assert [file.read_text() for file in tmp_path.iterdir()] == ["drained"] * 3
    assert max(ended(tmp_path, 0) + ended(tmp_path, 1)) < min(ended(tmp_path, 2))


def test_the_steward_goes_when_its_supervisor_says_so_and_not_before(tmp_path: Path) -> None:
    with supervised(tmp_path, 2, steward=True) as supervisor:
        assert first_line(supervisor) == "ready"
        (told,) = (pid for slot, pid in serving(tmp_path) if slot == "2")
        os.kill(told, signal.SIGTERM)
        until(lambda: any(slot == "2" and pid != told for slot, pid in serving(tmp_path)))
        assert (tmp_path / f"2-{told}").read_text() == "drained"
        before = serving(tmp_path)
        supervisor.send_signal(signal.SIGHUP)
        until(lambda: len(serving(tmp_path)) == 3 and not serving(tmp_path) & before)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(_SECONDS) == 0
    # Workers before the steward, here too; it was never told that others go on.
    assert max(ended(tmp_path, 0) + ended(tmp_path, 1)) < max(ended(tmp_path, 2))
    assert {file.read_text() for file in tmp_path.glob("2-*")} == {"drained"}
    assert "steward (process" in errors(tmp_path)


def test_a_steward_that_was_killed_at_the_end_is_started_once_more(tmp_path: Path) -> None:
    with supervised(tmp_path, 2, steward=True) as supervisor:
        assert first_line(supervisor) == "ready"
        processes = dict(serving(tmp_path))
        supervisor.send_signal(signal.SIGSTOP)
        os.kill(processes["2"], signal.SIGKILL)
        supervisor.send_signal(signal.SIGTERM)
        supervisor.send_signal(signal.SIGCONT)
        assert supervisor.wait(_SECONDS) == 0
    assert sorted(file.read_text() for file in tmp_path.glob("2-*")) == ["drained", "serves"]


def test_a_steward_that_cannot_start_at_all_ends_the_supervisor(tmp_path: Path) -> None:
    with supervised(tmp_path, 2, "2 fails", steward=True) as supervisor:
        assert first_line(supervisor) == "steward ended with code 3"
        assert supervisor.wait(_SECONDS) == 2
