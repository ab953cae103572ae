"""What a service knows of itself: counted and measured while it works, for whoever reports it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.serving.predictor import Predictor
from pipeline.windows.grid import Counts

LATENCY_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 600_000, 3_600_000)
"""Bounds of the latency histogram, milliseconds."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048)
"""Bounds of the histogram of micro-batches, windows or texts."""


class Histogram:
    """How many values lie up to each of some bounds, and above all of them."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts: npt.NDArray[np.int64] = np.zeros(len(bounds) + 1, np.int64)
        self.total = 0.0
        """The sum of the values."""

    def add(self, values: npt.ArrayLike) -> None:
        """Count some values."""
        given = np.asarray(values, np.float64)
        self.counts += np.bincount(np.searchsorted(self.bounds, given), minlength=len(self.counts))
        self.total += float(given.sum())

    def quantile(self, share: float) -> float | None:
        """The least bound that so large a share of the values lies at or below; None where there is none."""
        reached = np.flatnonzero(np.cumsum(self.counts) >= share * max(1, int(self.counts.sum())))
        return self.bounds[reached[0]] if len(reached) and reached[0] < len(self.bounds) else None


@dataclass(slots=True)
class ServiceStats:
    """One service since its start. Counts grow only; gauges are those of the last look.

    `forecasts` counts what the model said of records, labels of texts too.
    """

    output_kind: str
    """What is written for a record: forecasts, or labels."""
    model: str = ""
    """NAME/VERSION, or the file, that serves."""
    model_sha256: str = ""
    device: str = ""
    records: int = 0
    forecasts: int = 0
    tombstones: int = 0
    late: int = 0
    duplicate: int = 0
    swaps: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    """By their reason."""
    lag: dict[int, int] = field(default_factory=dict)
    """By partition, how many committed offsets lie beyond the position; a gauge."""
    latency_ms: Histogram = field(default_factory=lambda: Histogram(LATENCY_MS))
    """From a record's timestamp to its batch's commit."""
    batch_sizes: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZES))
    """Windows or texts in a micro-batch."""
    seconds: float = 0.0
    """From the first record to the last commit."""

    def serves(self, predictor: Predictor) -> None:
        """Another model serves from now on."""
        self.model, self.model_sha256, self.device = predictor.label, predictor.sha256, predictor.device

    def count_windows(self, counts: Counts) -> None:
        """Take over what a windower has counted."""
        self.late += counts.late
        self.duplicate += counts.duplicate

    def line(self) -> str:
        """The numbers for people."""
        letters = f"{self.dead_letters.total():,} dead letters"
        return f"{self.records:,} records, {self.forecasts:,} {self.output_kind}, {letters}"

    def gauges_line(self) -> str:
        """How far behind the service is, for people."""
        median, tail = (self.latency_ms.quantile(share) for share in (0.5, 0.99))
        latency = f"latency p50 {_up_to(median)}, p99 {_up_to(tail)}" if self.records else "no latency yet"
        return f"lag {sum(self.lag.values()):,}, {latency}"

    def summary(self) -> dict[str, Any]:
        """What `tidecast serve --json` ends with."""
        counts = {name: getattr(self, name) for name in ("records", "forecasts")}
        unused = {name: getattr(self, name) for name in ("tombstones", "late", "duplicate", "swaps", "seconds")}
        letters = {"dead_letters": self.dead_letters.total(), "dead_letters_by_reason": dict(self.dead_letters)}
        latency = {f"p{round(100 * share)}": self.latency_ms.quantile(share) for share in (0.5, 0.99)}
        return {"model": self.model, "device": self.device, **counts, **letters, **unused, "latency_ms": latency}


def _up_to(bound: float | None) -> str:
    return f"over {LATENCY_MS[-1] / 1000:,.0f} s" if bound is None else f"up to {bound:,} ms"
