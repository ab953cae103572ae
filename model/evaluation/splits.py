"""How windows are split in time for rolling-origin evaluation, and what happened after each of them; in numpy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.windows import Flags, Floats, Rows, WindowData
from tidecast.errors import DataError

_CHUNK = 4096
FAR = 2**62
"""After all times, in epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Event times, epoch milliseconds, that no target crosses."""

    validation: int
    """Every target of a training window lies before it, every target of a validation window at or after it."""
    test: int = FAR
    """Every target of a validation window lies before it, every target of a test window at or after it."""


@dataclass(frozen=True, slots=True)
class Split:
    """Windows in three parts of time, by the rows they end in; a window may look back across a cut."""

    train: Rows
    validation: Rows
    test: Rows
    cuts: Cuts


def held_out(steps: int, fraction: float, horizon: int) -> int:
    """How many of so many steps validate: a share, of short series more: two horizons, or a quarter of them."""
    return max(1, round(steps * fraction), min(2 * horizon, steps // 4))


def last_share(data: WindowData, fraction: float, horizon: int, test: int = FAR) -> Cuts:
    """Cuts off the last `fraction` of the rows before `test` to validate on, and what is `held_out`.

    At one time for all series.
    """
    ts = np.sort(data.ts[data.ts < test])
    if not len(ts):
        return Cuts(0, test)
    times = np.unique(ts)
    by_rows = ts[-max(1, round(len(ts) * fraction))]
    return Cuts(int(min(by_rows, times[-held_out(len(times), fraction, horizon)])), test)


def split(data: WindowData, horizon: int, cuts: Cuts) -> Split:
    """Splits the windows whose whole horizon lies in their run.

    Raises DataError if there is none to train on, or none to validate on.
    """
    ends = scored(data, horizon)
    first, last = data.ts[ends + 1], data.ts[ends + horizon]
    train = ends[last < cuts.validation]
    validation = ends[(first >= cuts.validation) & (last < cuts.test)]
    if not len(train) or not len(validation):
        raise DataError(
            f"too few windows: {len(train)} to train on and {len(validation)} to validate on, from {len(data.ts)} "
            f"steps in {len(data.names)} series: one of them needs {data.seq_len + horizon} events without a break to "
            f"train on (seq_len {data.seq_len}, horizon {horizon}), and {horizon} more to validate on"
        )
    return Split(train, validation, ends[first >= cuts.test], cuts)


def scored(data: WindowData, horizon: int) -> Rows:
    """The rows in which windows end whose whole horizon lies in their run."""
    ends = data.ends[data.ends + horizon < len(data.ts)]
    whole: Rows = ends[data.run[ends] == data.run[ends + horizon]]
    return whole


def targets(data: WindowData, ends: Rows, horizon: int, columns: Sequence[int]) -> tuple[Floats, Flags]:
    """What happened after each window, (N,K,O), and which of it was observed."""
    rows = ends[:, None] + np.arange(1, horizon + 1)
    return data.values[rows][..., list(columns)], data.observed[rows][..., list(columns)]


def run_starts(data: WindowData, ends: Rows) -> Rows:
    """The first row (N,) of each of these rows' series without a break."""
    begins = np.flatnonzero(np.diff(data.run, prepend=data.run[0] - 1))
    return begins[np.searchsorted(begins, ends, side="right") - 1]


def chunks(ends: Rows) -> Iterator[Rows]:
    """The rows in parts that do not fill the memory."""
    return (ends[start : start + _CHUNK] for start in range(0, len(ends), _CHUNK))
