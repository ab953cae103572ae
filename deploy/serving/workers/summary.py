"""What several workers did, as one service's summary."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from deploy.serving.monitoring.stats import LATENCY_MS, Histogram
from deploy.serving.workers.said import Ended

SUMMED = ("records", "forecasts", "dead_letters", "not_finite", "tombstones", "late", "duplicate", "early", "graded")
COUNTED = ("dead_letters_by_reason", "webhook")


def together(ended: Sequence[Ended], workers: int, restarts: int) -> dict[str, Any]:
    """The summary of all; nothing of processes that were killed is in it, which `restarts` tells of."""
    counts: dict[str, Any] = {"workers": workers, "restarts": restarts}
    if not ended:
        return counts
    summaries = [each.summary for each in ended]
    latency = Histogram(LATENCY_MS)
    latency.counts = np.sum([each.latency_ms for each in ended], axis=0)
    intervals = sum(each.intervals for each in ended)
    inside = sum((each.summary["coverage"] or 0.0) * each.intervals for each in ended)
    return {
        "output": ended[0].output,
        **summaries[0],
        **{name: sum(each[name] for each in summaries) for name in SUMMED},
        **{name: _added([each[name] for each in summaries]) for name in COUNTED if name in summaries[0]},
        "swaps": max(each["swaps"] for each in summaries),
        "coverage": inside / intervals if intervals else None,
        "seconds": max(each["seconds"] for each in summaries),
        "latency_ms": {f"p{round(100 * q)}": latency.quantile(q) for q in (0.5, 0.99)},
        **counts,
    }


def _added(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for each in counts:
        total.update(each)
    return dict(total)
