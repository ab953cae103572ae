"""How much a service takes on at once: with any model, a batch of records is committed within a given time.

A transaction that stays open for longer than its time-out is aborted by its coordinator, and a consumer that polls too
rarely is removed from its group; either ends the service, and again after each restart.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from pipeline.formats.columnar.ipc import Ints, count_rows
from pipeline.log import Record
from pipeline.log.limits import COLUMNAR

GROWTH = 8
FEW = 256
"""Windows that do not take long, of a model of which nothing is known yet."""


class Interval:
    """Due once per so many seconds; first after the first interval."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def due(self) -> bool:
        """Whether it is due; a True starts the next interval."""
        due = time.monotonic() - self._last >= self._seconds
        if due:
            self._last = time.monotonic()
        return due


class Pace:
    """Learns from one batch how large the next one may be."""

    def __init__(self, most: int, seconds: float) -> None:
        """`most` records in a poll, and about `seconds` from poll to commit. The first poll takes one record."""
        self._most, self._seconds = most, seconds
        self._per_window = seconds / FEW / 2
        self.records = 1
        """Most records of the next poll."""

    @contextmanager
    def batch(self, records: int) -> Iterator[None]:
        """Measures a batch of polled records, from poll to commit."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        if seconds > self._seconds:
            self.records = max(1, int(records * self._seconds / seconds / 2))
        elif seconds < self._seconds / GROWTH / 2 and records >= self.records:
            self.records = min(self._most, self.records * GROWTH)

    @contextmanager
    def inference(self, windows: int) -> Iterator[None]:
        """Measures the forecasts for so many windows."""
        began = time.monotonic()
        yield
        if windows:
            self._per_window = (time.monotonic() - began) / windows

    def is_slow(self, windows: int) -> bool:
        """Whether forecasts for so many windows are likely to take too long to wait for in an open transaction."""
        return windows * self._per_window > self._seconds / 2


def micro_batches(
    polled: Mapping[int, Sequence[Record]], max_records: int
) -> Iterator[list[tuple[int, Sequence[Record]]]]:
    """A poll's records, as (partition, records) pairs of up to `max_records` in all, or of so many rows of columnar
    ones, of which each is in one.

    Each has its share of all partitions, in their order: the more series are computed together, the less each takes.
    """
    sizes = [len(records) for records in polled.values()]
    shares = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    turns = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(shares, kind="stable")]
    done = np.zeros(len(sizes), np.int64)
    for part in _bounded(turns, polled.values(), max_records):
        until = done + np.bincount(part, minlength=len(sizes))
        parts = zip(polled.items(), done.tolist(), until.tolist(), strict=True)
        yield [(partition, records[start:stop]) for (partition, records), start, stop in parts if start < stop]
        done = until


def _bounded(turns: Ints, polled: Iterable[Sequence[Record]], most: int) -> Sequence[Ints]:
    """Whose turn it is, in parts of up to `most` events."""
    values = [record.value for records in polled for record in records]
    weights = np.array([count_rows(value) if value and value[:4] == COLUMNAR else 1 for value in values])
    if weights.max(initial=1) == 1:
        return [turns[first : first + most] for first in range(0, len(turns), most)]
    before = np.empty(len(turns), np.int64)
    before[np.argsort(turns, kind="stable")] = weights
    before = np.cumsum(before) - before
    return np.split(turns, 1 + np.flatnonzero(np.diff(before // most)))
