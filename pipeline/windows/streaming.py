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

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import Event
from pipeline.windows.batch import UNKNOWN, Companion, Sections, SeriesState, Windows
from pipeline.windows.buffers import BufferRow, StepBuffers
from pipeline.windows.choices import SERIES_LIMIT, WAITING_LIMIT
from pipeline.windows.expiry import Expiries
from pipeline.windows.grid import Counts, WindowConfig, interpolate
from pipeline.windows.reorder import BEFORE_ALL, ReorderBuffer
from pipeline.windows.silence import LEARNED, Silences
from pipeline.windows.snapshot import Snapshot
from tidecast.errors import ConfigError


@dataclass(slots=True)
class _Series(BufferRow):
    """One series' row in the store, its position in time and its offsets."""

    step: int = -1
    ts: int = BEFORE_ALL
    last_event_ts: int = BEFORE_ALL
    first_offset: int = UNKNOWN
    later: int = UNKNOWN
    later_run: int = 0
    """What `run` was before the step of the offset `later`."""
    steps: int = 0
    longest: int = 0
    silent: bool = False


class WindowStore:
    """The windows of one input partition's series, extended event by event.

    A series expires after `idle` milliseconds of stream time without an event (None: never); `limit` is the largest
    number of series, `waiting_limit` that of steps that wait for late events. If `short`, windows that are not full yet
    are completed too, from the first step on; without a grid from the second, which gives the spacing. `counts` are
    running totals.

    A series takes (seq_len + SLACK) * F * 9 bytes of arrays, without a grid 8 more per step (`nbytes` is what is
    reserved, for up to twice the series), and about 400 bytes of Python objects. A `companion` has state of its own for
    each series; with one, silent series are noticed too.
    """

    def __init__(
        self,
        config: WindowConfig,
        idle: int | None = None,
        limit: int = SERIES_LIMIT,
        *,
        short: bool = False,
        waiting_limit: int = WAITING_LIMIT,
        companion: Companion | None = None,
    ) -> None:
        if idle is not None and idle <= config.max_delay:
            raise ConfigError(f"idle: {idle} ms must be longer than a step may be delayed, {config.max_delay} ms")
        self.config = config
        self.counts = Counts()
        self.stream_time = BEFORE_ALL
        self.sections: Sections = {}
        self._limit = limit
        self._grid = config.grid
        self._companion, self._silences = companion, Silences(companion.silent) if companion else None
        self._reorder = ReorderBuffer(config, max(limit, waiting_limit)) if config.reorders else None
        self._seq_len, self._width = config.seq_len, len(config.features)
        self._least = self._seq_len if not short else 1 if self._grid else 2
        self._rows = StepBuffers(self._seq_len, self._width, timed=self._grid is None)
        self._series: dict[str, _Series] = {}
        self._sections: dict[str, Sections] = {}
        self._expiries = Expiries(idle)
        self._next_due = -BEFORE_ALL
        self._changed: dict[str, None] = {}
        self._snapshot = Snapshot()
        self._completed: list[tuple[int, int, int, int, int, int, str]] = []

    def __len__(self) -> int:
        return len(self._series)

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self._rows.nbytes

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
        series = self._series.get(name) or self._new_series(name, ts)
        grid = self._grid
        ahead = min(ts - series.ts, 1) if grid is None else grid.index(ts) - series.step
        if ahead <= 0 and series.run:
            return self._drop(series, event, ahead)
        if self._reorder is not None:
            return self._buffer(self._reorder, series, event, offset)
        self._extend(series, event, ahead, offset)
        return True

    def _extend(self, series: _Series, event: Event, ahead: int, offset: int) -> None:
        """Add an event that is `ahead` steps after its series' last one."""
        name, ts, values = event.series, event.ts, event.values
        if self._snapshot.unread:
            self._keep(name)
        if ahead != 1 and series.run:
            self._fill_gap(series, ahead, values)
        if not series.run or series.run - series.later_run >= self._seq_len:
            series.first_offset, series.later, series.later_run = (
                series.later if series.run else offset,
                offset,
                series.run,
            )
        self._rows.write(series, values, True, ts)
        if self._silences and (self.stream_time - series.ts > series.longest or series.steps < LEARNED):
            self._silences.step(series, name, ts, self.stream_time, offset)
            self._next_due = min(self._next_due, self._silences.next_due)
        elapsed = ts - series.ts
        series.ts = ts
        series.step += ahead
        self.counts.accepted += 1
        self._changed[name] = None
        if series.run >= self._least:
            self._rows.mark(series)
            self._completed.append(
                (series.step, ts, elapsed, offset, min(series.run, self._seq_len), series.first_offset, name)
            )

    def _buffer(self, reorder: ReorderBuffer, series: _Series, event: Event, offset: int) -> bool:
        """Buffer an event, and release it at once if it is due already; False if its step has one."""
        self._keep(event.series)
        if not reorder.add(event, event.ts if self._grid is None else self._grid.index(event.ts)):
            self.counts.duplicate += 1
            return False
        series.last_event_ts = max(series.last_event_ts, event.ts)
        self._changed[event.series] = None
        self._next_due = min(self._next_due, reorder.next_due)
        if self._next_due <= self.stream_time:
            self._run_due(offset)
        return True

    def _drop(self, series: _Series, event: Event, ahead: int) -> bool:
        """Count an event not after its series' last step. Raises InvalidEvent for one before its whole window."""
        if ahead == 0 and self.config.aggregate is None:
            self.counts.duplicate += 1
            return False
        self.counts.late += 1
        if self._grid is None:
            old = series.run >= self._seq_len and event.ts < self._rows.first_time(series)
        else:
            old = ahead <= -self._seq_len
        if old:
            raise InvalidEvent("bad_time", f"{event.ts} is before the whole window of {event.series!r}")
        return False

    def _run_due(self, offset: int) -> None:
        """Run what is due at this stream time: release pending steps, then expire idle series."""
        due = -BEFORE_ALL
        if self._reorder is not None:
            for event in self._reorder.release(self.stream_time, self._keep):
                series = self._series[event.series]
                ahead = 1 if self._grid is None else self._grid.index(event.ts) - series.step
                self._extend(series, event, ahead, offset)
            due = self._reorder.next_due
            self.counts.early += self._reorder.early
            self._reorder.early = 0
        for name in self._expiries.expired(self._series, self.stream_time):
            self._expire(name, offset)
        if self._silences:
            for name in self._silences.fallen(self._series, self.stream_time):
                self._keep(name)
                self._changed[name] = None
                self._silences.notice(self._series[name], name, self.stream_time, offset)
            due = min(due, self._silences.next_due)
        self._next_due = min(due, self._expiries.next_due)

    def _expire(self, name: str, offset: int) -> None:
        self._keep(name)
        self._rows.release(self._series.pop(name))
        self._changed[name] = None
        self._sections.pop(name, None)
        if self._companion:
            self._companion.expired(name, len(self._completed), offset)

    def take(self) -> Windows:
        """The windows completed since the last take, in order of completion."""
        x, observed = self._rows.take()
        completed = zip(*self._completed, strict=True) if self._completed else ((),) * 7
        step, ts, elapsed, offset, length, first, series = completed
        steps, times, offsets, lengths, first_offset = (
            np.array(numbers, np.int64) for numbers in (step, ts, offset, length, first)
        )
        if self._least < self._seq_len:
            missing = self._seq_len - lengths
            padding = np.arange(self._seq_len) < missing[:, None]
            x[padding] = np.repeat(x[np.arange(len(x)), missing], missing, axis=0)
            observed[padding] = False
        if self._grid is None:
            spacing = np.array(elapsed, np.int64)
            start = times + spacing
        else:
            start, spacing = self._grid.after(steps, times)
        self._completed = []
        return Windows(x, observed, steps, times, start, spacing, list(series), offsets, lengths, first_offset)

    def state(self, series: str) -> SeriesState | None:
        """A copy of a series' state; None for a series that is not in the store."""
        found = self._series.get(series)
        if found is None:
            return None
        values, observed, times = self._rows.copy(found)
        sections = {**self._sections.get(series, {})}
        if self._silences and self._companion:
            sections |= {**self._silences.section(found), **self._companion.sections(series)}
        return SeriesState(
            values=values,
            observed=observed,
            step=found.step,
            ts=found.ts,
            times=times,
            last_event_ts=max(found.ts, found.last_event_ts),
            pending=self._reorder.state(series) if self._reorder else (),
            first_offset=(found.first_offset, found.later, found.run - found.later_run),
            sections=sections,
        )

    def restore(self, series: str, state: SeriesState) -> None:
        """Set the state of a series, new or not. It does not count as changed."""
        found = self._series.get(series) or self._add(series, state.last_event_ts)
        found.step, found.ts, found.last_event_ts = state.step, state.ts, state.last_event_ts
        self._rows.fill(found, state.values, state.observed, state.times)
        found.first_offset, found.later, ago = state.first_offset
        found.later_run = found.run - ago
        others = state.sections
        if self._silences and self._companion:
            others = self._companion.restore(series, self._silences.restore(found, series, others))
        self._sections.pop(series, None)
        if others:
            self._sections[series] = others
        if self._reorder is not None:
            self._reorder.restore(series, state.pending)
            self._next_due = min(self._next_due, self._reorder.next_due)

    def dirty(self) -> list[str]:
        """The series that changed since the last snapshot, in the order of their first change."""
        return list(self._changed)

    def snapshot(self) -> Snapshot:
        """The states of the series that changed since the last one, which count as unchanged from now on."""
        self._snapshot, self._changed = Snapshot(self._changed), {}
        return self._snapshot

    def _keep(self, name: str) -> None:
        """Before a series changes: a snapshot has it as it is."""
        self._snapshot.keep(name, self.state)

    def mark_dirty(self, names: Iterable[str] | None = None) -> None:
        """Count these series, or every one, as changed."""
        self._changed.update(dict.fromkeys(self._series if names is None else names))

    def _fill_gap(self, series: _Series, ahead: int, values: Sequence[float]) -> None:
        """Fill the gap before an event that is `ahead` > 1 steps after its series' last one, or empty the window."""
        if ahead - 1 > self.config.max_gap:
            series.run = 0
            self.counts.reset += 1
            return
        after = np.array(values, np.float64)
        for step in interpolate(self._rows.last(series), after, np.arange(1, ahead)[:, None], ahead).tolist():
            self._rows.write(series, step, False)
        self.counts.filled += ahead - 1

    def _new_series(self, name: str, ts: int) -> _Series:
        if len(self._series) >= self._limit:
            raise InvalidEvent("series_limit", f"{name!r} would be one more than {self._limit:,} series")
        self._keep(name)  # it may have expired, and not be written as such yet
        return self._add(name, ts)

    def _add(self, name: str, ts: int) -> _Series:
        series = self._series[name] = _Series(*self._rows.allocate())
        self._expiries.add(name, ts)
        self._next_due = min(self._next_due, self._expiries.next_due)
        return series
