"""The definition of a window, for stream and batch alike: its steps, their grid, and how gaps are filled."""

from dataclasses import dataclass
from typing import TypeVar, get_args

import numpy as np
import numpy.typing as npt

from pipeline.windows.choices import Aggregate
from pipeline.windows.steps import Grid
from tidecast.errors import ConfigError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Value = TypeVar("Value", bound=np.generic)
LEAST_STEPS = 64
"""A filled value is a float32 where the difference that it lies within has at least so many steps of float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig:
    """The definition of a window."""

    seq_len: int
    """S, steps in a window, at least 2."""
    features: tuple[str, ...] = ("value",)
    """The names of a step's F values, in order."""
    freq: str | None = None
    """The grid's spacing, such as 30m, 1h, 1mo, B (see Freq.parse); None: each event is a step."""
    offset: str | None = None
    """Where the grid's steps lie, such as 30m, 2mo, -1d (see Offset.parse); None: as counted from 1970."""
    max_gap: int = 3
    """The longest gap, in missing steps, that is filled; has no effect if freq is None."""
    lateness: int = 0
    """Milliseconds of stream time that a step waits for out-of-order events."""
    aggregate: Aggregate | None = None
    """How the events of a step are aggregated; None: the first event is the step."""

    def __post_init__(self) -> None:
        if self.seq_len < 2:
            raise ConfigError(f"seq_len: {self.seq_len} is less than 2")
        if not self.features or len(set(self.features)) < len(self.features):
            raise ConfigError(f"features: {self.features} must be one or more different names")
        if self.max_gap < 0:
            raise ConfigError(f"max_gap: {self.max_gap} is negative")
        if self.lateness < 0:
            raise ConfigError(f"lateness: {self.lateness} is negative")
        if self.aggregate is not None and self.aggregate not in get_args(Aggregate):
            raise ConfigError(f"aggregate: {self.aggregate!r} is none of {', '.join(get_args(Aggregate))}")
        if self.aggregate is not None and self.freq is None:
            raise ConfigError("aggregate: needs a freq, the steps that events are put together in")
        if self.freq is not None:
            Grid.parse(self.freq, offset=self.offset)
        elif self.offset is not None:
            raise ConfigError("offset: needs a freq, the spacing of the steps")

    @property
    def grid(self) -> Grid | None:
        """The grid of `freq`; None if each event is a step."""
        return None if self.freq is None else Grid.parse(self.freq, self.aggregate is not None, self.offset)

    @property
    def reorders(self) -> bool:
        """Whether events are buffered before they become steps."""
        return self.lateness > 0 or self.aggregate is not None

    @property
    def max_delay(self) -> int:
        """The longest that an event may be buffered before it becomes a step, in milliseconds."""
        grid = self.grid if self.aggregate else None
        return self.lateness + (0 if grid is None else grid.longest_step)


@dataclass(slots=True)
class Counts:
    """Counts of events `accepted`, or dropped as `late` or `duplicate`; of `filled` steps and `reset` windows; of steps
    that were taken `early`, as too many waited."""

    accepted: int = 0
    late: int = 0
    duplicate: int = 0
    filled: int = 0
    reset: int = 0
    early: int = 0

    def in_words(self) -> str:
        """The counts as a line of text."""
        unused = f"{self.late:,} late and {self.duplicate:,} duplicate not used"
        return f"{self.accepted:,} events ({unused}), {self.filled:,} steps filled, {self.reset:,} longer gaps"


def interpolate(before: Floats, after: Floats, number: Ints, count: Ints | int) -> Floats:
    """The `number`th of the count - 1 steps between `before` and `after`, linearly interpolated; shapes broadcast.

    It is rounded to a float32, the precision of a model's input and of windows in earlier versions, wherever that is
    fine enough: so these windows stay the same to the bit. At a large level it is not.
    """
    share = number / count
    exact = before + (after - before) * share
    low, high = (end.astype(np.float32).astype(np.float64) for end in (before, after))
    rounded = (low + (high - low) * share).astype(np.float32)
    return np.where(np.abs(rounded - exact) <= np.abs(after - before) / LEAST_STEPS, rounded, exact)


def view(steps: npt.NDArray[Value], length: int) -> npt.NDArray[Value]:
    """(T-length+1, length*F): row t is a view of the `length` steps (T,F) from t on; the array is contiguous."""
    count, width = steps.shape
    step = width * steps.itemsize
    return np.ndarray((max(0, count - length + 1), length * width), steps.dtype, steps, 0, (step, steps.itemsize))
