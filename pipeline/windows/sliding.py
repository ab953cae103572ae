"""Sliding windows of a history, in batch: bit for bit those that a WindowStore completes.

B windows   S steps of a window   F features   T steps of all series, one series after another   N events
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import MAX_FLOAT32, Event
from pipeline.windows.grid import Bools, Counts, Floats, Ints, Value, WindowConfig, interpolate, view
from pipeline.windows.reorder import BEFORE_ALL, ReorderBuffer
from tidecast.errors import DataError, ShapeError

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class SlidingWindows:
    """All windows of a history, as views of one array, which needs memory for the steps only, not S times that.

    Series follow each other, each in time order. A window is identified by the row of its last step.
    """

    values: Floats
    """(T,F)."""
    observed: Bools
    """(T,F): False where a gap was filled."""
    step: Ints
    """(T,): on the grid, or counted from 0 in each series."""
    gridded: bool
    """Whether steps are on a grid, the same for all series."""
    ts: Ints
    """(T,): the event's time, or the grid's where filled, epoch milliseconds."""
    series: Codes
    """(T,): index into names."""
    names: tuple[str, ...]
    """The series, in the order of their first events."""
    run: Codes
    """(T,): the number of the contiguous run that the step belongs to."""
    ends: Ints
    """(N,): the row of each window's last step; the window is rows ends-S+1 to ends, all of one run."""
    seq_len: int
    """S."""
    counts: Counts
    """Counts of the events used and dropped."""

    def __len__(self) -> int:
        return len(self.ends)

    def x(self, ends: Ints) -> Floats:
        """A copy (B,S,F) of the windows that end in these rows."""
        return _gather(self.values, ends - self.seq_len + 1, self.seq_len)

    def x_observed(self, ends: Ints) -> Bools:
        """Which of `x` was observed, (B,S,F)."""
        return _gather(self.observed, ends - self.seq_len + 1, self.seq_len)


def sliding_windows(
    series: Sequence[str],
    ts: Ints,
    values: npt.NDArray[np.floating],
    config: WindowConfig,
    partition: Ints | None = None,
) -> SlidingWindows:
    """The windows that a WindowStore per partition would complete from these N events.

    `ts` (N,) is in epoch milliseconds, `values` (N,F) in the order of the features; rows in (partition, offset) order.
    `partition` (N,) has an effect only where events are buffered; None: all are of one. No series spans partitions.
    Raises ShapeError for other shapes, DataError for values that do not fit in a float32.
    """
    if values.shape != (len(series), len(config.features)) or ts.shape != (len(series),):
        raise ShapeError(f"{len(series)} series, ts {ts.shape}, values {values.shape}, features {config.features}")
    if not (np.abs(values) <= MAX_FLOAT32).all():
        raise DataError("values: some do not fit in a float32")
    counts = Counts()
    numbers = {name: number for number, name in enumerate(dict.fromkeys(series))}
    if config.reorders:
        series, ts, values = _released(series, ts, values, config, partition, counts)
    codes = np.fromiter(map(numbers.__getitem__, series), np.int32, len(series))
    order = np.argsort(codes, kind="stable")
    order = order[_accepted(codes[order], _places(ts[order], config), counts)]
    return _laid_out(tuple(numbers), codes[order], ts[order], values[order].astype(np.float64), config, counts)


def _released(
    series: Sequence[str],
    ts: Ints,
    values: npt.NDArray[np.floating],
    config: WindowConfig,
    partition: Ints | None,
    counts: Counts,
) -> tuple[list[str], Ints, npt.NDArray[np.float64]]:
    """The steps that a ReorderBuffer per partition releases of these events, those of a series in order of time."""
    steps: list[Event] = []
    partitions = np.zeros(len(series), np.int64) if partition is None else partition
    rows = zip(series, ts.tolist(), values.tolist(), _places(ts, config).tolist(), strict=True)
    for _, part in groupby(zip(partitions.tolist(), rows, strict=True), key=itemgetter(0)):
        steps += _steps((row for _, row in part), config, counts)
    laid = np.array([step.values for step in steps], np.float64).reshape(len(steps), len(config.features))
    return [step.series for step in steps], np.array([step.ts for step in steps], np.int64), laid


