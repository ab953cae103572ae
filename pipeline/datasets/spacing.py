"""The grid that a history's times are on: the spacing of its steps (freq), and where they lie (offset)."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.windows.steps import DAY, MONDAY, WORKDAYS, Grid, Ints
from tidecast.freq import BUSINESS, MILLISECONDS, Freq, Offset

Reals = npt.NDArray[np.float64]
NATURAL = {
    "ms": (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500),
    "s": (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30),
    "m": (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30),
    "h": (1, 2, 3, 4, 6, 8, 12),
    "d": (1,),
    "w": (1, 2, 4),
}
"""The steps that times with jitter are taken for, by unit."""
UNITS = [*reversed(MILLISECONDS.items())]
"""Units from the longest to the shortest."""
ROUND = (("h", 1), ("m", 30), ("m", 15), ("m", 5), ("m", 1), ("s", 30), ("s", 10), ("s", 1), ("ms", 100), ("ms", 10))
"""Round times of day, from the roundest on."""
QUANTILES = (0.5, 0.25)
CLOSE, NEAR, REGULAR = 0.05, 0.25, 0.8
"""Jitter: the typical spacing is so close to a natural step, and so many are so near to a multiple of it."""
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
    if months > 0 and month_share > max(share, 0.5) and _about(in_months, months):
        return f"{months}mo" if months % 12 else f"{months // 12}y"
    kept = share > 0.5 and (_is_natural(exact) or np.mean(spacing % exact == 0) >= REGULAR)
    step = exact if kept else _natural(spacing) or (exact if share > 0.5 else 0)
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
        return _business_offset(ts, shift)
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


def _is_natural(step: int) -> bool:
    return any(step == count * MILLISECONDS[unit] for unit, counts in NATURAL.items() for count in counts)


def _natural(spacing: Ints) -> int:
    """The natural step, or the whole minutes, hours or days, that spacings with jitter are about; 0 if none is."""
    if len(spacing) < FEWEST:
        return 0
    typical = np.quantile(spacing, QUANTILES)
    natural = [count * MILLISECONDS[unit] for unit, counts in NATURAL.items() for count in counts]
    whole = [round(each / length) * length for _, length in UNITS for each in typical]
    tried = (step for step in (*natural[::-1], *whole) if step and (np.abs(typical / step - 1) <= NEAR).any())
    return next((step for step in tried if _about(spacing, step)), 0)


def _about(spacing: npt.NDArray[Any], step: int) -> bool:
    """Whether nearly all spacings are about a multiple of a step, and those of one step are close to it on average."""
    steps = np.rint(spacing / step)
    near = (steps >= 1) & (np.abs(spacing / step - steps) <= NEAR)
    single = spacing[near & (steps == 1)]
    common = near.mean() >= REGULAR and 2 * len(single) > len(spacing)
    return bool(common and abs(np.median(single) / step - 1) <= CLOSE)


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


def _business_offset(ts: Ints, shift: int) -> str | None:
    """The offset with this time of day; of the days of the week those that leave the fewest times to weekends."""
    nearest = [str(Offset(0, shift + days * DAY)) for days in (0, -1, 1)]
    offset = min(nearest, key=lambda each: on_weekends(ts, each))
    return None if offset == "0d" and _same_steps(ts, BUSINESS, offset) else offset


def _calendar_offset(ts: Ints, months: int) -> str | None:
    """The offset of steps of so many months: from the start of the month, or from its end, whichever varies less."""
    middle, _ = _opposite(_months(ts) % months, months)
    step = np.floor((_months(ts) - middle) / months + 0.5).astype(np.int64)
    found = []
    for month in (int(middle // 1), int(middle // 1) + 1):
        start = (step * months + month).astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)
        low, median, high = np.quantile(ts - start, (0.02, 0.5, 0.98), method="nearest")
        found.append((high - low, month % months, _rounded(float(median), (high - low) / 2)))
    _, first, within = min(found, key=lambda each: (each[0], abs(each[2])))
    offset = str(Offset(first, within))
    return None if offset == "0d" and _same_steps(ts, f"{months}mo", offset) else offset


def _same_steps(ts: Ints, freq: str, offset: str) -> bool:
    return np.array_equal(Grid.parse(freq).index(ts), Grid.parse(freq, offset=offset).index(ts))


def _opposite(places: npt.NDArray[Any], length: int) -> tuple[float, float]:
    """The point of a circle opposite to the emptiest arc of it, the one nearest to 0 of several; the rest's width.

    If a quarter of the circle is nowhere empty, the arc may have one place in fifty.
    """
    places = np.sort(places)
    for few in (0, len(places) // 50):
        arcs = np.concatenate([places, places + length])[few + 1 : few + 1 + len(places)] - places
        if arcs.max() >= length / 4:
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
