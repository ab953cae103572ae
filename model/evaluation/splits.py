"""Time-based splits of windows for rolling-origin evaluation, and the targets of each window; in numpy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.windows import Flags, Floats, Rows, WindowData
from tidecast.errors import TooShort

_CHUNK = 4096
SAMPLE = 4096
"""The most windows from which shares of the series, or intervals, are taken."""
FAR = 2**62
"""Later than any event time, epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The split times, epoch milliseconds; no window's targets lie on both sides of one."""

    validation: int
    """Every target of a training window lies before it, every target of a validation window at or after it."""
    test: int = FAR
    """Every target of a validation window lies before it, every target of a test window at or after it."""


@dataclass(frozen=True, slots=True)
class Split:
    """Windows in three parts by time, each window given by its end row; its inputs may lie before the cut."""

    train: Rows
    validation: Rows
    test: Rows
    cuts: Cuts


def held_out(steps: int, fraction: float, horizon: int) -> int:
    """How many of the steps are held out for validation.

    At least two horizons, even if that is more than the fraction, but then no more than a quarter of the steps.
    """
    return max(1, round(steps * fraction), min(2 * horizon, steps // 4))


def step_numbers(data: WindowData, rows: Rows) -> Rows:
    """A number for the step of each of these rows, in order of time and one for all series.

    Without a grid the steps of the series that has the most of these rows count; from one of its events to the next,
    those of all others are of one step. So series whose events lie beside each other are no more steps than one is.
    """
    if data.gridded or not len(rows):
        return data.step[rows]
    own = data.ts[rows[data.series[rows] == np.bincount(data.series[rows]).argmax()]]
    return np.maximum(np.searchsorted(own, data.ts[rows], side="right"), 1)


def last_share(data: WindowData, fraction: float, horizon: int, test: int = FAR) -> Cuts:
    """Cuts that hold out the last `fraction` of the rows before `test` for validation, and at least `held_out` steps.

    The cut is at the same time for all series.
    """
    rows = np.flatnonzero(data.ts < test)
    if not len(rows):
        return Cuts(0, test)
    numbers = step_numbers(data, rows)
    steps = np.unique(numbers)
    by_rows = np.sort(numbers)[-max(1, round(len(rows) * fraction))]
    first = min(by_rows, steps[-held_out(len(steps), fraction, horizon)])
    return Cuts(int(data.ts[rows[numbers >= first]].min()), test)


def split(data: WindowData, horizon: int, cuts: Cuts) -> Split:
    """Splits the windows whose whole horizon follows without a break.

    Raises TooShort if no training or no validation window is left.
    """
    ends = complete_ends(data, horizon)
    first, last = data.ts[ends + 1], data.ts[ends + horizon]
    train = ends[last < cuts.validation]
    validation = ends[(first >= cuts.validation) & (last < cuts.test)]
    if not len(train) or not len(validation):
        raise TooShort(
            f"too few windows: {len(train)} to train on and {len(validation)} to validate on, from {len(data.ts)} "
            f"steps in {len(data.names)} series: one of them needs {data.seq_len + horizon} events without a break to "
            f"train on (seq_len {data.seq_len}, horizon {horizon}), and {horizon} more to validate on"
        )
    return Split(train, validation, ends[first >= cuts.test], cuts)


def complete_ends(data: WindowData, horizon: int) -> Rows:
    """The end rows of the windows whose whole horizon follows without a break."""
    ends = data.ends[data.ends + horizon < len(data.ts)]
    complete: Rows = ends[data.run[ends] == data.run[ends + horizon]]
    return complete


def targets(data: WindowData, ends: Rows, horizon: int, columns: Sequence[int]) -> tuple[Floats, Flags]:
    """The actual values after each window, (N,K,O), and which of them were observed."""
    rows = ends[:, None] + np.arange(1, horizon + 1)
    return data.values[rows][..., list(columns)], data.observed[rows][..., list(columns)]


def run_starts(data: WindowData, ends: Rows) -> Rows:
    """For each of these rows, the first row (N,) of its run, the unbroken stretch of its series."""
    starts = np.flatnonzero(np.diff(data.run, prepend=data.run[0] - 1))
    return starts[np.searchsorted(starts, ends, side="right") - 1]


def sample(ends: Rows) -> Rows:
    """The rows, or `SAMPLE` of them at random, in order: every k-th might be the same hour of each day."""
    return ends if len(ends) <= SAMPLE else np.sort(np.random.default_rng(0).choice(ends, SAMPLE, replace=False))


def chunks(ends: Rows) -> Iterator[Rows]:
    """The rows in chunks, to bound memory."""
    return (ends[start : start + _CHUNK] for start in range(0, len(ends), _CHUNK))