def _steps(rows: Iterable[tuple[str, int, list[float], int]], config: WindowConfig, counts: Counts) -> Iterator[Event]:
    """The steps that one partition's events release; those still pending at the end are left out."""
    buffer, stream_time, latest = ReorderBuffer(config), BEFORE_ALL, dict[str, int]()
    for series, ts, values, place in rows:
        stream_time = max(stream_time, ts)
        for step in buffer.release(stream_time):  # before the event is added: it may begin the next step
            latest[step.series] = step.ts
            yield step
        last = latest.get(series)
        ahead = 1 if last is None else place - (last if config.grid is None else config.grid.index(last))
        if ahead < 0 or (ahead == 0 and config.aggregate):
            counts.late += 1
            continue
        try:
            counts.duplicate += ahead == 0 or not buffer.add(Event(series, ts, tuple(values)), place)
        except InvalidEvent:
            continue  # a dead letter in the stream
        for step in buffer.release(stream_time):
            latest[step.series] = step.ts
            yield step


def _places(ts: Ints, config: WindowConfig) -> Ints:
    """The order of a series' events: their steps, or without a grid their times."""
    return ts if config.grid is None else config.grid.index(ts)


def _accepted(codes: Codes, places: Ints, counts: Counts) -> Ints:
    """Of events sorted by series: those later than all earlier ones of their series."""
    first = _first(codes)
    highest = places.copy()
    for part in np.split(highest, np.flatnonzero(first)[1:]):
        np.maximum.accumulate(part, out=part)
    duplicate = int((~first[1:] & (places[1:] == highest[:-1])).sum())
    first[1:] |= places[1:] > highest[:-1]
    counts.accepted = int(first.sum())
    counts.duplicate += duplicate
    counts.late += len(codes) - counts.accepted - duplicate
    return np.flatnonzero(first)


def _laid_out(
    names: tuple[str, ...],
    codes: Codes,
    ts: Ints,
    values: Floats,
    config: WindowConfig,
    counts: Counts,
) -> SlidingWindows:
    """Accepted events, series after series, with gaps filled."""
    first, rows = _first(codes), np.arange(len(codes))
    step = rows - np.maximum.accumulate(rows * first) if config.grid is None else config.grid.index(ts)
    ahead = np.diff(step, prepend=step[:1])
    begins = first | (ahead - 1 > config.max_gap)
    ahead[begins] = 1
    last = np.cumsum(ahead) - 1
    event = np.repeat(rows, ahead)
    back = last[event] - np.arange(len(event))
    filled = np.flatnonzero(back)
    to, number = event[filled], (ahead[event] - back)[filled, None]
    steps, times, laid = step[event] - back, ts[event], values[event]
    laid[filled] = interpolate(values[to - 1], values[to], number, ahead[to, None])
    if config.grid is not None:
        times[filled] = config.grid.time(steps[filled])
    run = np.cumsum(begins, dtype=np.int32) - 1
    counts.filled, counts.reset = len(filled), int((begins & ~first).sum())
    return SlidingWindows(
        values=laid,
        observed=np.repeat((back == 0)[:, None], values.shape[1], axis=1),
        step=steps,
        gridded=config.grid is not None,
        ts=times,
        series=codes[event],
        names=names,
        run=run[event],
        ends=last[last - last[begins][run] >= config.seq_len - 1],
        seq_len=config.seq_len,
        counts=counts,
    )


def _first(codes: Codes) -> Bools:
    """Marks the first event of each series."""
    first = np.ones(len(codes), np.bool_)
    first[1:] = codes[1:] != codes[:-1]
    return first


def _gather(steps: npt.NDArray[Value], starts: Ints, length: int) -> npt.NDArray[Value]:
    shape = (len(starts), length, steps.shape[1])
    return view(steps, length)[starts].reshape(shape) if len(starts) else np.empty(shape, steps.dtype)
