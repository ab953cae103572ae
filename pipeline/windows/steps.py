"""The steps of a grid: which step an event belongs to, and at which times steps lie."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tidecast.errors import ConfigError
from tidecast.freq import MILLISECONDS, MONTH, Freq, Offset

Ints = npt.NDArray[np.int64]
Whole = TypeVar("Whole", int, Ints)
"""An integer, or an array of them."""
HOUR, DAY, WEEK = MILLISECONDS["h"], MILLISECONDS["d"], MILLISECONDS["w"]
MONDAY = 4 * DAY
"""The first Monday of 1970, from which weeks with an offset count."""
WORKDAYS = 5


@dataclass(frozen=True, slots=True)
class Grid(ABC):
    """Steps numbered in order, on the same grid for all series; times are epoch milliseconds, in UTC.

    A `bucket` grid's step holds the times from its start to the next one's; otherwise an event may be somewhat before
    its step's time, so that a clock that is slightly off does not move it.
    """

    milliseconds: int
    """Length of a fixed step or a business day; 0 for a calendar step."""
    months: int
    """Length of a calendar step; else 0."""
    bucket: bool
    """Whether a step begins at its time, instead of being around it."""

    @staticmethod
    def parse(freq: str, bucket: bool = False, offset: str | None = None) -> "Grid":
        """The grid of a freq and an offset, as of Freq.parse and Offset.parse. Raises ConfigError."""
        step = Freq.parse(freq)
        shift = None if offset is None else Offset.parse(offset)
        if step.months:
            return CalendarGrid.of(step.months, bucket, shift)
        if shift is not None and shift.months:
            raise ConfigError(f"offset: {offset!r} has months, and steps of {freq} are in none")
        origin = 0 if shift is None else shift.milliseconds
        if step.business:
            return BusinessGrid(DAY, 0, bucket, origin, nearest=shift is not None and not bucket)
        monday = MONDAY if step.unit == "w" and shift is not None else 0
        return FixedGrid(step.milliseconds, 0, bucket, origin + monday)

    @property
    def mean_step(self) -> float:
        """A step's length in milliseconds on average."""
        return self.milliseconds or self.months * MONTH

    @property
    def longest_step(self) -> int:
        """The longest length of a step in milliseconds."""
        return self.milliseconds + self.months * 31 * DAY

    @property
    @abstractmethod
    def phase(self) -> tuple[int, ...]:
        """What tells grids of the same lengths apart; empty for one that counts fixed or calendar steps from 1970."""

    @abstractmethod
    def index(self, ts: Whole) -> Whole:
        """The number of the step that a time belongs to."""

    @abstractmethod
    def time(self, index: Whole) -> Whole:
        """A step's time: that of its events."""

    def end(self, index: int) -> int:
        """When a bucket grid's step ends."""
        return self.time(index + 1)

    def ahead(self, step: Ints, ts: Ints, count: Ints | int) -> Ints:
        """The times of the `count`th steps after `step`, whose event was at `ts`; shapes broadcast."""
        return self.time(np.asarray(step + count))

    def after(self, step: Ints, ts: Ints) -> tuple[Ints, Ints]:
        """The time and the length of the step that follows `step`, whose event was at `ts`."""
        start = self.ahead(step, ts, 1)
        return start, self.ahead(step, ts, 2) - start


@dataclass(frozen=True, slots=True)
class FixedGrid(Grid):
    """Evenly spaced steps: an event belongs to the nearest one, rounded half up."""

    origin: int = 0
    """The time of step 0."""

    @property
    def phase(self) -> tuple[int, ...]:
        """The origin, if it is not 1970."""
        return (self.origin,) if self.origin else ()

    def index(self, ts: Whole) -> Whole:
        """The nearest step; of a bucket grid the one that holds the time."""
        if self.bucket:
            return (ts - self.origin) // self.milliseconds
        return (2 * (ts - self.origin) + self.milliseconds) // (2 * self.milliseconds)

    def time(self, index: Whole) -> Whole:
        """A step's point, or the start of a bucket."""
        return index * self.milliseconds + self.origin

    def ahead(self, step: Ints, ts: Ints, count: Ints | int) -> Ints:
        """So many lengths after the event, even if that is off the grid's points."""
        return np.asarray(ts + self.milliseconds * count)


