"""The states of a window store's series: copied, restored, and which of them have changed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.windows.arrays.completed import CompletedWindows
from pipeline.windows.arrays.table import ByName, Table
from pipeline.windows.batch import Companion, Sections, SeriesState
from pipeline.windows.choices import SERIES_LIMIT, WAITING_LIMIT
from pipeline.windows.expiry import Expiries
from pipeline.windows.grid import Counts, WindowConfig
from pipeline.windows.reorder import BEFORE_ALL, ReorderBuffer
from pipeline.windows.silence import Silences
from pipeline.windows.snapshot import Snapshot
from tidecast.errors import ConfigError


class SeriesStates:
    """The series of a store, as checkpoints have them; WindowStore has what they mean."""

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
        self._limit, self._idle = limit, idle
        self._grid, self._seq_len, self._width = config.grid, config.seq_len, len(config.features)
        self._companion, self._silences = companion, Silences(companion.silent) if companion else None
        self._reorder = ReorderBuffer(config, max(limit, waiting_limit)) if config.reorders else None
        self._windows = CompletedWindows(config, self._seq_len if not short else 1 if self._grid else 2)
        self._table = Table(self._windows.buffers.reserve)
        self._series = ByName(self._table)
        self._sections: dict[str, Sections] = {}
        self._expiries = Expiries(idle)
        self._next_due = -BEFORE_ALL
        self._snapshot = Snapshot()

    def __len__(self) -> int:
        return len(self._table.rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, which have room for up to twice the series."""
        return self._table.nbytes + self._windows.buffers.nbytes

    def state(self, series: str) -> SeriesState | None:
        """A copy of a series' state; None for a series that is not in the store."""
        return self.states([series])[0]

    def states(self, names: Sequence[str]) -> list[SeriesState | None]:
        """Copies of the states of several series."""
        self._windows.flush()
        known = self._table.rows
        found = [name for name in names if name in known]
        states = dict(zip(found, self._states(found), strict=True))
        return [*map(states.get, names)]

    def _states(self, names: Sequence[str]) -> Iterator[SeriesState]:
        rows = np.array([self._table.rows[name] for name in names], np.int64)
        columns = self._table.columns
        run = columns.run[rows]
        of_each = (
            columns.step[rows],
            columns.ts[rows],
            columns.first_offset[rows],
            columns.later[rows],
            run - columns.later_run[rows],
            self._seq_len - np.minimum(run, self._seq_len),
        )
        copies = zip(*self._windows.buffers.copy(rows), strict=True)
        numbers = zip(*(column.tolist() for column in of_each), strict=True)
        for name, (values, observed, times), each in zip(names, copies, numbers, strict=True):
            step, ts, *first_offset, start = each
            yield SeriesState(
                values=values[start:],
                observed=observed[start:],
                step=step,
                ts=ts,
                times=times[start:].reshape(-1),
                last_event_ts=self._last_event_ts(name, ts),
                pending=self._reorder.state(name) if self._reorder else (),
                first_offset=tuple(first_offset),
                sections=self._sections_of(name),
            )

    def _latest(self, name: str) -> int | None:
        """The time of a series' last event; None of one that is not in the store."""
        row = self._table.rows.get(name)
        return None if row is None else self._last_event_ts(name, self._table.cells.ts[row])

    def _last_event_ts(self, name: str, ts: int) -> int:
        """The time of a series' last event, whose last step is at `ts`."""
        return max(ts, self._reorder.latest(name)) if self._reorder else ts

    def _sections_of(self, name: str) -> Sections:
        sections = {**self._sections.get(name, {})}
        if self._silences and self._companion:
            sections |= {**self._silences.section(self._series[name]), **self._companion.sections(name)}
        return sections

    def restore(self, states: Mapping[str, SeriesState]) -> None:
        """Set the states of series, new or not. They do not count as changed."""
        self._windows.flush()
        known, rows = self._table.rows, list[int]()
        for name, state in states.items():
            rows.append(known[name] if name in known else self._add_series(name, state.last_event_ts))
            self._restore_others(name, rows[-1], state)
        self._windows.buffers.fill(
            np.array(rows, np.int64),
            [state.values for state in states.values()],
            [state.observed for state in states.values()],
            [state.times for state in states.values()],
        )

    def _restore_others(self, name: str, row: int, state: SeriesState) -> None:
        """Set what a series has beside its steps."""
        found = self._series.of(row)
        found.step, found.ts = state.step, state.ts
        found.run = len(state.values)
        found.first_offset, found.later, ago = state.first_offset
        found.later_run = found.run - ago
        others = state.sections
        if self._silences and self._companion:
            others = self._companion.restore(name, self._silences.restore(found, name, others))
            self._next_due = min(self._next_due, self._silences.next_due)
        self._sections.pop(name, None)
        if others:
            self._sections[name] = others
        if self._reorder is not None:
            self._reorder.restore(name, state.pending, state.last_event_ts)
            self._next_due = min(self._next_due, self._reorder.next_due)

    def dirty(self) -> list[str]:
        """The series that changed since the last snapshot, in the order of their first change."""
        return self._table.dirty()

    def dirty_count(self) -> int:
        """How many they are."""
        return self._table.dirty_count()

    def snapshot(self) -> Snapshot:
        """The states of the series that changed since the last one, which count as unchanged from now on."""
        self._snapshot = Snapshot(self._table.dirty())
        self._table.clean()
        return self._snapshot

    def mark_dirty(self, names: Iterable[str] | None = None) -> None:
        """Count these series, or every one, as changed."""
        self._table.change_named(self._table.rows if names is None else names)

    def _keep(self, *names: str) -> None:
        """To be called before these series change."""
        self._snapshot.keep(names, self.states)

    def _new_series(self, name: str, ts: int) -> int:
        if len(self._table.rows) >= self._limit:
            raise InvalidEvent("series_limit", f"{name!r} would be one more than {self._limit:,} series")
        return self._add_series(name, ts)

    def _add_series(self, name: str, ts: int) -> int:
        self._keep(name)
        self._expiries.add(name, ts)
        self._next_due = min(self._next_due, self._expiries.next_due)
        return self._table.row(name)

    def _expire(self, name: str, offset: int) -> None:
        self._keep(name)
        place = self._windows.count()
        self._windows.buffers.release(np.array([self._table.remove(name)]))
        self._sections.pop(name, None)
        if self._reorder:
            self._reorder.forget(name)
        if self._companion:
            self._companion.expired(name, place, offset)
