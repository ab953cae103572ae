"""Values of the window store: a batch of complete windows, and the state of a series.

B windows   S steps of a window   F features   n <= S steps that a series has
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.windows.grid import Bools, Floats, Ints
from pipeline.windows.reorder import PendingStep

UNKNOWN = -1
"""No offset."""


class Section(NamedTuple):
    """State that a component keeps in a checkpoint beside the windows: bytes, in a format version of its own."""

    version: int
    data: bytes


Sections = Mapping[str, Section]
"""Sections by name."""


class Silence(NamedTuple):
    """A silence that was noticed, or has ended. Times are epoch milliseconds."""

    series: str
    since: int
    """The time of the last step before it."""
    ts: int
    """When it was noticed, or of the step that ended it."""
    usual: int
    """The longest wait that was usual, milliseconds."""
    ended: bool
    offset: int
    """Of the record by which it was noticed."""


class Companion(Protocol):
    """What a component keeps of each series of a store, beside its windows."""

    def sections(self, series: str) -> Sections:
        """A series' state; none if there is none."""

    def restore(self, series: str, sections: Sections) -> Sections:
        """Set a series' state from its checkpoint; those of the sections that are not the component's."""

    def expired(self, series: str, place: int, offset: int) -> None:
        """The series has expired: after `place` windows of the next `take`, by the record at `offset`."""

    def silent(self, silence: Silence) -> None:
        """A series has fallen silent, or is silent no longer."""


class Dropped(NamedTuple):
    """The rows of some events that were not used, each list in ascending order."""

    late: list[int]
    """Late or duplicate."""
    invalid: list[tuple[int, InvalidEvent]]


@dataclass(frozen=True, slots=True, eq=False)
class SeriesState:
    """The state of a series, on which its next windows depend: its last n steps, and the pending ones."""

    values: Floats
    """(n,F)."""
    observed: Bools
    """(n,F): False where a gap was filled."""
    step: int
    """The last step's number: on the grid, or counted from 0."""
    ts: int
    """The last accepted event's time, epoch milliseconds."""
    times: Ints
    """(n,): each step's time; (0,) where there is a grid."""
    last_event_ts: int
    """The latest time of any event that was used or is pending, epoch milliseconds."""
    pending: Sequence[PendingStep] = ()
    """Pending steps, which the reorder buffer has not released."""
    first_offset: tuple[int, int, int] = (UNKNOWN, UNKNOWN, 0)
    """An offset at or before those of all n steps, a later step's offset, and how many steps ago that one was added."""
    sections: Sections = field(default_factory=dict)
    """Sections of the series; those of unknown names are kept unchanged."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """B complete windows, in the order in which they were completed."""

    x: Floats
    """(B,S,F)."""
    observed: Bools
    """(B,S,F): False where a gap was filled."""
    step: Ints
    """(B,): the number of the last step: on the grid, or counted from 0."""
    ts: Ints
    """(B,): the time of the last step's event, epoch milliseconds."""
    start: Ints
    """(B,): the time of the first step after the window, epoch milliseconds."""
    spacing: Ints
    """(B,): the length of that step, milliseconds: by the grid, or that of the last step."""
    series: list[str]
    """(B,)."""
    offset: Ints
    """(B,): the offset that was pushed with the event that completed the window."""
    length: Ints
    """(B,): how many of the window's steps, at its end, are the series' own; x repeats the first before it."""
    first_offset: Ints
    """(B,): an offset at or before those of all events of the window, at most S steps before; UNKNOWN if none.

    Where events are reordered or aggregated, some of them may have an earlier offset."""

    def __len__(self) -> int:
        return len(self.series)

    @property
    def keys(self) -> list[bytes]:
        """(B,): the keys of their forecasts."""
        return [series.encode() for series in self.series]

    def arrays(self, start: int, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """A model's inputs by name, for the windows start <= i < stop."""
        part = slice(start, stop)
        return {"x": self.x[part], "observed": self.observed[part], "step": self.step[part]}

    def part(self, start: int, stop: int) -> "Windows":
        """The windows start <= i < stop."""
        kept = slice(start, stop)
        return Windows(**{field.name: getattr(self, field.name)[kept] for field in fields(self)})

    def chosen(self, rows: Ints) -> "Windows":
        """The windows at these rows."""
        series = [self.series[row] for row in rows.tolist()]
        arrays = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "series"}
        return Windows(series=series, **arrays)

    @staticmethod
    def concat(parts: Sequence["Windows"]) -> "Windows":
        """The windows of one or more parts, concatenated."""
        return Windows(
            x=np.concatenate([part.x for part in parts]),
            observed=np.concatenate([part.observed for part in parts]),
            step=np.concatenate([part.step for part in parts]),
            ts=np.concatenate([part.ts for part in parts]),
            start=np.concatenate([part.start for part in parts]),
            spacing=np.concatenate([part.spacing for part in parts]),
            series=[series for part in parts for series in part.series],
            offset=np.concatenate([part.offset for part in parts]),
            length=np.concatenate([part.length for part in parts]),
            first_offset=np.concatenate([part.first_offset for part in parts]),
        )
