"""Metrics for Prometheus: read when they are scraped, so that a decision pays nothing for them.

Names and labels are here and nowhere else; docs/operations.md says what to alert on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

WAIT_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0)
"""Upper bounds, in seconds, of what a mutation waits for the replicas."""


class Histogram:
    """Counts values in buckets; for what happens rarely enough to take a lock."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Count in buckets with these upper bounds, and one above them."""
        self._bounds = bounds
        # Guards the counts and the sum together.
        self._mutex = Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        position = sum(value > bound for bound in self._bounds)
        with self._mutex:
            self._counts[position] += 1
            self._sum += value

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Return the cumulative buckets in Prometheus' form, and the sum."""
        with self._mutex:
            counts, total = list(self._counts), self._sum
        buckets: list[tuple[str, float]] = []
        seen = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), counts, strict=True):
            seen += count
            buckets.append((bound, seen))
        return buckets, total


class NeverLess:
    """A counter that is computed from others.

    They are not read at one moment, so the difference may shrink a little, which Prometheus would
    take for a restart.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        """Compute it with `read`."""
        self._read = read
        # Guards what was returned last.
        self._mutex = Lock()
        self._last = 0.0

    def __call__(self) -> float:
        """Return what it is now, and never less than before."""
        with self._mutex:
            self._last = max(self._last, self._read())
            return self._last


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the values come from; each is called when Prometheus asks.

    Attributes:
        counters: name without prefix and `_total`, to its help and value.
        gauges: name without prefix, to its help and value.
        histograms: name without prefix, to its help and values.
    """

    counters: dict[str, tuple[str, Callable[[], float]]]
    gauges: dict[str, tuple[str, Callable[[], float]]]
    histograms: dict[str, tuple[str, Histogram]]


class ReplicaCollector(Collector):
    """What `Sources` say, without labels."""

    def __init__(self, sources: Sources) -> None:
        """Collect from these."""
        self._sources = sources

    @override
    def collect(self) -> Iterable[Metric]:
        for name, (text, read) in self._sources.counters.items():
            yield CounterMetricFamily(f"licet_{name}", text, value=read())
        for name, (text, read) in self._sources.gauges.items():
            yield GaugeMetricFamily(f"licet_{name}", text, value=read())
        for name, (text, histogram) in self._sources.histograms.items():
            buckets, total = histogram.cumulative()
            yield HistogramMetricFamily(f"licet_{name}", text, buckets=buckets, sum_value=total)


def serve(collector: Collector, address: str) -> tuple[int, Callable[[], None]]:
    """Serve metrics over HTTP at `host:port`; return the port, and what stops it.

    Raises:
        OSError: the address cannot be bound.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    host, _, port = address.rpartition(":")
    server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5.0)

    return server.server_port, stop
