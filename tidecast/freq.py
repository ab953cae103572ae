"""A freq, the spacing of steps such as 30m or 1mo, its offset, and durations such as 90s: read and written."""

import re
from calendar import day_name, month_name
from dataclasses import dataclass
from math import ceil
from typing import Self

from tidecast.errors import ConfigError

MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
"""The units of one length, from the shortest to the longest."""
MONTHS = {"mo": 1, "y": 12}
"""The units of a calendar, in months."""
MONTH = 2_629_746_000
"""Milliseconds of a month, on average."""
YEAR = 12 * MONTH
"""Milliseconds of a year, on average."""
BUSINESS = "B"
"""The unit of business days, Monday to Friday."""
_FREQ = re.compile(rf"([1-9]\d{{0,7}})({'|'.join([*MILLISECONDS, *MONTHS])})")
_TERM = re.compile(rf"([+-]?)(\d{{1,8}})({'|'.join(sorted([*MILLISECONDS, *MONTHS], key=len, reverse=True))})")


@dataclass(frozen=True, slots=True)
class Freq:
    """So many of a unit: of one length, counted in a calendar's months, or business days."""

    count: int
    unit: str
    """One of MILLISECONDS or MONTHS, or BUSINESS."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """A freq such as 250ms, 15s, 30m, 1h, 1d, B (business days), 1w, 1mo or 1y. Raises ConfigError."""
        if text.upper() == BUSINESS:
            return cls(1, BUSINESS)
        parsed = _FREQ.fullmatch(text)
        if parsed is None:
            raise ConfigError(f"freq: {text!r} is not like 250ms, 15s, 30m, 1h, 1d, B, 1w, 1mo or 1y")
        return cls(int(parsed[1]), parsed[2])

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    @property
    def business(self) -> bool:
        """Whether its steps are business days."""
        return self.unit == BUSINESS

    @property
    def milliseconds(self) -> int:
        """Its length, of a business day a day; 0 where a calendar's months have it."""
        return self.count * MILLISECONDS.get("d" if self.business else self.unit, 0)

    @property
    def months(self) -> int:
        """Its months; 0 where it has one length."""
        return self.count * MONTHS.get(self.unit, 0)


@dataclass(frozen=True, slots=True)
class Offset:
    """Where a grid's steps lie: of a calendar the month in which one starts, and its time within it.

    Weeks count from a Monday, other steps of one length from 1970 in UTC, calendar steps from January. A calendar
    step's `milliseconds` count from its start, negative ones from its end.
    """

    months: int
    milliseconds: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """An offset such as 30m, 2mo (from March), -1d (the last day of a month), 6mo-1d (30 June). Raises ConfigError.

        A sign holds for all that follows it, up to the next one.
        """
        terms = list(_TERM.finditer(text))
        if not terms or "".join(term[0] for term in terms) != text:
            raise ConfigError(f"offset: {text!r} is not like 30m, 16h, 2mo, -1d or 6mo-1d")
        months, milliseconds, sign = 0, 0, 1
        for term in terms:
            sign = {"+": 1, "-": -1}.get(term[1], sign)
            months += sign * int(term[2]) * MONTHS.get(term[3], 0)
            milliseconds += sign * int(term[2]) * MILLISECONDS.get(term[3], 0)
        return cls(months, milliseconds)

    def __str__(self) -> str:
        parts, rest = [f"{self.months}mo"] if self.months else [], abs(self.milliseconds)
        sign = "-" if self.milliseconds < 0 else "+" if self.months < 0 else ""
        for unit in ("d", "h", "m", "s", "ms"):
            count, rest = divmod(rest, MILLISECONDS[unit])
            if count:
                parts.append(f"{sign}{count}{unit}")
                sign = ""
        return "".join(parts) or "0d"


def steps_in_words(freq: str | None, offset: str | None) -> str:
    """A grid for people: hourly, at minute 30; quarterly from March; monthly, at month end; weekly, on Sundays."""
    if freq is None:
        return "each event is a step: the times are not evenly spaced"
    step, shift = Freq.parse(freq), None if offset is None else Offset.parse(offset)
    words = _WORDS.get(str(step), f"every {freq}")
    if shift is None:
        return words
    if step.months:
        return words + _calendar_words(step.months, shift)
    day, clock = divmod(shift.milliseconds, MILLISECONDS["d"])
    at = _clock(clock)
    if step.unit == "w":
        return f"{words}, {'on' if step.count == 1 else 'from'} {day_name[day % 7]}s{f' at {at}' if clock else ''}"
    if step.business:
        return f"{words}{f', at {at}' if clock else ''}{f', {day:+} d' if day else ''}"
    if step.milliseconds == MILLISECONDS["d"]:
        return f"{words}, at {at}"
    if step.milliseconds > MILLISECONDS["h"]:
        return f"{words}, from {at if step.unit == 'h' else offset}"
    if step.milliseconds < MILLISECONDS["m"]:
        return f"{words}, from {offset}"
    return f"{words}, {'at' if step.milliseconds == MILLISECONDS['h'] else 'from'} minute {at.removeprefix('00:')}"


_WORDS = {"1s": "every second", "1m": "every minute", "1h": "hourly", "1d": "daily", "1w": "weekly", "1mo": "monthly"}
_WORDS |= {"3mo": "quarterly", "1y": "yearly", "12mo": "yearly", "1B": "business days"}


def _calendar_words(months: int, shift: Offset) -> str:
    """Where a calendar step's time lies."""
    within, day = shift.milliseconds, MILLISECONDS["d"]
    if within == -day:
        return ", at month end" if months == 1 else f", at the end of {month_name[(shift.months - 1) % 12 + 1]}"
    named = "" if months == 1 else f" from {month_name[shift.months % 12 + 1]}"
    if not within:
        return named
    if within < 0:
        return f"{named}, {Offset(0, -within)} before the end"
    return f"{named}, on day {within // day + 1}{f' at {_clock(within % day)}' if within % day else ''}"


def _clock(milliseconds: int) -> str:
    """A time of day: 16:00, or with seconds if there are any."""
    seconds = milliseconds // 1000
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}" + (f":{seconds % 60:02}" if seconds % 60 else "")


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as 250ms, 90s, 5m, 12h or 7d; 0 is one too. Raises ValueError."""
    parsed = _FREQ.fullmatch(text)
    if text != "0" and (parsed is None or parsed[2] in MONTHS):
        raise ConfigError(f"{text!r} is no duration such as 250ms, 90s, 5m, 12h or 7d")
    return 0 if parsed is None else int(parsed[1]) * MILLISECONDS[parsed[2]]


def format_duration(milliseconds: float, *, whole: bool = False) -> str:
    """A length of time for people, such as 1.5 h or 14 d; `whole`: such as 2 h, in seconds or longer units."""
    unit, length = _unit(max(milliseconds, MILLISECONDS["s"]) if whole else milliseconds)
    return f"{milliseconds / length:{'.0f' if whole else '.3g'}} {unit}"


def round_up_duration(milliseconds: int) -> str:
    """The shortest duration in whole units, as parse_duration reads it, that is not less: 90,000 is 2m."""
    unit, length = _unit(milliseconds)
    return f"{ceil(milliseconds / length)}{unit}"


def _unit(milliseconds: float) -> tuple[str, int]:
    """The longest unit up to a day that is not longer than this, and its milliseconds."""
    fitting = [unit for unit in MILLISECONDS.items() if unit[0] != "w" and unit[1] <= milliseconds]
    return fitting[-1] if fitting else ("ms", 1)
