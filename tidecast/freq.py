"""A freq, the spacing of a series' steps such as 30m or 1mo, and lengths of time such as 90s: read and written."""

import re
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
_FREQ = re.compile(rf"([1-9]\d{{0,7}})({'|'.join([*MILLISECONDS, *MONTHS])})")


@dataclass(frozen=True, slots=True)
class Freq:
    """So many of a unit: either of one length, or counted in a calendar's months."""

    count: int
    unit: str
    """One of MILLISECONDS or MONTHS."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """A freq such as 250ms, 15s, 30m, 1h, 1d, 1w, 1mo or 1y. Raises ValueError."""
        parsed = _FREQ.fullmatch(text)
        if parsed is None:
            raise ConfigError(f"freq: {text!r} is not like 250ms, 15s, 30m, 1h, 1d, 1w, 1mo or 1y")
        return cls(int(parsed[1]), parsed[2])

    @property
    def milliseconds(self) -> int:
        """Its length; 0 where a calendar's months have it."""
        return self.count * MILLISECONDS.get(self.unit, 0)

    @property
    def months(self) -> int:
        """Its months; 0 where it has one length."""
        return self.count * MONTHS.get(self.unit, 0)


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
