"""What benchmarks make of their measurements: statistics, tables, files and plots."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import callers, concurrency, plots, profile, report, sections
from benchmarks.efforts import EFFORTS
from benchmarks.figures import (
    BenchmarkError,
    Bound,
    Curve,
    Figure,
    Found,
    Plot,
    Point,
    Spread,
    Target,
    distribution,
    percentile,
)
from benchmarks.h2load import LEAD_SECONDS, Sent, Traffic, answered, counted
from benchmarks.latency import corrected
from benchmarks.profile import Place
from benchmarks.seed import FEW, Match, covered, pattern
from licet.domain.names import Resource
from licet.domain.pattern import contains, resource_pattern
from licet.v1 import authorization_pb2 as pb

SECOND = 1_000_000
PRINTED = """
finished in 1.01s, 4 req/s
requests: 9 total, 9 started, 8 done, {succeeded} succeeded, 0 failed, 0 errored, 0 timeout
traffic: 1.00KB (1000) total, 81B (81) headers (space savings 50.00%), 120B (120) data
"""
MISSED = Target(Bound.AT_LEAST, 1.4)
FIGURES = [
    Figure("Calls", "decisions / no-op", Spread(1.0, 1.1, 1.2), target=MISSED, settings="`none`"),
    Figure("Calls", "no-op", Spread(9000.0, 9000.0, 9000.0), "calls/s"),
    Figure("Memory", "a worker", Spread(1.5, 1.5, 1.5), "MB"),
]
PLOT = Plot(
    "by-load",
    "Latency by load",
    "calls a second",
    "ms",
    [
        Curve("Authorize", [Point(1.0, Spread(1.0, 2.0, 3.0)), Point(10.0, Spread(2.0, 4.0, 5.0))]),
        Curve("no-op", distribution([float(number) for number in range(1, 100)])),
    ],
    "`group`, lease 1 s",
    is_log_across=True,
    is_log_up=True,
)


def test_a_percentile_may_be_a_fraction_and_of_one_measurement() -> None:
    assert percentile([float(number) for number in range(1001)], 99.9) == pytest.approx(999.0)
    assert percentile([7.0], 99.9) == 7.0


def test_a_distribution_ends_with_all_of_them() -> None:
    assert distribution([3.0, 1.0]) == [
        Point(1.0, Spread(50.0, 50.0, 50.0)),
        Point(3.0, Spread(100.0, 100.0, 100.0)),
    ]


def test_a_client_that_is_in_time_is_charged_nothing() -> None:
    starts = [number * 100_000 for number in range(5)]
    assert corrected(Sent(starts, [400] * 5, 100_000.0)) == [0.4] * 5


def test_what_a_client_leaves_out_while_it_waits_is_charged_to_the_answers() -> None:
    # Four calls were due while one took 0.4 s; they were sent behind it, one tick later.
    starts = [0, 100_000, 510_000, 510_000, 510_000, 510_000, 600_000]
    latencies = [1000, 400_000, 1000, 1000, 1000, 1000, 1000]
    charged = corrected(Sent(starts, latencies, 100_000.0))
    assert charged == pytest.approx([1.0, 400.0, 301.0, 201.0, 101.0, 1.0, 1.0])


def test_a_schedule_begins_with_the_most_punctual_call() -> None:
    late_first = [50_000, 100_000, 200_000]
    assert corrected(Sent(late_first, [0, 0, 0], 100_000.0)) == pytest.approx([40.0, 0.0, 0.0])
    assert corrected(Sent([], [], 100_000.0)) == []


def test_calls_before_the_measurement_are_left_out() -> None:
    lead = int(LEAD_SECONDS * SECOND)
    log = f"{lead + 200}\t200\t30\n{100}\t200\t10\n{lead + 100}\t200\t20\n"
    assert Sent.of(log, 10.0) == ([lead + 100, lead + 200], [20, 30], 100_000.0)
    assert Sent.of("", 10.0) == ([], [], 100_000.0)


def test_what_h2load_prints_is_counted() -> None:
    assert counted("m", PRINTED.format(succeeded=8)) == (8, 120)
    for wrong in (PRINTED.format(succeeded=7), "nothing"):
        with pytest.raises(BenchmarkError):
            counted("m", wrong)


def test_answers_of_another_size_are_not_taken_for_answers() -> None:
    assert answered("m", 8, 8 * 15, 10, Traffic(1, 1)) == 8
    assert answered("m", 8, 9 * 15, 10, Traffic(1, 1)) == 8  # one more had begun to arrive
    for data in (8 * 15 - 1, 10 * 15):
        with pytest.raises(BenchmarkError):
            answered("m", 8, data, 10, Traffic(1, 1))


def test_messages_of_streams_that_are_open_at_the_end_are_answered() -> None:
    streams = Traffic(2, 1, messages=100)
    assert answered("m", 3, 3 * 100 * 15 + 50 * 15 + 7, 10, streams) == 350
    assert answered("m", 0, 2 * 15, 10, streams) == 2
    for data in (3 * 100 * 15 - 1, 6 * 100 * 15):
        with pytest.raises(BenchmarkError):
            answered("m", 3, data, 10, streams)


@pytest.mark.parametrize("in_flight", concurrency.IN_FLIGHT)
def test_as_many_calls_are_under_way_as_are_said(in_flight: int) -> None:
    assert concurrency.traffic_of(in_flight).in_flight == in_flight


def test_requests_are_read_as_they_were_written(tmp_path: Path) -> None:
    requests = [pb.AuthorizeRequest(principal=f"agent:{'a' * size}") for size in (0, 1, 300)]
    path = tmp_path / "requests"
    assert callers.write_requests(path, requests) == str(path)
    assert callers.read_requests(path) == [each.SerializeToString() for each in requests]


def test_of_what_is_stored_each_question_finds_something() -> None:
    for holder in range(100):
        resource = Resource(covered(Match.EXACT, holder % FEW))
        assert any(contains(pattern(n), resource_pattern(resource)) for n in range(FEW))


def test_figures_plots_and_what_is_beside_them_are_written(tmp_path: Path) -> None:
    beside = report.Run("quick", 0.25, Spread(8000.0, 8500.0, 9000.0))
    of_another_run = tmp_path / "stored.svg"
    of_another_run.touch()
    report.write(Found(FIGURES, [PLOT]), beside, tmp_path)
    assert not of_another_run.exists()
    content = json.loads((tmp_path / report.JSON).read_text(encoding="utf-8"))
    assert [report.figure_of(fields) for fields in content["figures"]] == FIGURES
    assert content["no_op"] == {"low": 8000.0, "middle": 8500.0, "high": 9000.0}
    page = (tmp_path / report.MARKDOWN).read_text(encoding="utf-8")
    assert "no-op RPC of stock gRPC 8,000 to 9,000 calls/s" in page.splitlines()[0]
    assert "| decisions / no-op | 1.1 | 1 – 1.2 | ≥ 1.4 | missed | `none` |" in page.splitlines()
    assert "| no-op | 9,000 calls/s | | | | |" in page.splitlines()
    assert page.count("### ") == 2
    assert "![Latency by load](by-load.svg)" in page


def test_a_plot_names_its_axes_its_curves_and_its_settings(tmp_path: Path) -> None:
    beside = report.Run("quick", 0.25, Spread(8000.0, 8500.0, 9000.0))
    report.write(Found([], [PLOT]), beside, tmp_path)
    drawn = (tmp_path / "by-load.svg").read_text(encoding="utf-8")
    texts = " ".join(ET.fromstring(drawn).itertext())  # noqa: S314 - we have just written it
    for said in (PLOT.title, PLOT.across, PLOT.up, "Authorize", "no-op", PLOT.settings, "8,000"):
        assert said in texts


def test_the_same_plot_makes_the_same_file(tmp_path: Path) -> None:
    written = [plots.draw([PLOT], tmp_path / name, "")[0] for name in ("one", "two")]
    assert written[0].read_bytes() == written[1].read_bytes()


@pytest.mark.parametrize("effort", EFFORTS.values(), ids=lambda effort: effort.name)
def test_an_effort_has_sections_that_there_are(effort: sections.Effort) -> None:
    assert set(effort.sections) <= set(sections.SECTIONS)
    assert len(set(effort.sections)) == len(effort.sections)


def test_a_profile_shares_the_time_of_each_thread_among_its_places() -> None:
    raw = (
        "thread (7): Thread-1 (_serve);_serve (grpc/_server.py:10);decide (/x/src/licet/a.py) 3\n"
        "thread (7): Thread-1 (_serve);_serve (/v/site-packages/grpc/_server.py) 1\n"
        "thread (8): licet-audit;wait (threading.py) 96\n"
        "process 1 9\n"
    )
    found = profile.places(raw, {7: 4.0, 8: 1.0})
    answers = "Thread-1 (_serve)"
    assert found == {
        Place(answers, "licet/a.py", "decide"): 3.0,
        Place(answers, "grpc/_server.py", "_serve"): 1.0,
        Place("licet-audit", "threading.py", "wait"): 1.0,
    }
    assert list(profile.parts(found).values()) == [3.0, 1.0, 1.0]
    page = profile.table(found, 100.0)
    assert f"| {answers} | `licet/a.py` `decide` | 60.00 | 60.0% |" in page
    assert "| the answering thread: the decision | 60.0 | 60.0% |" in page
