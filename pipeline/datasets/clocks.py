"""Wall clocks as moments: the hour that a clock shows twice in autumn, and the one that it skips in spring."""

from typing import Literal

import polars as pl

from pipeline.datasets.tables import Table, first_of, said
from pipeline.datasets.times import Times
from pipeline.windows.steps import DAY, HOUR
from tidecast.errors import ConfigError

KNOWN = ("Europe/Berlin", "Europe/London", "America/New_York", "Europe/Athens", "Australia/Sydney")
"""Clocks with a summer time that a file's may be like; each changes at hours or on days of its own."""
ONE_TIME = 0.9
"""The share of a time of day that is the usual one."""


def check_timezone(name: str) -> None:
    """Raises ConfigError unless there is such a zone."""
    try:
        _moments(pl.Series([0], dtype=pl.Int64), name, "earliest")
    except pl.exceptions.PolarsError:
        raise ConfigError(f"timezone: {name!r} is not a zone such as Europe/Berlin or UTC") from None


def as_moments(
    table: Table, column: str, times: Times, series: pl.Series, zone: str | None
) -> tuple[pl.Series, list[str]]:
    """The times in epoch milliseconds, null in an hour that the zone's clock skipped, and what to say of them.

    Where a clock shows an hour twice, a series' first row of a time is the first. Without a zone, clocks are UTC's.
    Raises DataError for times of which only some have an offset.
    """
    if zone is None and times.wall.any() and not times.wall.all():
        at = first_of(times.wall)
        what = f"{table.columns[column][at]!r} has no offset from UTC, and other times have one"
        raise table.fault(at, column, f"{what}: --timezone tells the zone of times without")
    if zone is None or not times.wall.any():
        return times.ms, [f"{said(column)} has moments, which --timezone does not change"] if zone else []
    if (times.ms % DAY == 0).all():
        return times.ms, [f"{said(column)} has dates, so --timezone changes nothing"]
    rows = _placed(series, times.ms, zone)
    counts = rows.filter(times.wall).select(
        twice=(pl.col("first") != pl.col("second")).sum(),
        once=((pl.col("first") != pl.col("second")) & (pl.col("of") == 1)).sum(),
        skipped=pl.col("first").is_null().sum(),
    )
    texts = {
        "twice": f"of an hour that {zone} showed twice, a series' first row of a time taken as the first",
        "once": "of such an hour, and there once: taken as the first",
        "skipped": f"of an hour that {zone} skipped: left out",
    }
    notes = [f"{count:,} row{'s' * (count > 1)} {text}" for name, text in texts.items() if (count := counts[name][0])]
    return rows.select(pl.when(times.wall).then("moment").otherwise("ms").alias("ts")).to_series(), notes


def zone_of(table: Table, column: str, times: Times, zone: str | None) -> str | None:
    """The zone whose clock a file's times are in: the one told, or that of the column; None for dates."""
    of_column = getattr(table.columns.schema.get(column), "time_zone", None)
    return None if times.wall.all() and (times.ms % DAY == 0).all() else zone or of_column


def on_clock(frame: pl.DataFrame, zone: str) -> pl.DataFrame:
    """A frame whose moments `ts` (epoch ms) are what the zone's clock shows, as if that were in UTC."""
    shown = pl.from_epoch("ts", time_unit="ms").dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    return frame.with_columns(ts=shown.dt.replace_time_zone(None).dt.epoch("ms"))


def in_zone(ts: pl.Series, zone: str, *, clock: bool) -> pl.Series:
    """Times (epoch ms) as datetimes in a zone; with `clock` they are what its clock shows, else moments.

    An hour that the clock skips is the one after, one that it shows twice the first.
    """
    naive = pl.from_epoch(ts, time_unit="ms")
    if not clock:
        return naive.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    shown = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    skipped = naive.dt.offset_by("1h").dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return shown.fill_null(skipped)


def like_a_clock(series: pl.Series, ms: pl.Series) -> str | None:
    """A zone by whose clock the series are evenly spaced where their times alone are not, if there is one."""
    time = pl.from_epoch("ms", time_unit="ms").dt
    nights = (time.weekday() == 7) & (time.hour() < 6) & time.month().is_in((3, 4, 9, 10, 11))
    rows = pl.DataFrame([series.alias("series"), ms.alias("ms")]).filter(nights).sort("series", "ms")
    steps = _steps(rows, "ms").filter(pl.col("step") > 0)["step"].mode()
    if steps.is_empty() or (step := int(steps.min())) > HOUR:  # type: ignore[arg-type]
        return None
    even = {None: _even(rows, "ms", step)}
    for zone in KNOWN:
        placed = _placed(rows["series"], rows["ms"], zone)
        if not placed["moment"].has_nulls():
            even[zone] = _even(placed, "moment", step)  # type: ignore[index]
    return max(even, key=lambda zone: even[zone])


def days_of_zone(frame: pl.DataFrame) -> str | None:
    """A zone whose clock shows one time of day, best midnight, for moments `ts` (epoch ms) of several in UTC."""
    if _usual(frame)[0] >= ONE_TIME:
        return None
    found = {zone: _usual(on_clock(frame, zone)) for zone in KNOWN}
    zone = max(found, key=lambda each: found[each])
    return zone if found[zone][0] >= ONE_TIME else None


def _usual(frame: pl.DataFrame) -> tuple[float, bool]:
    """The share of the most common time of day, and whether that is midnight."""
    time, count = frame.group_by(pl.col("ts") % DAY).len().sort("len", "ts").row(-1)
    return count / len(frame), time == 0


def _steps(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    return rows.sort("series", column).select(step=pl.col(column).diff().over("series")).drop_nulls()


def _even(rows: pl.DataFrame, column: str, step: int) -> int:
    return int((_steps(rows, column)["step"] == step).sum())


def _placed(series: pl.Series, ms: pl.Series, zone: str) -> pl.DataFrame:
    """A clock's times as moments: the `first` and the `second` that it showed them, and which of them each row is."""
    rows = pl.DataFrame(
        [
            series.alias("series"),
            ms.alias("ms"),
            _moments(ms, zone, "earliest").alias("first"),
            _moments(ms, zone, "latest").alias("second"),
        ]
    )
    turn, of = pl.int_range(pl.len()).over("series", "ms"), pl.len().over("series", "ms")
    backwards = (pl.col("ms").first() > pl.col("ms").last()).over("series")
    earlier = pl.when(backwards).then(turn == of - 1).otherwise(turn == 0)
    return rows.with_columns(of=of, moment=pl.when(earlier).then("first").otherwise("second"))


def _moments(ms: pl.Series, zone: str, ambiguous: Literal["earliest", "latest"]) -> pl.Series:
    clock = pl.select(
        pl.from_epoch(ms, time_unit="ms").dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null")
    )
    return clock.to_series().dt.epoch("ms")
