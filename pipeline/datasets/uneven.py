"""Times that no one grid of steps has, and times that a grid's steps lie beside: asked, or said."""

from calendar import day_name

import polars as pl

from pipeline.datasets.spacing import FEWEST, infer_freq
from pipeline.windows.steps import DAY, WORKDAYS, Grid
from tidecast.errors import DataError
from tidecast.freq import MILLISECONDS, Freq, format_duration, steps_in_words

SHOWN = 3
"""Most series that a line names."""
FEW_DAYS = 4
"""The most days of a month that are a pattern."""
ALIKE = 1.25
"""The factor up to which typical spacings are those of one step."""
HOUR = MILLISECONDS["h"]


def check_steps(frame: pl.DataFrame) -> None:
    """Raises DataError if series of a frame have different steps, all steady: which one is meant is open."""
    step = pl.col("ts").diff().over("series").alias("step")
    spacing = frame.select("series", "ts").unique().sort("series", "ts").select("series", step).drop_nulls()
    typical = spacing.group_by("series").agg(pl.col("step").median(), count=pl.len())
    steady = typical.filter(pl.col("count") >= FEWEST).sort("step", "series")
    jumps = (steady["step"] > ALIKE * steady["step"].shift()).fill_null(False)
    if not jumps.any():
        return
    found: dict[str, list[str]] = {}
    for _, group in steady.with_columns(group=jumps.cum_sum()).group_by("group", maintain_order=True):
        if freq := infer_freq(frame.filter(pl.col("series").is_in(group["series"].implode()))):
            found.setdefault(freq, []).extend(group["series"])
    if len(found) > 1:
        each = "; ".join(f"{steps_in_words(freq, None)}: {_named(names)}" for freq, names in found.items())
        way = f"--freq says which are meant, such as {next(iter(found))}, or with --aggregate mean {list(found)[-1]}"
        raise DataError(f"series have different steps ({each}): {way}; or forecast them apart")


def check_days(frame: pl.DataFrame, freq: str | None) -> None:
    """Raises DataError for steps of days that only some days of a month or a week have: they are not even."""
    length = 0 if freq is None else Freq.parse(freq).milliseconds
    days = frame.select("series", day=pl.col("ts") // DAY).unique().sort("series", "day")
    spacing = days.select(pl.col("day").diff().over("series"))["day"].drop_nulls() * DAY
    if length <= DAY or length % DAY or len(spacing) < FEWEST or (spacing % length == 0).all():
        return
    dates = days["day"].unique().sort().cast(pl.Int32).cast(pl.Date)
    last = dates.dt.month_end() == dates
    of_month = pl.select(pl.when(last).then(pl.lit("last")).otherwise(dates.dt.day().cast(pl.String))).to_series()
    of_week = dates.dt.weekday().unique().sort()
    if of_month.n_unique() <= FEW_DAYS:
        on, longer = f"days {', '.join(of_month.unique(maintain_order=True))} of a month", "1mo"
    elif len(of_week) < WORKDAYS:
        on, longer = ", ".join(day_name[day - 1] for day in of_week), "1w"
    else:
        return
    way = f"--freq {longer} --aggregate sum (or mean) makes even ones, --freq {freq} takes them as if they were"
    raise DataError(f"the times are on {on}, which are no even steps: {way}")


def check_phases(frame: pl.DataFrame, freq: str, offset: str | None) -> None:
    """Raises DataError if series have their times at different places of a calendar's steps, each at a steady one."""
    away = (
        _away(frame, freq, offset)
        .group_by("series")
        .agg(middle=pl.col("away").median(), spread=pl.col("away").max() - pl.col("away").min(), count=pl.len())
    )
    away = away.filter(pl.col("count") >= FEWEST).sort("middle", "series")
    if len(away) < 2 or away["middle"][-1] - away["middle"][0] <= max(HOUR * 12, float(away["spread"].max())):  # type: ignore[arg-type]
        return
    first, last = (away.filter(pl.col("middle") == away["middle"][end])["series"].to_list() for end in (0, -1))
    raise DataError(
        f"series have their times at different days of steps of {freq} ({_named(first)}; {_named(last)}): --offset "
        "says at which all are forecast, such as 0d or -1d; or forecast them apart"
    )


def beside_steps(frame: pl.DataFrame, freq: str | None, offset: str | None) -> str:
    """How far times lie from a calendar's steps, whose times forecasts have; nothing if they lie at them."""
    if freq is None or not Freq.parse(freq).months:
        return ""
    most = float(_away(frame, freq, offset)["away"].abs().max())  # type: ignore[arg-type]
    return f"times lie up to {format_duration(most)} from the steps'; forecasts are at these" if most >= DAY else ""


def _away(frame: pl.DataFrame, freq: str, offset: str | None) -> pl.DataFrame:
    """How far each time is from its step's, in milliseconds."""
    ts, grid = frame["ts"].to_numpy(), Grid.parse(freq, offset=offset)
    return frame.select("series", away=pl.Series(ts - grid.time(grid.index(ts))))


def _named(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more
