"""The metrics of a host with several workers, at one address: theirs, and what is known of them.

Each worker has its metrics on a port of its own on loopback, which the supervisor asks when it is
asked: one target for Prometheus, whatever worker has been replaced. `worker`, the only label, is
its slot, or `steward`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Final
from urllib.request import ProxyHandler, build_opener

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from typing_extensions import override

_LABEL: Final = "worker"
_SCRAPE_SECONDS: Final = 2.0
# Whatever proxy the environment names, it is not for loopback.
_OPENER: Final = build_opener(ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """A worker as its supervisor knows it.

    Attributes:
        label: its place among the workers, from 0, or what else it is.
        serving: whether it serves, by what it has said of late.
        silent_seconds: since it said something.
        metrics_port: where its metrics are, on loopback, if anywhere.
    """

    label: str
    serving: bool
    silent_seconds: float
    metrics_port: int | None


class HostCollector(Collector):
    """See the module."""

    def __init__(
        self,
        labels: Sequence[str],
        workers: Callable[[], Sequence[WorkerHealth]],
        restarts: Callable[[], int],
        leaving: Callable[[], int],
    ) -> None:
        """Collect from what the callables return at that time.

        Args:
            labels: of the workers there should be.
            workers: those there are.
            restarts: how many ended without being told to.
            leaving: how many are being drained.
        """
        self._labels = labels
        self._workers = workers
        self._restarts = restarts
        self._leaving = leaving

    @override
    def collect(self) -> Iterable[Metric]:
        known = {worker.label: worker for worker in self._workers()}
        yield from self._of_host(known)
        asked = [worker for worker in known.values() if worker.metrics_port is not None]
        if not asked:
            return
        with ThreadPoolExecutor(len(asked)) as pool:
            yield from _merged(chain.from_iterable(pool.map(_of_worker, asked)))

    def _of_host(self, known: Mapping[str, WorkerHealth]) -> Iterable[Metric]:
        serving = GaugeMetricFamily(
            "licet_worker_serving", "1 if a worker serves, else 0.", labels=[_LABEL]
        )
        silent = GaugeMetricFamily(
            "licet_worker_silent_seconds", "How long a worker has said nothing.", labels=[_LABEL]
        )
        for label in self._labels:
            worker = known.get(label)
            serving.add_metric([label], float(worker is not None and worker.serving))
            if worker is not None:
                silent.add_metric([label], worker.silent_seconds)
        yield serving
        yield silent
        yield GaugeMetricFamily(
            "licet_workers_leaving", "Workers that are being drained.", value=self._leaving()
        )
        yield CounterMetricFamily(
            "licet_worker_failures", "Workers that ended or hung.", value=self._restarts()
        )


def _of_worker(worker: WorkerHealth) -> list[Metric]:
    """Return a worker's metrics with its label; none when it does not answer: see `silent`."""
    address = f"http://127.0.0.1:{worker.metrics_port}/metrics"
    try:
        with _OPENER.open(address, timeout=_SCRAPE_SECONDS) as answer:
            found = list(text_string_to_metric_families(answer.read().decode()))
    except (OSError, ValueError):
        return []
    for metric in found:
        metric.samples = [
            sample._replace(labels={_LABEL: worker.label, **sample.labels})
            for sample in metric.samples
        ]
    return found


def _merged(metrics: Iterable[Metric]) -> Iterable[Metric]:
    """Return one metric for each name, with the samples of all: a name may come once only."""
    families: dict[str, Metric] = {}
    for metric in metrics:
        family = families.setdefault(metric.name, metric)
        if family is not metric:
            family.samples += metric.samples
    return families.values()
