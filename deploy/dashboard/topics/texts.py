"""A classifier's newest answers, its labels over time, and how sure it is."""

from collections import Counter, OrderedDict, deque
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.dashboard.topics.messages import Output
from pipeline.formats.headers import INPUT, OFFSETS, parse_origin, read_headers
from pipeline.log import Record

NEWEST, BY_LABEL = 500, 100
TEXTS = 5_000
"""Texts that wait for their labels, and the other way round."""
MOST_LABELS = 500
BUCKETS = 240
BINS, FINE = 10, 200
"""Of probabilities: as they are shown, and as they are counted."""
MINUTE = 60_000


class Texts:
    """Labels so far."""

    def __init__(self) -> None:
        self.newest: deque[dict[str, Any]] = deque(maxlen=NEWEST)
        self.by_label: dict[str, deque[dict[str, Any]]] = {}
        self.counts = Counter[str]()
        self.sums: dict[str, float] = {}
        """Of probabilities."""
        self.over_time: dict[int, Counter[str]] = {}
        self.bucket = MINUTE
        self.confidence: dict[str, npt.NDArray[np.int64]] = {}
        """(FINE,) by label: counts of answers by their probability."""
        self._last: int | None = None
        """The newest answer's time."""
        self._texts: OrderedDict[tuple[int, int], str] = OrderedDict()
        self._waiting: OrderedDict[tuple[int, int], dict[str, Any]] = OrderedDict()

    def add_text(self, record: Record, text: str) -> None:
        """A text of the input."""
        place = record.partition, record.offset
        if answer := self._waiting.pop(place, None):
            answer["text"] = text[:1000]
            return
        self._texts[place] = text[:1000]
        if len(self._texts) > TEXTS:
            self._texts.popitem(last=False)

    def add_label(self, record: Record, out: Output, *, newest: bool) -> None:
        """An answer: after all others, or (not `newest`) before them."""
        label, probability = out.label or "", out.probability or 0.0
        label = label if label in self.counts or len(self.counts) < MOST_LABELS else "(others)"
        answer: dict[str, Any] = {"id": out.id, "ts": record.timestamp, "label": label}
        answer |= {"probability": probability, "model": out.model, "text": None}
        headers = read_headers(record.headers)
        if origin := parse_origin(headers.get(INPUT, ""), headers.get(OFFSETS, "")):
            place = origin.partition, origin.last
            if (text := self._texts.pop(place, None)) is not None:
                answer["text"] = text
            else:
                self._waiting[place] = answer
                if len(self._waiting) > TEXTS:
                    self._waiting.popitem(last=False)
        for kept in (self.newest, self.by_label.setdefault(label, deque(maxlen=BY_LABEL))):
            if newest:
                kept.append(answer)
            elif len(kept) < (kept.maxlen or 0):
                kept.appendleft(answer)
        self.counts[label] += 1
        self.sums[label] = self.sums.get(label, 0.0) + probability
        sure = self.confidence.setdefault(label, np.zeros(FINE, np.int64))
        sure[max(0, min(FINE - 1, int(probability * FINE)))] += 1
        self._last = record.timestamp if self._last is None else max(record.timestamp, self._last)
        self._count_time(record.timestamp, label)

    def _count_time(self, ts: int, label: str) -> None:
        self.over_time.setdefault(ts - ts % self.bucket, Counter())[label] += 1
        while len(self.over_time) > BUCKETS and self.bucket < 2**50:
            self.bucket *= 2
            wider: dict[int, Counter[str]] = {}
            for start, counts in self.over_time.items():
                wider.setdefault(start - start % self.bucket, Counter()).update(counts)
            self.over_time = wider

    def view(self, label: str | None, limit: int) -> dict[str, Any]:
        """As the page shows it, of one label if it is given; shares are of all labels in any case."""
        newest = list(self.newest if label is None else self.by_label.get(label, ()))[-limit:][::-1]
        total = max(1, self.counts.total())
        labels = [
            {"label": name, "count": count, "share": count / total, "mean_probability": self.sums[name] / count}
            for name, count in self.counts.most_common()
        ]
        return {
            "newest": [dict(each) for each in newest],
            "labels": labels,
            "over_time": self._view_over_time(label),
            "confidence": self._view_confidence(label),
        }

    def _view_over_time(self, label: str | None) -> dict[str, Any]:
        """Counts and shares by time; the last time is `partial` while it may get more."""
        shown = [name for name, _ in self.counts.most_common(20)] if label is None else [label]
        times = sorted(self.over_time)
        totals = [self.over_time[at].total() for at in times]
        counts = {name: [self.over_time[at][name] for at in times] for name in shown}
        shares = {name: [one / total for one, total in zip(counts[name], totals, strict=True)] for name in shown}
        partial = bool(times) and (self._last or 0) < times[-1] + self.bucket - 1
        return {"ts": times, "counts": counts, "shares": shares, "partial": partial, "bucket": self.bucket}

    def _view_confidence(self, label: str | None) -> dict[str, Any]:
        """Counts by probability, from that of a guess on."""
        fine = np.zeros(FINE, np.int64)
        for name, counts in self.confidence.items():
            fine += counts if label in (None, name) else 0
        least = int(np.flatnonzero(fine)[0]) / FINE if fine.any() else 1.0
        bounds = np.linspace(min(1 / max(2, len(self.counts)), least), 1.0, BINS + 1)
        middles = (np.arange(FINE) + 0.5) / FINE
        counts, _ = np.histogram(np.maximum(middles, bounds[0]), bounds, weights=fine)
        return {"bounds": bounds.tolist(), "counts": [round(each) for each in counts.tolist()]}
