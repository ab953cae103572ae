"""What a batch of observed steps is graded by, and what comes of it.

B observed steps, in order of arrival   O targets   H scored steps   K horizon steps
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model.online.anomalies.findings import Finding
from model.online.scores import ERROR, NAIVE, Bucket
from model.online.tracks import Ints

Reals = npt.NDArray[np.float64]
FirstMargins = Callable[[Ints], Reals]
"""The margins (N,O,H,2) with which series begin, from the places in the batch (N,) of their first forecasts."""


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """B observed steps and what is forecast from them."""

    row: Ints
    """(B,): each series' row."""
    step: Ints
    """(B,)."""
    ts: Ints
    """(B,): epoch milliseconds."""
    value: Reals
    """(B,O)."""
    forecast: Reals
    """(B,O,H): the new forecasts for the scored steps; NaN where there is none."""
    naive: Reals
    """(B,O,H): the seasonal naive's."""
    by: npt.NDArray[np.uint32]
    """(B,): what identifies the model's version; not 0."""


@dataclass(slots=True)
class Tally:
    """Counts over all series since the start, for people: forecast values that were graded."""

    graded: int = 0
    intervals: int = 0
    inside: int = 0
    scaled_error: float = 0.0
    """The absolute errors in closed buckets, each relative to its series' scale then; what has none is left out."""
    naive_scaled_error: float = 0.0
    """The seasonal naive's for the same steps."""
    anomalies: int = 0
    """Values outside of what had been forecast for them."""
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Alerts by kind and phase."""

    def add_bucket(self, bucket: Bucket) -> None:
        """Add a closed bucket of scores."""
        for part in bucket.parts:
            if scale := bucket.scale[part.target]:
                self.scaled_error += float(part.sums[:, ERROR].sum()) / scale
                self.naive_scaled_error += float(part.sums[:, NAIVE].sum()) / scale

    @property
    def coverage(self) -> float | None:
        """The share of actual values inside their intervals."""
        return self.inside / self.intervals if self.intervals else None


@dataclass(slots=True)
class Graded:
    """What came of a batch."""

    margins: npt.NDArray[np.float32]
    """(B,O,2,K): lower and upper of the new forecasts; (B,O,2,0) without intervals."""
    anomaly: Reals
    """(B,): the largest over the targets, NaN where it is not known."""
    buckets: list[tuple[int, Bucket]] = field(default_factory=list)
    """Closed buckets, with the place in the batch of the step that closed each."""
    findings: list[tuple[int, int, Finding]] = field(default_factory=list)
    """Findings, with the place in the batch and the target of each."""
