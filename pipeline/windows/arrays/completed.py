"""From events that become steps to the windows that they complete.

M events   B windows   S steps of a window   F features
"""

from array import array
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from pipeline.windows.arrays.buffers import Added, StepBuffers
from pipeline.windows.arrays.decided import Events, Steps
from pipeline.windows.batch import Windows
from pipeline.windows.grid import Bools, Floats, Ints, WindowConfig

KEPT = 4096
"""Most events that are kept until they are added at once."""


class _Batch(NamedTuple):
    """B windows; what precedes a series' own steps is still to be set."""

    x: Floats
    observed: Bools
    numbers: Ints
    """(6,B): step, ts, elapsed, offset, length, first_offset."""
    series: Sequence[str]


class CompletedWindows:
    """Extends the steps of a store's series, and keeps the windows of `least` or more steps of their own for `take`."""

    def __init__(self, config: WindowConfig, least: int) -> None:
        self._grid, self._seq_len, self._width, self._least = config.grid, config.seq_len, len(config.features), least
        self.buffers = StepBuffers(self._seq_len, self._width, timed=self._grid is None)
        """The steps; those of `add` are there after `flush`."""
        self._numbers, self._values, self._names = array("q"), array("d"), list[str]()
        self._batches: list[_Batch] = []

    def add(self, name: str, values: Sequence[float], numbers: tuple[int, ...]) -> None:
        """Add an event, with these numbers: row, ts, offset, filled, step, elapsed, run, first_offset."""
        self._names.append(name)
        self._values.extend(values)
        self._numbers.extend(numbers)
        if len(self._names) == KEPT:
            self.flush()

    def flush(self) -> None:
        """Extend the steps by the events that were added."""
        if not (names := self._names):
            return
        values = np.frombuffer(self._values).reshape(-1, self._width)
        row, ts, offset, *numbers = np.frombuffer(self._numbers, np.int64).reshape(len(names), -1).T
        self._numbers, self._values, self._names = array("q"), array("d"), []
        events = Events.of(row, ts, offset, ts)
        self.add_many(Steps(events, *(column[events.arrival] for column in numbers)), names, values)

    def add_many(self, steps: Steps, names: Sequence[str], values: Floats) -> None:
        """Add many; names and values (.,F) are in order of arrival, and of others too."""
        events = steps.events
        if not len(events.row):
            return
        done = np.flatnonzero(steps.run >= self._least)
        place = np.full(len(names), -1)
        place[events.arrival[done]] = done
        ends = place[place >= 0]
        x, observed = self.buffers.extend(Added(events.row, values[events.arrival], steps.filled, events.ts), ends)
        if len(ends):
            length = np.minimum(steps.run, self._seq_len)
            columns = (steps.step, events.ts, steps.elapsed, events.offset, length, steps.first_offset)
            series = names if len(ends) == len(names) else [names[at] for at in events.arrival[ends].tolist()]
            self._batches.append(_Batch(x, observed, np.array([column[ends] for column in columns]), series))

    def count(self) -> int:
        """How many windows the next `take` has."""
        self.flush()
        return sum(len(batch.series) for batch in self._batches)

    def take(self) -> Windows:
        """The windows completed since the last take, in order of completion."""
        self.flush()
        batches, self._batches = self._batches, []
        if len(batches) == 1:
            ((x, observed, numbers, names),) = batches
        else:
            none = (0, self._seq_len, self._width)
            empty = _Batch(np.empty(none), np.empty(none, np.bool_), np.empty((6, 0), np.int64), [])
            columns = list(zip(empty, *batches, strict=True))
            x, observed, numbers = np.concatenate(columns[0]), np.concatenate(columns[1]), np.hstack(columns[2])
            names = list(chain.from_iterable(columns[3]))
        steps, times, elapsed, offsets, lengths, first_offset = numbers
        if self._least < self._seq_len:
            missing = self._seq_len - lengths
            padding = np.arange(self._seq_len) < missing[:, None]
            x[padding] = np.repeat(x[np.arange(len(x)), missing], missing, axis=0)
            observed[padding] = False
        start, spacing = (times + elapsed, elapsed) if self._grid is None else self._grid.after(steps, times)
        return Windows(x, observed, steps, times, start, spacing, list(names), offsets, lengths, first_offset)
