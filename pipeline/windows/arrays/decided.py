"""What WindowStore.push decides of an event, decided of many at once: which become steps, and their series' new state.

M events, those of a series together and in order   G series   `at` M or G places in arrays of M
"""

from dataclasses import dataclass

import numpy as np

from pipeline.windows.arrays.table import Columns, Table
from pipeline.windows.grid import Bools, Counts, Ints, WindowConfig
from pipeline.windows.reorder import BEFORE_ALL
from pipeline.windows.silence import FACTOR, LEARNED
from pipeline.windows.steps import Grid

LARGEST = 1 << 62


class Irregular(Exception):
    """The event with the number `arrival` is to be decided by itself, after all before it."""

    def __init__(self, arrival: int) -> None:
        super().__init__(arrival)
        self.arrival = arrival


@dataclass(slots=True)
class Events:
    """Some events, sorted by their series' rows."""

    arrival: Ints
    """(M,): their numbers in order of arrival."""
    row: Ints
    """(M,)."""
    ts: Ints
    offset: Ints
    stream_time: Ints
    """(M,): their partition's, with them."""
    first: Bools
    """(M,): whether each is its series' first."""
    starts: Ints
    """(G,): where each series begins."""
    series: Ints
    """(M,): which of the G each is of."""

    @classmethod
    def of(cls, row: Ints, ts: Ints, offset: Ints, stream_time: Ints) -> "Events":
        """Events in order of arrival."""
        small = row.astype(np.uint16) if row.max(initial=0) < 1 << 16 else row  # sorted several times faster
        order = np.argsort(small, kind="stable")
        return cls._sorted(order, row[order], ts[order], offset[order], stream_time[order])

    @classmethod
    def _sorted(cls, arrival: Ints, row: Ints, ts: Ints, offset: Ints, stream_time: Ints) -> "Events":
        first = np.ones(len(row), np.bool_)
        first[1:] = row[1:] != row[:-1]
        return cls(arrival, row, ts, offset, stream_time, first, np.flatnonzero(first), np.cumsum(first) - 1)

    def chosen(self, taken: Bools) -> "Events":
        """Those that are taken."""
        columns = (self.arrival, self.row, self.ts, self.offset, self.stream_time)
        return self._sorted(*(column[taken] for column in columns))

    @property
    def rows(self) -> Ints:
        """(G,): the rows of the series."""
        return self.row[self.starts]

    @property
    def last(self) -> Ints:
        """(G,): where each series has its last event."""
        return np.append(self.starts[1:], len(self.row))[: len(self.starts)] - 1

    def highest_before(self, values: Ints, earlier: Ints) -> Ints:
        """(M,): of each series the highest of the values (M,) before each event, at least its `earlier` (G,) one."""
        low = min(int(values.min()), int(earlier.min()))
        span = max(int(values.max()), int(earlier.max())) - low + 1
        if span * len(earlier) > LARGEST:
            raise Irregular(0)
        lifted = values - low + self.series * span
        before = np.empty_like(lifted)
        before[1:] = lifted[:-1]
        before[self.starts] = earlier - low + np.arange(len(earlier)) * span
        return np.maximum.accumulate(before) + low - self.series * span


@dataclass(slots=True)
class Steps:
    """Events that become steps, and what their series' windows are with each."""

    events: Events
    filled: Ints
    """(M,): how many steps are filled before each."""
    step: Ints
    """(M,): its number."""
    elapsed: Ints
    """(M,): since its series' last step."""
    run: Ints
    """(M,): how many steps there are since the window was last empty, with it."""
    first_offset: Ints
    """(M,): see SeriesState."""


