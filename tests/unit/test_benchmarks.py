"""What the benchmarks measure with: a measurement that is wrong looks like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import process_time

import pytest

from benchmarks.figures import BenchmarkError, percentile, ratios, tail
from benchmarks.h2load import Traffic, UnansweredError, answered
from benchmarks.processes import confine, family, give_way, parent, processor_seconds

_PARENT_OF_ANOTHER = (
    "import subprocess, sys;"
    "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE);"
    "print(child.pid, flush=True); input()"
)


def test_a_percentile_lies_between_the_measurements_around_it() -> None:
    assert percentile([float(number) for number in range(101)], 99) == 99.0
    assert percentile([1.0] * 99 + [1000.0], 50) == 1.0


def test_a_tail_is_what_a_target_is_held_against() -> None:
    assert tail([1.0] * 90 + [9.0] * 11) == (1.0, 9.0, 9.0)
    assert tail([float(number) for number in range(101)]).middle == 95.0


def test_ratios_are_taken_round_by_round() -> None:
    # The second round was ten times as slow for both.
    assert ratios([200.0, 20.0], [100.0, 10.0]).middle == 2.0


def test_processor_seconds_are_those_of_the_process() -> None:
    before = process_time()
    measured = processor_seconds([os.getpid()])
    assert before <= measured <= process_time()


def test_processor_seconds_of_a_process_that_ended_are_an_error() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(ProcessLookupError):
        processor_seconds([ended.pid])


def test_a_family_is_a_process_and_its_descendants_and_is_confined_together() -> None:
    core = min(os.sched_getaffinity(0))
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT_OF_ANOTHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        members = family(process.pid)
        confine(members, {core})
        assert members == [process.pid, child]
        assert parent(child) == process.pid
        assert [os.sched_getaffinity(pid) for pid in members] == [{core}, {core}]
        process.communicate("\n")


def test_what_gives_way_does_so_within_its_session_and_beside_others() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT_OF_ANOTHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        ours, own = os.getpriority(os.PRIO_PROCESS, 0), Path("/proc/self/autogroup")
        before = own.read_text(encoding="ascii") if own.exists() else ""
        give_way([process.pid, child])
        assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in (process.pid, child)] == [19, 19]
        assert os.getpriority(os.PRIO_PROCESS, 0) == ours
        if before:
            group = Path(f"/proc/{child}/autogroup").read_text(encoding="ascii")
            assert group.endswith("nice 19\n")
            assert own.read_text(encoding="ascii") == before
        process.communicate("\n")


def test_what_shares_our_session_gives_way_alone() -> None:
    own = Path("/proc/self/autogroup")
    before = own.read_text(encoding="ascii") if own.exists() else ""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True
    ) as process:
        give_way([process.pid])
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        assert not before or own.read_text(encoding="ascii") == before
        process.communicate("\n")


def test_calls_without_a_message_are_unanswered_and_too_many_bytes_are_something_else() -> None:
    unary, method, size = Traffic(1, 8), "/a.B/C", 15
    assert answered(method, 10, 10 * 20, size, unary) == 10
    assert answered(method, 10, 18 * 20, size, unary) == 10
    with pytest.raises(UnansweredError, match=r"10 calls of /a.B/C brought 9\.0 messages"):
        answered(method, 10, 9 * 20, size, unary)
    with pytest.raises(BenchmarkError, match=r"brought 19\.0 messages") as caught:
        answered(method, 10, 19 * 20, size, unary)
    assert not isinstance(caught.value, UnansweredError)
