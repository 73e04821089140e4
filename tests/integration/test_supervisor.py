"""The supervisor with small workers of its own: what it starts, replaces, revives and drains."""

from __future__ import annotations

import os
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
    import os, signal, sys
    from pathlib import Path
    from licet.supervisor.worker import announce_ready

    folder, slot, fault = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if fault == "fails":
        sys.exit(3)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    (folder / f"{slot}-{os.getpid()}").write_text("serves")
    announce_ready()
    signal.sigwait({signal.SIGTERM})
    (folder / f"{slot}-{os.getpid()}").write_text("drained")
""")
_SUPERVISOR = textwrap.dedent("""
    import logging, os, sys
    from licet.supervisor import Fleet, WorkerError
    from licet.supervisor.worker import Worker

    logging.basicConfig(level=logging.INFO)
    folder, count, fault, program = sys.argv[1:]

    def start(slot):
        return Worker(slot, [sys.executable, "-c", program, folder, str(slot), fault], os.environ)

    try:
        Fleet(start, int(count), 5.0).run(lambda: print("ready", flush=True))
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
def supervised(folder: Path, count: int, fault: str = "none") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _SUPERVISOR, str(folder), str(count), fault, _WORKER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def serving(folder: Path) -> set[tuple[str, int]]:
    found = set()
    for file in folder.iterdir():
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
    assert [file.read_text() for file in tmp_path.iterdir()] == ["drained"] * 4


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_cannot_start_at_all_ends_the_supervisor(tmp_path: Path, count: int) -> None:
    with supervised(tmp_path, count, "fails") as supervisor:
        assert first_line(supervisor) == "worker 0 ended with code 3"
        assert supervisor.wait(_SECONDS) == 2
    assert not list(tmp_path.iterdir())
