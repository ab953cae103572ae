"""WindowStore: the windows of a stream, each the last S steps of a series; bit for bit those of sliding_windows.

Without a freq each event is a step, if it is later than the last one. With a freq events are assigned to a grid:

- the next step extends the window at once;
- a gap of up to max_gap steps is filled by linear interpolation when the next real step arrives; a filled step is not
  `observed`, and never ends a window;
- a longer gap empties the window;
- an event at the last step is a duplicate, one before it is late: both are counted and dropped;
- one older than the whole window is invalid.

With lateness or an aggregate, events are buffered in a ReorderBuffer first. Stream time, the latest time of any event
of the partition, decides when they are released, and when an idle series expires.

    B windows   S steps of a window   F features
"""

from collections.abc import Sequence

import numpy as np

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import Event
from pipeline.windows.arrays.decided import Decided, Events, Irregular
from pipeline.windows.batch import Dropped, Windows
from pipeline.windows.grid import Floats, Ints
from pipeline.windows.reorder import BEFORE_ALL, ReorderBuffer
from pipeline.windows.silence import LEARNED, Silences
from pipeline.windows.states import SeriesStates

FEW = 64
"""So many events are added sooner one by one than at once."""
CHUNK = 5000
"""Most events that are added at once."""


class WindowStore(SeriesStates):
    """The windows of one input partition's series, extended event by event or by many at once.

    A series expires after `idle` milliseconds of stream time without an event (None: never); `limit` is the largest
    number of series, `waiting_limit` that of steps that wait for late events. If `short`, windows that are not full yet
    are completed too, from the first step on; without a grid from the second, which gives the spacing. `counts` are
    running totals. A `companion` has state of its own for each series; with one, silent series are noticed too.
    """

    def push(self, event: Event, offset: int = 0) -> bool:
        """Add an event; False if it is late or a duplicate, and so dropped.

        Windows that it completes, of any series, are kept for `take`, with the record's `offset`. Raises InvalidEvent
        for an event older than its series' whole window, and for one whose series would exceed the limit; ValueError if
        there are not as many values as features.
        """
        name, ts, values = event.series, event.ts, event.values
        if len(values) != self._width:
            raise ValueError(f"{name}: {len(values)} values for the features {self.config.features}")
        if ts > self.stream_time:
            self.stream_time = ts
            if ts >= self._next_due:
                self._run_due(offset)
        row = self._table.rows.get(name)
        if row is None:
            row = self._new_series(name, ts)
        cells, grid = self._table.cells, self._grid
        ahead = min(ts - cells.ts[row], 1) if grid is None else grid.index(ts) - cells.step[row]
        if ahead <= 0 and cells.run[row]:
            return self._drop(row, event, ahead)
        if self._reorder is not None:
            return self._buffer(self._reorder, row, event, offset)
        self._extend(row, event, ahead, offset)
        return True

    def push_many(self, names: Sequence[str], ts: Ints, values: Floats, offsets: Ints) -> Dropped:
        """Add N events in order, as `push` adds each: their series, times (N,), values (N,F) and offsets (N,).

        Of an event that `push` refuses the error is returned instead of raised. Raises ValueError for other shapes.
        """
        count = len(names)
        if ts.shape != (count,) or values.shape != (count, self._width) or offsets.shape != (count,):
            raise ValueError(f"{count} series, ts {ts.shape}, values {values.shape}, offsets {offsets.shape}")
        dropped, start = Dropped([], []), 0
        while start < count:
            stop = min(start + CHUNK, count)
            while stop - start >= FEW and self._reorder is None:
                part = slice(start, stop)
                try:
                    self._add(names[part], ts[part], values[part], offsets[part], start, dropped)
                    break
                except Irregular as irregular:
                    stop = start + irregular.arrival
            else:
                stop = min(start + FEW, count)
                part = slice(start, stop)
                self._push_each(names[part], ts[part], values[part], offsets[part], start, dropped)
            start = stop
        return dropped

    def _push_each(
        self, names: Sequence[str], ts: Ints, values: Floats, offsets: Ints, start: int, dropped: Dropped
    ) -> None:
        rows = zip(names, ts.tolist(), values.tolist(), offsets.tolist(), strict=True)
        for number, (name, at, numbers, offset) in enumerate(rows, start):
            try:
                if not self.push(Event(name, at, tuple(numbers)), offset):
                    dropped.late.append(number)
            except InvalidEvent as invalid:
                dropped.invalid.append((number, invalid.with_traceback(None)))

    def _add(self, names: Sequence[str], ts: Ints, values: Floats, offsets: Ints, start: int, dropped: Dropped) -> None:
        """Add events at once, or none of them: raises Irregular."""
        stream_time = np.maximum(np.maximum.accumulate(ts), self.stream_time)
        earlier = np.concatenate([[self.stream_time], stream_time[:-1]])
        if (due := (ts > earlier) & (ts >= self._expiries.next_due)).any():
            raise Irregular(int(due.argmax()))
        events = Events.of(self._rows(names), ts, offsets, stream_time)
        decided = Decided(self._table.columns, self.config, self._grid, events)
        if self._silences:
            self._watch(self._silences, decided, stream_time)
        self.stream_time = int(stream_time[-1])
        if self._snapshot.unread:
            self._keep(*map(self._table.names.__getitem__, decided.steps.events.rows.tolist()))
        decided.write(self._table, self.counts)
        self._windows.flush()
        self._windows.add_many(decided.steps, names, values)
        old = {number: _old(names[number], int(ts[number])) for number in decided.old.tolist()}
        dropped.invalid.extend((start + number, error) for number, error in sorted(old.items()))
        dropped.late.extend(start + number for number in sorted(decided.unused.tolist()) if number not in old)

    def _watch(self, silences: Silences, decided: Decided, stream_time: Ints) -> None:
        """Note what is usual for series. Raises Irregular if one falls silent."""
        decided.watch(stream_time)
        waiting = silences.waiting(self._series, int(stream_time[-1]))
        rows = np.array([self._table.rows[name] for _, name in waiting], np.int64)
        if not (extended := np.isin(rows, decided.steps.events.rows)).all():
            first = min(due for (due, _), is_extended in zip(waiting, extended, strict=True) if not is_extended)
            raise Irregular(int(np.searchsorted(stream_time, first)))
        for due, row in decided.learned:
            silences.schedule(due, self._table.names[row])
        self._next_due = min(self._expiries.next_due, silences.next_due)

    def _rows(self, names: Sequence[str]) -> Ints:
        """The rows of series, new ones too. Raises Irregular."""
        known = self._table.rows
        try:
            return np.fromiter(map(known.__getitem__, names), np.int64, len(names))
        except KeyError:
            new = [name for name in dict.fromkeys(names) if name not in known]
            if self._idle is not None or len(known) + len(new) > self._limit:
                raise Irregular(names.index(new[0])) from None
            for name in new:
                self._add_series(name, BEFORE_ALL)
            return np.fromiter(map(known.__getitem__, names), np.int64, len(names))

    def _extend(self, row: int, event: Event, ahead: int, offset: int) -> None:
        """Add an event that is `ahead` steps after its series' last one."""
        if self._snapshot.unread:
            self._keep(event.series)
        cells, ts, counts, filled = self._table.cells, event.ts, self.counts, 0
        run, last = cells.run[row], cells.ts[row]
        if ahead != 1 and run:
            if ahead - 1 > self.config.max_gap:
                run = 0
                counts.reset += 1
            else:
                filled = ahead - 1
                counts.filled += filled
        run += filled
        if not run or run - cells.later_run[row] >= self._seq_len:
            cells.first_offset[row] = cells.later[row] if run else offset
            cells.later[row], cells.later_run[row] = offset, run
        if self._silences and (self.stream_time - last > cells.longest[row] or cells.steps[row] < LEARNED):
            self._silences.step(self._series[event.series], event.series, ts, self.stream_time, offset)
            self._next_due = min(self._next_due, self._silences.next_due)
        step = cells.step[row] + ahead
        cells.ts[row], cells.step[row], cells.run[row] = ts, step, run + 1
        counts.accepted += 1
        self._table.change(row)
        elapsed = ts - last if last > BEFORE_ALL else 0
        numbers = row, ts, offset, filled, step, elapsed, run + 1, cells.first_offset[row]
        self._windows.add(event.series, event.values, numbers)

    def _buffer(self, reorder: ReorderBuffer, row: int, event: Event, offset: int) -> bool:
        """Buffer an event, and release it at once if it is due already; False if its step has one."""
        self._keep(event.series)
        if not reorder.add(event, event.ts if self._grid is None else self._grid.index(event.ts)):
            self.counts.duplicate += 1
            return False
        self._table.change(row)
        self._next_due = min(self._next_due, reorder.next_due)
        if self._next_due <= self.stream_time:
            self._run_due(offset)
        return True

    def _drop(self, row: int, event: Event, ahead: int) -> bool:
        """Count an event not after its series' last step. Raises InvalidEvent for one before its whole window."""
        if ahead == 0 and self.config.aggregate is None:
            self.counts.duplicate += 1
            return False
        self.counts.late += 1
        if self._grid is not None:
            old = ahead <= -self._seq_len
        elif old := self._table.cells.run[row] >= self._seq_len:
            self._windows.flush()
            old = event.ts < self._windows.buffers.first_time(row)
        if old:
            raise _old(event.series, event.ts)
        return False

    def _run_due(self, offset: int) -> None:
        """Run what is due at this stream time: release pending steps, then expire idle series."""
        due = -BEFORE_ALL
        if self._reorder is not None:
            for event in self._reorder.release(self.stream_time, self._keep):
                row = self._table.rows[event.series]
                ahead = 1 if self._grid is None else self._grid.index(event.ts) - self._table.cells.step[row]
                self._extend(row, event, ahead, offset)
            due = self._reorder.next_due
            self.counts.early += self._reorder.early
            self._reorder.early = 0
        for name in self._expiries.expired(self._latest, self.stream_time):
            self._expire(name, offset)
        if self._silences:
            for name in self._silences.fallen(self._series, self.stream_time):
                self._keep(name)
                self._table.change(self._table.rows[name])
                self._silences.notice(self._series[name], name, self.stream_time, offset)
            due = min(due, self._silences.next_due)
        self._next_due = min(due, self._expiries.next_due)

    def take(self) -> Windows:
        """The windows completed since the last take, in order of completion."""
        return self._windows.take()


def _old(series: str, ts: int) -> InvalidEvent:
    return InvalidEvent("bad_time", f"{ts} is before the whole window of {series!r}")
