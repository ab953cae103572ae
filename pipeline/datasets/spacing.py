"""The grid that a history's times are on: the spacing of its steps (freq), and where they lie (offset)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.windows.steps import DAY, HOUR, MONDAY, WORKDAYS, Grid, Ints
from tidecast.errors import ConfigError
from tidecast.freq import BUSINESS, MILLISECONDS, MONTH, Freq, Offset

Reals = npt.NDArray[np.float64]
_NATURAL = {
    "ms": (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500),
    "s": (*range(1, 11), 12, 15, 20, 30, 45),
    "m": (*range(1, 11), 12, 15, 20, 30, 45),
    "h": (1, 2, 3, 4, 6, 8, 12),
    "d": (1, 2, 3),
    "w": (1, 2, 4),
}
STEPS = [count * MILLISECONDS[unit] for unit, counts in _NATURAL.items() for count in counts]
"""The steps that times with jitter are taken for."""
MONTHS = (1, 2, 3, 4, 6, 12)
"""Those of a calendar."""
UNITS = [*reversed(MILLISECONDS.items())]
"""Units from the longest to the shortest."""
ROUND = (("h", 1), ("m", 30), ("m", 15), ("m", 5), ("m", 1), ("s", 30), ("s", 10), ("s", 1), ("ms", 100), ("ms", 10))
"""Round times of day, from the roundest on."""
STEADIER = 1.2
"""By which factor times vary less from one end of a month, where it is the farther one, to be counted from there."""
QUANTILES = (0.5, 0.25)
CLOSE, NEAR, REGULAR = 0.05, 0.25, 0.7
"""Jitter: spacings are on average so close to a natural step, and so many of them so near to a multiple of it."""
FEWEST = 8
"""The fewest spacings from which a step is told in spite of jitter."""


def infer_freq(frame: pl.DataFrame) -> str | None:
    """Infer the spacing of a frame's series, such as "30m", "1mo" or "B"; None if they are irregular.

    It is what most steps have; or with jitter the natural step, such as 1h, that nearly all are about a multiple of.
    """
    rows = frame.select("series", "ts").unique().sort("series", "ts")
    ts = rows["ts"].to_numpy()
    within = np.flatnonzero((rows["series"] == rows["series"].shift()).fill_null(False).to_numpy())
    if not len(within):
        return None
    place = _months(ts)
    spacing, in_months = ts[within] - ts[within - 1], place[within] - place[within - 1]
    exact, share = _most_common(spacing)
    months, month_share = _most_common(np.rint(in_months).astype(np.int64))
    if not (months > 0 and month_share > max(share, 0.5) and _about(in_months, months)):
        months = 0 if share > 0.5 else _natural(in_months, MONTHS)
    if months:
        return f"{months}mo" if months % 12 else f"{months // 12}y"
    kept = share > 0.5 and (exact in STEPS or _keeps_pace(spacing, exact))
    step = exact if kept else _natural(spacing, STEPS) or (exact if share > 0.5 else 0)
    if step == DAY and _workdays(ts):
        return BUSINESS
    return next((f"{step // length}{unit}" for unit, length in UNITS if step and step % length == 0), None)


def infer_offset(frame: pl.DataFrame, freq: str | None, bucket: bool = False) -> str | None:
    """Infer where steps of `freq` lie, such as "30m"; None where they are best counted from 1970.

    The border between two steps is where fewest events lie. Steps that events are aggregated in (`bucket`) are left as
    they are, except that weeks begin on Mondays.
    """
    if freq is None or frame.is_empty():
        return None
    step, ts = Freq.parse(freq), frame["ts"].to_numpy()
    if bucket:
        return "0d" if step.unit == "w" else None
    if step.months:
        return _calendar_offset(ts, step.months)
    base = MONDAY if step.unit == "w" else 0
    length = step.milliseconds
    middle, spread = _opposite((ts - base) % length, length)
    shift = _rounded(middle, min(spread / 2, (length - spread) / 4)) % length
    if step.business:
        return _business_offset(frame, shift)
    away = (base + shift) % length
    return None if 100 * min(away, length - away) <= length else str(Offset(0, shift))


def on_weekends(ts: Ints, offset: str | None) -> int:
    """How many times are on weekends, as of business days with this offset."""
    shift = 0 if offset is None else Offset.parse(offset).milliseconds - DAY // 2
    return int((((ts - shift) // DAY + 3) % 7 >= WORKDAYS).sum())


def _most_common(numbers: Ints) -> tuple[int, float]:
    """The most common number, and its share."""
    found, counts = np.unique(numbers, return_counts=True)
    return int(found[counts.argmax()]), float(counts.max() / len(numbers))


def _natural(spacing: npt.NDArray[Any], steps: Sequence[int]) -> int:
    """The longest of some steps that spacings with jitter are about; 0 if none is."""
    if len(spacing) < FEWEST:
        return 0
    typical = np.quantile(spacing, QUANTILES)
    tried = [step for step in steps if (np.abs(typical / step - 1) <= NEAR).any()]
    return max((step for step in tried if _about(spacing, step)), default=0)


def _keeps_pace(spacing: Ints, step: int) -> bool:
    """Whether most spacings are whole steps, and the others do not add up to half a step or more."""
    whole = spacing % step == 0
    return bool(np.mean(whole) >= REGULAR and abs((spacing - np.rint(spacing / step) * step).sum()) < step / 2)


def _about(spacing: npt.NDArray[Any], step: int) -> bool:
    """Whether most spacings are about a step, the others about several of it, and steps as long as this on average."""
    steps = np.rint(spacing / step)
    near = (steps >= 1) & (np.abs(spacing / step - steps) <= NEAR)
    common = near.mean() >= REGULAR and 2 * (near & (steps == 1)).sum() > len(spacing)
    return bool(common and abs(spacing.sum() / steps.sum() / step - 1) <= CLOSE)


def _months(ts: Ints) -> Reals:
    """Times in months since 1970, with the part of a month that has passed."""
    month = ts.astype("datetime64[ms]").astype("datetime64[M]")
    start, end = (each.astype("datetime64[ms]").astype(np.int64) for each in (month, month + 1))
    return np.asarray(month.astype(np.int64) + (ts - start) / (end - start))


def _workdays(ts: Ints) -> bool:
    """Whether daily times, of two weeks or more, are on five days of the week, and never on the two others."""
    offset = infer_offset(pl.DataFrame({"ts": ts}), BUSINESS)
    days = np.unique(Grid.parse(BUSINESS, offset=offset).index(ts))
    all_five = len(np.unique(days % WORKDAYS)) == WORKDAYS
    return bool(ts.max() - ts.min() >= 14 * DAY and all_five and not on_weekends(ts, offset))


def _business_offset(frame: pl.DataFrame, shift: int) -> str | None:
    """The offset with the usual time of day; `shift` is in the middle of all times of day.

    Of the days of the week it has those that leave the fewest times to weekends. Series of different times of day keep
    their own, without an offset, if their days are those of UTC.
    """
    ts = frame["ts"].to_numpy()
    nearest = [shift + days * DAY for days in (0, -1, 1)]
    middle = min(nearest, key=lambda each: on_weekends(ts, str(Offset(0, each))))
    offset, away = str(Offset(0, middle)), (ts - middle + DAY // 2) % DAY - DAY // 2
    if _differ(frame.with_columns(away=away)):
        return None if _same_steps(ts, BUSINESS, offset) else offset
    low, median, high = (int(each) for each in np.quantile(away, (0.05, 0.5, 0.95), method="nearest"))
    usual = str(Offset(0, _rounded(middle + median, (high - low) / 2)))
    offset = usual if _same_steps(ts, BUSINESS, usual, offset) else offset
    return None if offset == "0d" and _same_steps(ts, BUSINESS, offset) else offset


def _differ(frame: pl.DataFrame) -> bool:
    """Whether the usual times of day, `away` from some time, differ by more than an hour between series."""
    if "series" not in frame.columns:
        return False
    usual = frame.group_by("series").agg(pl.col("away").median(), pl.len()).filter(pl.col("len") >= FEWEST)["away"]
    return len(usual) > 1 and bool(np.ptp(usual.to_numpy()) > HOUR)


def _calendar_offset(ts: Ints, months: int) -> str | None:
    """The offset of steps of so many months: from the start of the month, or from its end, whichever varies less.

    If one has all times as they are, as the 30th of each month or its last day, it is that one.
    """
    middle, _ = _opposite(_months(ts) % months, months)
    step = np.floor((_months(ts) - middle) / months + 0.5).astype(np.int64)
    found = []
    for month in (int(middle // 1), int(middle // 1) + 1):
        start = (step * months + month).astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)
        low, median, high = (int(each) for each in np.quantile(ts - start, (0.02, 0.5, 0.98), method="nearest"))
        tolerance = min((high - low) / 2, (months * MONTH - high + low) / 8)
        found.append((abs(median), high - low, month % months, _rounded(median, tolerance)))
    near, far = sorted(found)
    steadier = STEADIER * far[1] < near[1] and far[0] < 28 * DAY * months
    tried = [str(Offset(*each[2:])) for each in ((far, near) if steadier else (near, far))]
    offset = next((each for each in tried if _all_on(ts, f"{months}mo", each)), tried[0])
    return None if offset == "0d" and _same_steps(ts, f"{months}mo", offset) else offset


def _all_on(ts: Ints, freq: str, offset: str) -> bool:
    """Whether all times are those of steps."""
    try:
        grid = Grid.parse(freq, offset=offset)
    except ConfigError:  # an offset as long as a step
        return False
    return np.array_equal(grid.time(grid.index(ts)), ts)


def _same_steps(ts: Ints, freq: str, offset: str, other: str | None = None) -> bool:
    return np.array_equal(Grid.parse(freq, offset=other).index(ts), Grid.parse(freq, offset=offset).index(ts))


def _opposite(places: npt.NDArray[Any], length: int) -> tuple[float, float]:
    """The point of a circle opposite to the emptiest arc of it, the one nearest to 0 of several; the rest's width.

    If no half of the circle is empty, the arc may have one place in fifty.
    """
    places = np.sort(places)
    for few in (0, len(places) // 50):
        arcs = np.concatenate([places, places + length])[few + 1 : few + 1 + len(places)] - places
        if 2 * arcs.max() >= length:
            break
    widest = np.flatnonzero(arcs >= arcs.max() * 0.99)
    opposite = (places[widest] + (arcs[widest] + length) / 2) % length
    nearest = np.minimum(opposite, length - opposite).argmin()
    return float(opposite[nearest]), float(length - arcs.max())


def _rounded(milliseconds: float, tolerance: float) -> int:
    """The roundest time within this tolerance."""
    tried = (DAY, DAY // 2, DAY // 4, *(count * MILLISECONDS[unit] for unit, count in ROUND))
    near = (round(milliseconds / unit) * unit for unit in tried)
    if 2 * abs(milliseconds) <= tolerance:
        return 0
    return next((each for each in near if abs(each - milliseconds) <= tolerance), round(milliseconds))
