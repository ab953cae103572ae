"""The metrics of a service and of its process in Prometheus's text format."""

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from deploy.serving.monitoring.metrics import GROUP_METRICS, METRICS, Definition, Labels
from deploy.serving.monitoring.stats import ServiceStats

__all__ = ["CONTENT_TYPE", "Exposition", "Scope"]

Scope = Literal["all", "worker", "group"]
"""Which metrics are told: of one worker of several those of its own, of all together those of their group."""
RENDERED_EVERY_S = 1.0
"""However many ask, the metrics are looked up once in this time."""


class _ServiceCollector(Collector):
    """What METRICS are now."""

    def __init__(self, stats: Callable[[], ServiceStats], scope: Scope) -> None:
        self._stats = stats
        self._metrics = [
            each for each in METRICS if scope == "all" or (each.name in GROUP_METRICS) == (scope == "group")
        ]

    def collect(self) -> Iterable[Metric]:
        """Each metric that is known."""
        stats = self._stats()
        for each in self._metrics:
            value = each.read(stats)
            if value is not None:
                yield _family(each, value if isinstance(value, Mapping) else {(): value})

    def describe(self) -> Iterable[Metric]:
        """None: names are not checked before there are values."""
        return ()


def _family(each: Definition, values: Mapping[Labels, Any]) -> Metric:
    if each.kind == "histogram":
        family = HistogramMetricFamily(each.name, each.text, labels=each.labels)
        for labels, histogram in values.items():
            counts, total = histogram.counts.cumsum().tolist(), histogram.sum
            bounds = [f"{round(bound * each.unit, 9):g}" for bound in histogram.bounds]
            family.add_metric(labels, list(zip([*bounds, "+Inf"], counts, strict=True)), total * each.unit)
        return family
    kind = CounterMetricFamily if each.kind == "counter" else GaugeMetricFamily
    numbers = kind(re.sub("_total$", "", each.name), each.text, labels=each.labels)
    for labels, number in values.items():
        numbers.add_metric(labels, number)
    return numbers


class Exposition:
    """The metrics of a service and its process as text."""

    def __init__(self, stats: Callable[[], ServiceStats], scope: Scope = "all") -> None:
        """`stats` are those of the service that there is now."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_ServiceCollector(stats, scope))
        if scope != "group":
            ProcessCollector(registry=self._registry)
        self._lock = threading.Lock()
        self._text, self._rendered = b"", float("-inf")

    def render(self) -> bytes:
        """The text, RENDERED_EVERY_S old at most."""
        with self._lock:
            if time.monotonic() - self._rendered >= RENDERED_EVERY_S:
                self._text, self._rendered = generate_latest(self._registry), time.monotonic()
            return self._text