class Decided:
    """The decisions of some events; nothing is changed until `write`. Raises Irregular."""

    def __init__(self, columns: Columns, config: WindowConfig, grid: Grid | None, events: Events) -> None:
        self._columns, self._seq_len, self._max_gap, self._grid = columns, config.seq_len, config.max_gap, grid
        begun = columns.run[events.rows] > 0
        if grid is None and (columns.ts[events.rows][~begun] != BEFORE_ALL).any():
            raise Irregular(0)
        place = events.ts if grid is None else grid.index(events.ts)
        before = self._before(events, place, begun)
        taken = place > before
        self._drop(events, place - before, taken)
        if not taken.all():
            events, place, before = events.chosen(taken), place[taken], before[taken]
            begun = columns.run[events.rows] > 0
        self.learned: list[tuple[int, int]] = []
        """When series are silent of which enough has been learnt now, and their rows."""
        self._watched: tuple[Ints, Ints] | None = None
        self.steps = self._extended(events, place, place - before, begun)
        self._set_offsets()

    def _before(self, events: Events, place: Ints, begun: Bools) -> Ints:
        """(M,): the place of each event's series before it."""
        kept = (self._columns.ts if self._grid is None else self._columns.step)[events.rows]
        least = min(place.min(), kept[begun].min(initial=LARGEST))
        kept = np.where(begun, kept, least - 1)
        before = np.empty_like(place)
        before[1:] = place[:-1]
        before[events.starts] = kept
        return before if (place > before).all() else events.highest_before(place, kept)

    def _drop(self, events: Events, ahead: Ints, taken: Bools) -> None:
        """Tell apart events that are not after their series' last step."""
        self.unused, self._duplicates = events.arrival[~taken], int(np.count_nonzero(ahead == 0))
        self.old = events.arrival[ahead <= -self._seq_len]
        if self._grid is None and len(late := events.arrival[ahead < 0]):
            raise Irregular(int(late.min()))

    def _extended(self, events: Events, place: Ints, ahead: Ints, begun: Bools) -> Steps:
        columns, rows = self._columns, events.rows
        opens = np.zeros(len(place), np.bool_)
        opens[events.starts] = ~begun
        gap = np.zeros(len(place), np.bool_) if self._grid is None else (ahead > self._max_gap + 1) & ~opens
        self._resets = int(np.count_nonzero(gap))
        self._begins = opens | gap
        filled = np.where(self._begins, 0, ahead - 1) if self._grid else np.zeros(len(place), np.int64)
        through = np.cumsum(filled + 1)
        self._stretch = np.maximum.accumulate(np.where(self._begins | events.first, np.arange(len(place)), 0))
        run = through - (through - filled - 1)[self._stretch]
        head = ~self._begins[self._stretch]
        run += np.where(head, columns.run[rows][events.series], 0)
        number = np.arange(len(place)) - events.starts[events.series] + 1
        step = place if self._grid else columns.step[rows][events.series] + number
        earlier = np.empty_like(events.ts)
        earlier[1:] = events.ts[:-1]
        earlier[events.starts] = columns.ts[rows]
        return Steps(events, filled, step, events.ts - earlier, run, np.empty_like(step))

    def _set_offsets(self) -> None:
        """Follow the offsets of each stretch without longer gaps: once in S steps they move on."""
        steps, columns, size = self.steps, self._columns, len(self._stretch)
        events, before = steps.events, steps.run - 1
        starts = np.flatnonzero(self._stretch == np.arange(size))
        number = np.cumsum(self._stretch == np.arange(size)) - 1
        begins, stops = self._begins[starts], np.append(starts[1:], size)[: len(starts)]
        rows = events.row[starts]
        later = np.where(begins, events.offset[starts], columns.later[rows])
        due = np.where(begins, 0, columns.later_run[rows]) + self._seq_len
        moved, first = np.where(self._begins, np.arange(size), -1), np.where(self._begins, events.offset, 0)
        span = int(before.max(initial=0)) + self._seq_len + 1
        reached = np.flatnonzero(before[stops - 1] >= due)
        key = before + number * span
        while len(reached):
            at = np.searchsorted(key, due[reached] + reached * span)
            moved[at], first[at] = at, later[reached]
            later[reached], due[reached] = events.offset[at], before[at] + self._seq_len
            reached = reached[before[stops[reached] - 1] >= due[reached]]
        moved = np.maximum(np.maximum.accumulate(moved), self._stretch - 1)
        own = moved >= self._stretch
        steps.first_offset = np.where(own, first[moved], columns.first_offset[events.row])
        last = number[events.last]
        self._later, self._later_run = later[last], due[last] - self._seq_len

    def watch(self, stream_time: Ints) -> None:
        """Learn how long is usual between steps. No series must fall silent up to the last of the stream times (N,)."""
        steps, columns, events = self.steps, self._columns, self.steps.events
        if not len(events.row):
            return
        rows, number = events.rows, np.arange(len(events.row)) - events.starts[events.series]
        had, longest = columns.steps[rows].astype(np.int64)[events.series] + number, columns.longest[rows]
        wait = np.where(had > 0, events.stream_time - (events.ts - steps.elapsed), 0)
        usual = events.highest_before(wait, longest)
        ended = (had >= LEARNED) & (wait > FACTOR * usual)
        if ended.any():
            raise Irregular(int(events.arrival[ended].min()))
        usual, last = np.maximum(usual, wait), events.last
        silent = (events.ts + FACTOR * usual + 1)[last][had[last] + 1 >= LEARNED]
        if silent.min(initial=LARGEST) <= stream_time[-1]:
            raise Irregular(int(np.searchsorted(stream_time, silent.min())))
        learned = np.flatnonzero(had == LEARNED - 1)
        due = events.stream_time[learned] + FACTOR * usual[learned] + 1
        self.learned = [*zip(due.tolist(), events.row[learned].tolist(), strict=True)]
        self._watched = np.minimum(had[last] + 1, LEARNED), usual[last]

    def write(self, table: Table, counts: Counts) -> None:
        """Set the series' new state, note that they have changed, and count the events."""
        columns, steps, events = table.columns, self.steps, self.steps.events
        rows, last = events.rows, events.last
        columns.ts[rows], columns.step[rows], columns.run[rows] = events.ts[last], steps.step[last], steps.run[last]
        columns.first_offset[rows] = steps.first_offset[last]
        columns.later[rows], columns.later_run[rows] = self._later, self._later_run
        if self._watched:
            columns.steps[rows], columns.longest[rows] = self._watched
        table.change_many(rows, events.arrival[events.starts])
        counts.accepted += len(events.row)
        counts.filled += int(steps.filled.sum())
        counts.reset += self._resets
        counts.duplicate += self._duplicates
        counts.late += len(self.unused) - self._duplicates
