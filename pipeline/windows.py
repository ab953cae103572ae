"""Windows: the last S steps of a series. Streaming (WindowStore) and batch (sliding_windows) give the same bits.

Without a freq each event is a step, if it is later than the series' last one. With a freq events are placed on a grid:

- the next step extends the window at once;
- a hole of up to max_gap steps is filled by straight lines when the next real step comes; a filled step is not
  `observed`, and never ends a window;
- a longer hole empties the window;
- an event at the last step is a duplicate, one before it is late: both are counted and not used.

    B windows   S steps of a window   F features
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.events import Event
from pipeline.grid import Bools, Counts, Floats, Grid, Ints, WindowConfig, interpolate, view
from pipeline.sliding import SlidingWindows, sliding_windows

__all__ = [
    "Counts",
    "Grid",
    "SeriesState",
    "SlidingWindows",
    "WindowConfig",
    "WindowStore",
    "Windows",
    "sliding_windows",
]

SLACK = 64
"""Steps that a series' row in the store has beyond seq_len: it is shifted back once in so many."""
BEFORE_ALL = -(2**63)


@dataclass(frozen=True, slots=True, eq=False)
class SeriesState:
    """All that the next event of a series depends on: its last n steps, 1 <= n <= S."""

    values: Floats
    """(n,F)."""
    observed: Bools
    """(n,F): False where a hole was filled."""
    step: int
    """The last step's number: on the grid, or counted from 0."""
    ts: int
    """The last accepted event's time, epoch milliseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """B complete windows, in the order in which events completed them."""

    x: Floats
    """(B,S,F)."""
    observed: Bools
    """(B,S,F): False where a hole was filled."""
    step: Ints
    """(B,): the number of the last step: on the grid, or counted from 0."""
    ts: Ints
    """(B,): the time of the last step's event, epoch milliseconds."""
    start: Ints
    """(B,): the time of the first step after the window, epoch milliseconds."""
    spacing: Ints
    """(B,): how long that step is, milliseconds: by the grid, or as long as from the event before."""
    series: list[str]
    """(B,)."""
    tag: Ints
    """(B,): what the caller pushed with the event that completed the window."""

    def __len__(self) -> int:
        return len(self.series)

    @property
    def keys(self) -> list[bytes]:
        """(B,): what their forecasts are keyed by."""
        return [series.encode() for series in self.series]

    def arrays(self, start: int, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """A model's named inputs for some of the windows."""
        part = slice(start, stop)
        return {"x": self.x[part], "observed": self.observed[part], "step": self.step[part]}

    @staticmethod
    def concat(parts: Sequence["Windows"]) -> "Windows":
        """The windows of one or more parts, one part after the other."""
        return Windows(
            x=np.concatenate([part.x for part in parts]),
            observed=np.concatenate([part.observed for part in parts]),
            step=np.concatenate([part.step for part in parts]),
            ts=np.concatenate([part.ts for part in parts]),
            start=np.concatenate([part.start for part in parts]),
            spacing=np.concatenate([part.spacing for part in parts]),
            series=[series for part in parts for series in part.series],
            tag=np.concatenate([part.tag for part in parts]),
        )


@dataclass(slots=True)
class _Series:
    """One series' place in the store. Rows of `_steps` are counted through all series."""

    end: int
    """One past its newest step."""
    stop: int
    """One past its last place."""
    run: int = 0
    """Steps since its window was empty."""
    step: int = -1
    ts: int = BEFORE_ALL


class WindowStore:
    """The windows of one input partition's series, extended event by event.

    A series takes (seq_len + SLACK) * F * 5 bytes of arrays (`nbytes` is what is reserved, for up to twice the series)
    and about 300 bytes of Python objects. `counts` are running totals.
    """

    def __init__(self, config: WindowConfig) -> None:
        self.config = config
        self.counts = Counts()
        self._grid = config.grid
        self._series: dict[str, _Series] = {}
        self._changed: dict[str, None] = {}
        self._pending: list[tuple[int, int, int, int, int, str]] = []
        self._gathered: list[tuple[Floats, Bools]] = []
        self._in_gathered = 0
        self._seq_len, self._width = config.seq_len, len(config.features)
        self._length = config.seq_len + SLACK
        self._values: Floats = np.zeros((0, self._width), np.float32)
        self._observed: Bools = np.zeros((0, self._width), np.bool_)
        nothing = (0, self._seq_len, self._width)
        self._nothing: tuple[Floats, Bools] = np.empty(nothing, np.float32), np.empty(nothing, np.bool_)
        self._reserve(16)

    def __len__(self) -> int:
        return len(self._series)

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self._values.nbytes + self._observed.nbytes

    def push(self, event: Event, tag: int = 0) -> None:
        """Extend the event's series. A window that this completes is kept for `take`, with the caller's `tag`.

        Raises ValueError if the event has not as many values as there are features.
        """
        name, ts, values = event
        if len(values) != self._width:
            raise ValueError(f"{name}: {len(values)} values for the features {self.config.features}")
        series = self._series.get(name) or self._add(name)
        grid = self._grid
        ahead = min(ts - series.ts, 1) if grid is None else grid.index(ts) - series.step
        if ahead != 1 and not self._bridge(series, ahead, values):
            return
        self._write(series, values, True)
        elapsed = ts - series.ts
        series.ts = ts
        series.step += ahead
        self.counts.accepted += 1
        self._changed[name] = None
        if series.run >= self._seq_len:
            self._pending.append((series.end - self._seq_len, series.step, ts, elapsed, tag, name))

    def take(self) -> Windows:
        """The windows completed since the last take, in the order of their events."""
        self._gather()
        x, observed = (np.concatenate(parts) for parts in zip(self._nothing, *self._gathered, strict=True))
        _, step, ts, elapsed, tag, series = zip(*self._pending, strict=True) if self._pending else ((),) * 6
        steps, times, tags = (np.array(numbers, np.int64) for numbers in (step, ts, tag))
        if self._grid is None:
            spacing = np.array(elapsed, np.int64)
            start = times + spacing
        else:
            start, spacing = self._grid.after(steps, times)
        self._pending, self._gathered, self._in_gathered = [], [], 0
        return Windows(x, observed, steps, times, start, spacing, list(series), tags)

    def state(self, series: str) -> SeriesState:
        """A copy of a series' state. Raises KeyError for one that is not here."""
        found = self._series[series]
        kept = slice(found.end - min(found.run, self._seq_len), found.end)
        return SeriesState(self._values[kept].copy(), self._observed[kept].copy(), found.step, found.ts)

    def restore(self, series: str, state: SeriesState) -> None:
        """Put a series, new or not, into a state. It does not count as changed."""
        self._gather()
        found = self._series.get(series) or self._add(series)
        found.run, found.step, found.ts = len(state.values), state.step, state.ts
        start = found.stop - self._length
        found.end = start + found.run
        self._values[start : found.end] = state.values
        self._observed[start : found.end] = state.observed

    def dirty(self) -> list[str]:
        """The series that changed since the last `clean`, in the order of their first change."""
        return list(self._changed)

    def clean(self) -> None:
        """Count every series as unchanged."""
        self._changed.clear()

    def _bridge(self, series: _Series, ahead: int, values: Sequence[float]) -> bool:
        """Whether an event that is not the series' next step extends it; a hole before it is dealt with first."""
        if not series.run:
            return True
        if ahead <= 0:
            if ahead:
                self.counts.late += 1
            else:
                self.counts.duplicate += 1
            return False
        if ahead - 1 > self.config.max_gap:
            series.run = 0
            self.counts.reset += 1
            return True
        after = np.array(values, np.float32)
        for step in interpolate(self._values[series.end - 1], after, np.arange(1, ahead)[:, None], ahead).tolist():
            self._write(series, step, False)
        self.counts.filled += ahead - 1
        return True

    def _write(self, series: _Series, values: Sequence[float], observed: bool) -> None:
        if series.end == series.stop:
            self._shift(series)
        for at, value in enumerate(values, series.end * self._width):
            self._values_memory[at] = value
            self._observed_memory[at] = observed
        series.end += 1
        series.run += 1

    def _shift(self, series: _Series) -> None:
        """Move a full row's last S-1 steps to its beginning. What is pending lies there, so it is gathered first."""
        self._gather()
        kept = self._seq_len - 1
        start = series.stop - self._length
        for array in (self._values, self._observed):
            array[start : start + kept] = array[series.stop - kept : series.stop]
        series.end = start + kept

    def _gather(self) -> None:
        if self._in_gathered == len(self._pending):
            return
        starts = np.array([pending[0] for pending in self._pending[self._in_gathered :]])
        shape = (len(starts), self._seq_len, self._width)
        self._gathered.append((self._values_view[starts].reshape(shape), self._observed_view[starts].reshape(shape)))
        self._in_gathered = len(self._pending)

    def _add(self, name: str) -> _Series:
        start = len(self._series) * self._length
        if start == len(self._values):
            self._reserve(2 * len(self._series))
        series = self._series[name] = _Series(start, start + self._length)
        return series

    def _reserve(self, rows: int) -> None:
        """Make room for so many series. Memory not written to is not yet used."""
        shape = (rows * self._length, self._width)
        values, observed = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        values[: len(self._values)], observed[: len(self._observed)] = self._values, self._observed
        self._values, self._observed = values, observed
        # A memoryview writes single numbers several times faster than an array does, and rounds them alike.
        self._values_memory = values.data.cast("B").cast("f")
        self._observed_memory = observed.data.cast("B").cast("?")
        self._values_view, self._observed_view = view(values, self._seq_len), view(observed, self._seq_len)
