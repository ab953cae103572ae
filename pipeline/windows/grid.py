"""The definition of a window, for stream and batch alike: its steps, their grid, and how gaps are filled."""

from dataclasses import dataclass
from typing import Literal, Self, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from tidecast.errors import ConfigError
from tidecast.freq import MILLISECONDS, MONTH, Freq

Aggregate = Literal["mean", "sum", "last", "count", "min", "max"]
"""How several events of one step are aggregated."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Value = TypeVar("Value", bound=np.generic)
Whole = TypeVar("Whole", int, Ints)
"""An integer, or an array of them."""
LEAST_STEPS = 64
"""A filled value is a float32 where the difference that it lies within has at least so many steps of float32."""
Following = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Grid:
    """Evenly spaced steps, counted from 1970 in UTC. One of the two lengths is zero.

    With a fixed length an event belongs to the nearest step, rounded half up, so that a clock that is slightly off does
    not move it. A calendar step, and any step of a `bucket` grid, holds the times from its start to the next one's.
    """

    milliseconds: int
    """Length of a fixed step."""
    months: int
    """Length of a calendar step."""
    bucket: bool = False
    """Whether a fixed step begins at its time, instead of being centred on it."""

    @classmethod
    def parse(cls, freq: str, bucket: bool = False) -> Self:
        """The grid of a freq such as 250ms, 15s, 30m, 1h, 1d, 1w, 1mo or 1y. Raises ValueError."""
        parsed = Freq.parse(freq)
        return cls(parsed.milliseconds, parsed.months, bucket)

    @property
    def mean_step(self) -> int:
        """A step's length in milliseconds, a calendar step's on average."""
        return self.milliseconds or self.months * MONTH

    def index(self, ts: Whole) -> Whole:
        """The number of the step that a time (epoch milliseconds) belongs to."""
        if self.months:
            return _converted(ts, "datetime64[ms]", "datetime64[M]") // self.months
        if self.bucket:
            return ts // self.milliseconds
        return (2 * ts + self.milliseconds) // (2 * self.milliseconds)

    def time(self, index: Whole) -> Whole:
        """A step's time in epoch milliseconds: its point on a fixed grid, the start of a calendar step or a bucket."""
        if self.months:
            return _converted(index * self.months, "datetime64[M]", "datetime64[ms]")
        return index * self.milliseconds

    def after(self, step: npt.NDArray[np.int64], ts: npt.NDArray[np.int64]) -> Following:
        """The start and the length, in milliseconds, of the step that follows `step`, whose event was at `ts`.

        On a fixed grid it starts one length after the event, even if that is off the grid's point.
        """
        if self.months:
            start = self.time(step + 1)
            return start, self.time(step + 2) - start
        return ts + self.milliseconds, np.full_like(ts, self.milliseconds)


def _converted(count: Whole, unit: str, to: str) -> Whole:
    converted = np.asarray(count, np.int64).astype(unit).astype(to).astype(np.int64)
    return int(converted) if isinstance(count, int) else converted


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig:
    """The definition of a window."""

    seq_len: int
    """S, steps in a window, at least 2."""
    features: tuple[str, ...] = ("value",)
    """The names of a step's F values, in order."""
    freq: str | None = None
    """The grid's spacing, such as 30m, 1h, 1mo (see Grid.parse); None: each event is a step."""
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
            Grid.parse(self.freq)

    @property
    def grid(self) -> Grid | None:
        """The grid of `freq`; None if each event is a step."""
        return None if self.freq is None else Grid.parse(self.freq, bucket=self.aggregate is not None)

    @property
    def reorders(self) -> bool:
        """Whether events are buffered before they become steps."""
        return self.lateness > 0 or self.aggregate is not None

    @property
    def max_delay(self) -> int:
        """The longest that an event may be buffered before it becomes a step, in milliseconds."""
        grid = self.grid if self.aggregate else None
        return self.lateness + (0 if grid is None else grid.milliseconds + grid.months * 31 * MILLISECONDS["d"])


@dataclass(slots=True)
class Counts:
    """Counts of events `accepted`, or dropped as `late` or `duplicate`; of `filled` steps and `reset` windows."""

    accepted: int = 0
    late: int = 0
    duplicate: int = 0
    filled: int = 0
    reset: int = 0

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
    """(T-length+1, length*F): row t is a view of the `length` steps (T,F) from t on."""
    width = steps.shape[1]
    return np.lib.stride_tricks.sliding_window_view(steps.reshape(-1), length * width)[::width]
