"""What the store of windows gives and keeps: complete windows, and the state of a series.

B windows   S steps of a window   F features   n steps that a series has had, at most S
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.windows.grid import Bools, Floats, Ints
from pipeline.windows.reorder import PendingStep

UNKNOWN = -1
"""No tag."""


class Section(NamedTuple):
    """What a part of a service keeps in a checkpoint beside the windows: bytes in a version of that part's own."""

    version: int
    data: bytes


Sections = Mapping[str, Section]
"""Sections by name."""


@dataclass(frozen=True, slots=True, eq=False)
class SeriesState:
    """All that the next event of a series depends on: its last n steps, n <= S, and what waits to be one."""

    values: Floats
    """(n,F)."""
    observed: Bools
    """(n,F): False where a hole was filled."""
    step: int
    """The last step's number: on the grid, or counted from 0."""
    ts: int
    """The last accepted event's time, epoch milliseconds."""
    times: Ints
    """(n,): each step's time where there is no grid; with one (0,)."""
    last_event_ts: int
    """The latest time of any event that was used or waits, epoch milliseconds."""
    waiting: Sequence[PendingStep] = ()
    """Steps that have not been released."""
    first_offset: tuple[int, int, int] = (UNKNOWN, UNKNOWN, 0)
    """A tag from which on all n steps came, a later one, and how many steps ago that was."""
    sections: Sections = field(default_factory=dict)
    """What is kept of the series beside its window; a section that nobody knows stays as it is."""


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
    offset: Ints
    """(B,): what the caller pushed with the event that completed the window."""
    length: Ints
    """(B,): how many of the window's steps, the last ones, the series has had; x is zero before them."""
    first_offset: Ints
    """(B,): a tag at or before those of all events of the window, of up to twice as many; UNKNOWN if there is none.

    Where events wait for stream time, those that waited may have come before it."""

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

    def part(self, start: int, stop: int) -> "Windows":
        """Some of the windows."""
        kept = slice(start, stop)
        return Windows(**{field.name: getattr(self, field.name)[kept] for field in fields(self)})

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
            offset=np.concatenate([part.offset for part in parts]),
            length=np.concatenate([part.length for part in parts]),
            first_offset=np.concatenate([part.first_offset for part in parts]),
        )
