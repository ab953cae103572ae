"""The seasons of a series, by the spacing of its steps."""

from tidecast.freq import MILLISECONDS, YEAR, Freq

SEASONS = {"day": MILLISECONDS["d"], "week": MILLISECONDS["w"]}


def seasonal_lags(freq: str | None) -> dict[str, int]:
    """The seasons of a series that are two or more whole steps: a day and a week, or a year of months or (52) weeks.

    None, for events without a grid, has no seasons. Raises ValueError for what is not like a freq.
    """
    if freq is None:
        return {}
    step = Freq.parse(freq)
    if step.months or step.unit == "w":
        part, year = (step.months, 12) if step.months else (step.count, 52)
        return {"year": year // part} if year % part == 0 and part < year else {}
    length = step.milliseconds
    return {name: season // length for name, season in SEASONS.items() if length < season and season % length == 0}


def shortest_lag(freq: str | None) -> int:
    """The shortest season in steps; 1 where there is none, which makes the seasonal naive the last value."""
    return min(seasonal_lags(freq).values(), default=1)


def step_length(freq: str | None) -> int:
    """A step in milliseconds; in months on a calendar's grid, 0 without a grid."""
    step = None if freq is None else Freq.parse(freq)
    return 0 if step is None else step.months or step.milliseconds


def calendar_cycles(freq: str | None) -> dict[str, int]:
    """A day, a week and a year in the unit of `step_length`: those that hold two steps or more."""
    if freq is None:
        return {}
    cycles = {"year": 12} if Freq.parse(freq).months else {**SEASONS, "year": YEAR}
    return {name: length for name, length in cycles.items() if 2 * step_length(freq) <= length}
