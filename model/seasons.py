"""The seasons and calendar cycles of a series, derived from its freq."""

from tidecast.freq import MILLISECONDS, YEAR, Freq

SEASONS = {"day": MILLISECONDS["d"], "week": MILLISECONDS["w"]}


def seasonal_lags(freq: str | None) -> dict[str, int]:
    """The lags, in steps, of the calendar's seasons that are a whole number of steps, two or more; ascending.

    A day and a week (5 business days); for months or weeks a year (12 or 52 steps of one). Without a freq there are
    none. Raises ConfigError for an invalid freq.
    """
    if freq is None:
        return {}
    step = Freq.parse(freq)
    if step.months or step.unit == "w":
        part, year = (step.months, 12) if step.months else (step.count, 52)
        return {"year": year // part} if year % part == 0 and part < year else {}
    length = step_length(freq)
    return {name: season // length for name, season in SEASONS.items() if length < season and season % length == 0}


def step_length(freq: str | None) -> int:
    """The length of a step in milliseconds, of a business day a fifth of a week, in months for months; 0 for None."""
    step = None if freq is None else Freq.parse(freq)
    if step is None:
        return 0
    return MILLISECONDS["w"] // 5 if step.business else step.months or step.milliseconds


def calendar_cycles(freq: str | None) -> dict[str, int]:
    """The cycles day, week and year of at least two steps, in the unit of `step_length`."""
    if freq is None:
        return {}
    cycles = {"year": 12} if Freq.parse(freq).months else {**SEASONS, "year": YEAR}
    return {name: length for name, length in cycles.items() if 2 * step_length(freq) <= length}