@dataclass(frozen=True, slots=True)
class BusinessGrid(Grid):
    """Monday to Friday. An event on a weekend belongs to the Friday before."""

    origin: int = 0
    """A day's time after midnight, or of a bucket its start."""
    nearest: bool = False
    """Whether an event belongs to the day whose time is nearest, instead of the day that it is on."""

    @property
    def phase(self) -> tuple[int, ...]:
        """The days of a week, and the time within a day if one is given."""
        return (WORKDAYS, self.origin) if self.origin or self.nearest else (WORKDAYS,)

    @property
    def mean_step(self) -> float:
        """A fifth of a week."""
        return WEEK / WORKDAYS

    @property
    def longest_step(self) -> int:
        """From Friday to Monday."""
        return 3 * DAY

    def index(self, ts: Whole) -> Whole:
        """The number of business days since Monday, 29 December 1969."""
        days = self._day(ts) + 3
        weekday = days % 7
        return days // 7 * WORKDAYS + weekday - (weekday > 4) * (weekday - 4)

    def time(self, index: Whole) -> Whole:
        """The time of day given by the offset, else midnight in UTC."""
        return (index // WORKDAYS * 7 + index % WORKDAYS - 3) * DAY + self.origin

    def ahead(self, step: Ints, ts: Ints, count: Ints | int) -> Ints:
        """At the event's time of day, if it is not on a weekend, nor more than an hour off a given one (a half day)."""
        away = ts - self.time(step)
        usual = (self._day(ts) + 3) % 7 < WORKDAYS
        if self.nearest:
            usual &= np.abs(away) <= HOUR
        return np.asarray(self.time(np.asarray(step + count)) + usual * away)

    def _day(self, ts: Whole) -> Whole:
        return (ts - self.origin + self.nearest * DAY // 2) // DAY


@dataclass(frozen=True, slots=True)
class CalendarGrid(Grid):
    """Steps of whole months, each holding the times from its start to the next one's.

    If they have a `label`, a step's time is that far from its start (from its end if negative), and the border between
    two steps keeps two fifths of a step away from either's time: events around month end do not fall into the month
    after.
    """

    first: int = 0
    """The month in which step 0 starts, from January 1970."""
    label: int | None = None

    @classmethod
    def of(cls, months: int, bucket: bool, offset: Offset | None) -> "CalendarGrid":
        """Of such months, with this offset. Raises ConfigError for one that is longer than a step."""
        if offset is None:
            return cls(0, months, bucket)
        if not abs(offset.milliseconds) < months * 31 * DAY:
            raise ConfigError(f"offset: {offset} is longer than a step of {months} months")
        return cls(0, months, bucket, offset.months, offset.milliseconds)

    @property
    def phase(self) -> tuple[int, ...]:
        """The first month and the time within a step, if they are given."""
        return () if self.label is None else (self.first, self.label)

    def index(self, ts: Whole) -> Whole:
        """The step by its months, with a label by the border between two labels."""
        index = (_converted(ts, "datetime64[ms]", "datetime64[M]") - self.first) // self.months
        if self.label is None or self.bucket:
            return index
        return index + (ts >= self._border(index + 1)) - (ts < self._border(index))

    def time(self, index: Whole) -> Whole:
        """A step's start, or its label: at most its last day, at least its start."""
        start = self._start(index)
        if not self.label:
            return start
        end = self._start(index + 1)
        if self.label < 0:
            return _bounded(end + self.label, start, end)
        return _bounded(start + self.label, start, end - DAY + self.label % DAY)

    def end(self, index: int) -> int:
        """The start of the next step."""
        return self._start(index + 1)

    def _start(self, index: Whole) -> Whole:
        return _converted(index * self.months + self.first, "datetime64[M]", "datetime64[ms]")

    def _border(self, index: Whole) -> Whole:
        """Where a step begins that has a label."""
        before, own = self.time(index - 1), self.time(index)
        away = (own - before) * 2 // 5
        return _bounded(self._start(index), before + away, own - away)


def _converted(count: Whole, unit: str, to: str) -> Whole:
    converted = np.asarray(count, np.int64).astype(unit).astype(to).astype(np.int64)
    return int(converted) if isinstance(count, int) else converted


def _bounded(value: Whole, least: Whole, most: Whole) -> Whole:
    bounded = np.minimum(np.maximum(value, least), most)
    return int(bounded) if isinstance(value, int) else bounded
