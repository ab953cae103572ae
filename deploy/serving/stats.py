"""A service's metrics: counters, gauges and histograms, updated while it runs, read by every report."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.models.predictor import Predictor
from model.online.values import Tally
from pipeline.windows.grid import Counts

logger = logging.getLogger(__name__)

LATENCY_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 600_000, 3_600_000)
"""Upper bounds of the latency histogram's buckets, in milliseconds."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048)
"""Upper bounds of the batch-size histogram's buckets, in windows or texts."""

MAX_BAD, MIN_BAD = 0.01, 10
"""The share of a model's outputs that may be unusable, and how many may be in any case."""
OBSERVED_S, MIN_OBSERVED = 60.0, 1_000
"""The share is of a minute's outputs, and of so many at least."""


class Histogram:
    """Counts of values by bucket: one for each upper bound, inclusive, and one above the last."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts: npt.NDArray[np.int64] = np.zeros(len(bounds) + 1, np.int64)
        """Per bucket, not cumulative."""
        self.sum = 0.0
        """The sum of all observed values."""

    def observe(self, values: npt.ArrayLike) -> None:
        """Count these values."""
        observed = np.asarray(values, np.float64)
        self.counts += np.bincount(np.searchsorted(self.bounds, observed), minlength=len(self.counts))
        self.sum += float(observed.sum())

    def quantile(self, q: float) -> float | None:
        """The upper bound of the bucket that holds the q-quantile; None if that is above all bounds."""
        reached = np.flatnonzero(np.cumsum(self.counts) >= q * max(1, int(self.counts.sum())))
        return self.bounds[reached[0]] if len(reached) and reached[0] < len(self.bounds) else None


class OutputHealth:
    """For how many windows or texts of the last minute, or of the last thousand, a model had no usable output."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._since, self._all, self._bad, self._alarmed = time.monotonic(), 0, 0, False

    def observe(self, count: int, bad: int) -> str:
        """Count a micro-batch: what is wrong, the first time that more is than a model may fail on."""
        if self._all >= MIN_OBSERVED and time.monotonic() - self._since >= OBSERVED_S:
            self._reset()
        self._all, self._bad = self._all + count, self._bad + bad
        if self._alarmed or self._bad < MIN_BAD or self._bad <= MAX_BAD * self._all:
            return ""
        self._alarmed = True
        return f"{self._bad:,} of its last {self._all:,} outputs were not finite, or inference failed"


@dataclass(slots=True)
class ServiceStats:
    """The metrics of one service since its start."""

    output_kind: str
    """What the service writes: forecasts or labels."""
    model: str = ""
    """NAME/VERSION, or the file name, of the serving model."""
    model_sha256: str = ""
    device: str = ""
    records: int = 0
    """Counter: committed input records, tombstones and invalid ones included."""
    predictions: int = 0
    """Counter: forecasts or labels produced."""
    tombstones: int = 0
    """Counter: input records without a value."""
    late_events: int = 0
    """Counter."""
    duplicate_events: int = 0
    """Counter."""
    early_steps: int = 0
    """Counter: steps taken before their lateness had passed, as too many waited."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """Counter, by reason."""
    not_finite: int = 0
    """Counter: forecasts of the model that were not finite, so that naive ones were produced instead."""
    model_swaps: int = 0
    """Counter."""
    lag: dict[int, int] = field(default_factory=dict)
    """Gauge, by partition: committed records that have not been read."""
    latency_ms: Histogram = field(default_factory=lambda: Histogram(LATENCY_MS))
    """From a record's timestamp to the commit of its batch."""
    batch_sizes: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZES))
    """Windows or texts per micro-batch."""
    seconds: float = 0.0
    """From the first record to the last commit."""
    tally: Tally = field(default_factory=Tally)
    """Forecast values that were graded."""
    webhook: Mapping[str, int] | None = None
    """What became of the alerts that were to be posted; None if none are."""

    def set_model(self, predictor: Predictor) -> None:
        """Note which model is serving now."""
        self.model, self.model_sha256, self.device = predictor.label, predictor.sha256, predictor.device

    def add_counts(self, counts: Counts) -> None:
        """Add a windower's counts of unused events."""
        self.late_events += counts.late
        self.duplicate_events += counts.duplicate
        if counts.early and not self.early_steps:
            logger.warning("more steps wait than --waiting-limit allows: the earliest are taken before their lateness")
        self.early_steps += counts.early

    def counts_line(self) -> str:
        """The main counters for the log."""
        dead_letters = f"{self.dead_letters.total():,} dead letters"
        naive = f", {self.not_finite:,} of them naive as the model's were not finite" if self.not_finite else ""
        counts = f"{self.records:,} records, {self.predictions:,} {self.output_kind}{naive}, {dead_letters}"
        return counts + self._graded()

    def _graded(self) -> str:
        """What was scored, for the log."""
        tally = self.tally
        inside = "" if tally.coverage is None else f", {tally.coverage:.1%} inside"
        return f"; {tally.graded:,} forecast values graded{inside}" if tally.graded else ""

    def delay_line(self) -> str:
        """Lag and latency for the log."""
        median, p99 = (self.latency_ms.quantile(q) for q in (0.5, 0.99))
        latency = f"latency p50 {_up_to(median)}, p99 {_up_to(p99)}" if self.records else "no latency yet"
        return f"lag {sum(self.lag.values()):,}, {latency}"

    def summary(self) -> dict[str, Any]:
        """The object that `tidecast serve --json` ends with."""
        return {
            "model": self.model,
            "device": self.device,
            "records": self.records,
            "forecasts": self.predictions,
            "dead_letters": self.dead_letters.total(),
            "dead_letters_by_reason": dict(self.dead_letters),
            "not_finite": self.not_finite,
            "tombstones": self.tombstones,
            "late": self.late_events,
            "duplicate": self.duplicate_events,
            "early": self.early_steps,
            "swaps": self.model_swaps,
            "graded": self.tally.graded,
            "coverage": self.tally.coverage,
            **({} if self.webhook is None else {"webhook": dict(self.webhook)}),
            "seconds": self.seconds,
            "latency_ms": {f"p{round(100 * q)}": self.latency_ms.quantile(q) for q in (0.5, 0.99)},
        }


def _up_to(bound: float | None) -> str:
    return f"over {LATENCY_MS[-1] / 1000:,.0f} s" if bound is None else f"up to {bound:,} ms"
