"""A service's metrics: counters, gauges and histograms, updated while it runs, read by every report."""

import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from deploy.models.predictor import Predictor
from deploy.models.updates import Following
from deploy.serving.monitoring.group_offsets import GroupOffsets
from model.online.values import Tally
from pipeline.log import Record
from pipeline.windows.grid import Counts

logger = logging.getLogger(__name__)

LATENCY_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 600_000, 3_600_000)
"""Upper bounds of the latency histogram's buckets, in milliseconds."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048)
"""Upper bounds of the batch-size histogram's buckets, in windows or texts."""
STAGE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of the stages' histograms, in seconds."""
Stage = Literal["poll", "decode", "predict", "commit", "checkpoint"]
"""Of the loop: waiting for records; decoding them into windows; predicting and producing, both of a micro-batch;
flushing and committing, of a poll's records; and writing a checkpoint."""
STAGES: tuple[Stage, ...] = get_args(Stage)
NOT_JOINED = "it has not joined its group yet"

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

    def observe_one(self, value: float) -> None:
        """Count one value; a tenth of the time that `observe` takes."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

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
    about: Mapping[str, str] = field(default_factory=dict)
    """The names by which the service is known: its topics, its group, its instance."""
    missing: str = NOT_JOINED
    """What the service still lacks before it serves; empty once it does."""
    model: str = ""
    """NAME/VERSION, or the file name, of the serving model."""
    model_sha256: str = ""
    device: str = ""
    model_since: float = 0.0
    """When it began to serve, in epoch seconds."""
    trained_until: int = 0
    """The time of the last value that it was trained on, epoch milliseconds; 0 if it is not known."""
    records: int = 0
    """Counter: committed input records, tombstones and invalid ones included."""
    predictions: int = 0
    """Counter: forecasts or labels committed."""
    produced: int = 0
    """Gauge: those that are not committed yet."""
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
    rebalances: int = 0
    """Counter: times that partitions came to this instance or left it."""
    partitions: int = 0
    """Gauge: partitions that are assigned to it and restored."""
    series: int = 0
    """Gauge: series whose windows are held."""
    checkpoint_at: float = field(default_factory=time.time)
    """When all that had changed was last written, in epoch seconds; at first when the service began."""
    checkpoint_s: float = 0.0
    """How long that took."""
    since_checkpoint: int = 0
    """Gauge: committed records since then, which a restart would read again."""
    lag: dict[int, int] = field(default_factory=dict)
    """Gauge, by partition: committed records that have not been read."""
    latency_ms: Histogram = field(default_factory=lambda: Histogram(LATENCY_MS))
    """From a record's timestamp until what came of it is handed to the log, exactly once until it is committed."""
    batch_sizes: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZES))
    """Windows or texts per micro-batch."""
    stages: dict[Stage, Histogram] = field(default_factory=lambda: {name: Histogram(STAGE_S) for name in STAGES})
    """Seconds of each stage of the loop, each time that it is passed."""
    seconds: float = 0.0
    """From the first record to the last commit."""
    tally: Tally = field(default_factory=Tally)
    """Forecast values that were graded."""
    webhook: Mapping[str, int] | None = None
    """What became of the alerts that were to be posted; None if none are."""
    shadow: Mapping[str, int] | None = None
    """How often a shadow model failed; None without one."""
    following: Following | None = None
    """How it stands with the model's alias; None if the model is pinned."""
    offsets: GroupOffsets = field(default_factory=GroupOffsets)
    """Where the group stands, as the broker has it."""
    workers: Mapping[str, tuple[bool, int]] | None = None
    """Of several workers by number whether each answers, and how often it was started again; None of one process."""
    coverage: float | None = None
    """What `tally.coverage` is to be; None without intervals."""
    uncommitted: int = 0
    """Gauge: records whose results have been produced, and which are not committed yet."""
    _checkpoint_began: float = 0.0
    _before_checkpoint: int = 0

    @property
    def taken(self) -> int:
        """Records whose results have been produced, committed or not."""
        return self.records + self.uncommitted

    def set_model(self, predictor: Predictor) -> None:
        """Note which model is serving now."""
        self.model, self.model_sha256, self.device = predictor.label, predictor.sha256, predictor.device
        self.model_since, self.trained_until = time.time(), getattr(predictor.card, "trained_until", 0)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Measures a stage of the loop."""
        began = time.perf_counter()
        yield
        self.stages[name].observe_one(time.perf_counter() - began)

    def count_written(self, polled: Iterable[Sequence[Record]]) -> None:
        """Count records, of all partitions, whose results have been produced, and are committed next."""
        for records in polled:
            self.uncommitted += len(records)
            self.tombstones += sum(record.value is None for record in records)

    def observe_latency(self, polled: Iterable[Sequence[Record]]) -> None:
        """Measure how long the results of these records took."""
        now = time.time() * 1000
        for records in polled:
            self.latency_ms.observe([now - record.timestamp for record in records if record.timestamp >= 0])

    def count_committed(self, refused: int) -> None:
        """Count what has been committed: records, and what was made of them but for what the log refused, for which
        dead letters stand.
        """
        self.predictions += self.produced - refused
        self.records += self.uncommitted
        self.since_checkpoint += self.uncommitted
        self.produced = self.uncommitted = 0

    def begin_checkpoint(self) -> None:
        """What has changed by now is to be written."""
        self._checkpoint_began, self._before_checkpoint = time.perf_counter(), self.since_checkpoint

    def end_checkpoint(self) -> None:
        """It is written."""
        self.checkpoint_at, self.checkpoint_s = time.time(), time.perf_counter() - self._checkpoint_began
        self.since_checkpoint -= self._before_checkpoint

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
