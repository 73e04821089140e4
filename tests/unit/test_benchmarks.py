"""What the benchmarks measure with: a measurement that is wrong looks like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from time import process_time

import pytest

from benchmarks.figures import percentile, ratios, tail
from benchmarks.processes import confine, family, parent, processor_seconds

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
