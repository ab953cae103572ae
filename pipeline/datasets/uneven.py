"""Times that no one grid of steps has, and steps of a grid that no times have: asked, or said."""

from calendar import day_name
from collections.abc import Sequence

import polars as pl

from pipeline.datasets.clocks import days_of_zone
from pipeline.datasets.spacing import FEWEST, infer_freq
from pipeline.windows.steps import DAY, HOUR, WORKDAYS, Grid
from tidecast.errors import DataError
from tidecast.freq import Freq, format_duration, steps_in_words

SHOWN = 3
"""Most series that a line names."""
FEW_DAYS = 4
"""The most days of a month that are a pattern."""
ALIKE = 1.25
"""The factor up to which typical spacings are those of one step."""
WEEKEND = [5, 6]
CHANCE = 0.01
"""How likely it is by chance that any series never has some weekday or hour, at most."""
WEEKS, DAYS = 2, 5
"""The fewest of a history by which weekdays, and hours of the day, are known to be never there."""


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
    """Raises DataError if series have their times at different places of a calendar's steps, each at a steady one.

    Business days without an offset have each series' own time of day.
    """
    business = Freq.parse(freq).business
    if business and offset is None:
        return
    away = (
        _away(frame, freq, offset)
        .group_by("series")
        .agg(middle=pl.col("away").median(), spread=pl.col("away").max() - pl.col("away").min(), count=pl.len())
    )
    away = away.filter(pl.col("count") >= FEWEST).sort("middle", "series")
    least = HOUR if business else max(HOUR * 12, float(away["spread"].max() or 0))  # type: ignore[arg-type]
    if len(away) < 2 or away["middle"][-1] - away["middle"][0] <= least:
        return
    first, last = (away.filter(pl.col("middle") == away["middle"][end])["series"].to_list() for end in (0, -1))
    raise DataError(
        f"series have their times at different {'times of day' if business else 'days'} of steps of {freq} "
        f"({_named(first)}; {_named(last)}): --offset says at which all are forecast, such as "
        f"{'0d or 16h' if business else '0d or -1d'}; or forecast them apart"
    )


def remarks(frame: pl.DataFrame, freq: str | None, offset: str | None, bucket: bool) -> list[str]:
    """What to say of the times of a frame on a grid: those beside its steps, and steps that are never there."""
    beside = "" if bucket else beside_steps(frame, freq, offset)
    return [note for note in (beside, never_there(frame, freq, offset, bucket), by_a_clock(frame, freq)) if note]


def by_a_clock(frame: pl.DataFrame, freq: str | None) -> str:
    """Days or longer steps that are at one time of day by the clock of a zone, and not in UTC; nothing if in UTC."""
    if freq is None or Grid.parse(freq).mean_step < DAY or not (zone := days_of_zone(frame)):
        return ""
    return (
        f"times of day change with summer time, as by the clock of {zone}: forecasts are all at one in UTC; "
        f"tidecast forecast --timezone {zone}, or one like it, goes by the clock"
    )


def never_there(frame: pl.DataFrame, freq: str | None, offset: str | None, bucket: bool = False) -> str:
    """Weekdays and hours of the day that all or some series never have, and forecasts do; nothing if there are none."""
    length = 0 if freq is None else Freq.parse(freq).milliseconds
    if freq is None or not 0 < length <= DAY or Freq.parse(freq).business:
        return ""
    grid = Grid.parse(freq, bucket, offset)
    steps = frame.select("series", ts=pl.Series(grid.time(grid.index(frame["ts"].to_numpy())), dtype=pl.Int64))
    found = {f"on {_weekdays(days)}": names for days, names in _never(steps, DAY, WEEKS, weekend=length < DAY).items()}
    part = max(length, HOUR)
    if length < DAY and DAY % part == 0:
        found |= {
            f"from {_hours(parts, part)} UTC": names for parts, names in _never(steps, part, DAYS, weekend=True).items()
        }
    if not found:
        return ""
    count, weekends = frame["series"].n_unique(), _weekdays(WEEKEND)
    parts = [what + ("" if len(names) == count else f" in {_named(names)}") for what, names in found.items()]
    more = f"; and {len(parts) - SHOWN:,} patterns more" if len(parts) > SHOWN else ""
    unit = {DAY: "day", HOUR: "hour"}.get(length, "step")
    way = "leave those there out"
    if f"on {weekends}" in found:
        way += ", or --freq B has no weekends" if length == DAY else ", or --freq B --aggregate mean has days"
    if any(len(names) < count for names in found.values()):
        way += ", or forecast these series apart"
    return f"no values {'; '.join(parts[:SHOWN])}{more}: they are gaps; forecasts are for every {unit}: {way}"


def _never(steps: pl.DataFrame, part: int, least: int, *, weekend: bool) -> dict[tuple[int, ...], list[str]]:
    """Series by which days of the week, or parts of the day, they never have in at least so many weeks or days.

    Monday to Friday alone are enough in a shorter history, with a `weekend` in it or without.
    """
    cycle, first = (7, 3) if part == DAY else (DAY // part, 0)
    unit = (pl.col("ts") // part + first).alias("unit")
    each = (
        steps.select("series", unit)
        .unique()
        .group_by("series", maintain_order=True)
        .agg(
            present=(pl.col("unit") % cycle).unique().sort(),
            cycles=(pl.col("unit").max() - pl.col("unit").min() + 1) / cycle,
            count=pl.len(),
        )
    )
    missed = (1 - pl.col("count") / (pl.col("cycles") * pl.col("present").list.len())).clip(0, 1)
    by_chance = missed ** pl.col("cycles").floor() * cycle * len(each)
    known = (pl.col("cycles") >= least) & (by_chance <= CHANCE)
    spans = (pl.col("cycles") * cycle > WORKDAYS) | (not weekend)
    workdays = (pl.col("present") == list(range(WORKDAYS))) & (part == DAY) & spans
    found: dict[tuple[int, ...], list[str]] = {}
    for name, present in each.filter(known | workdays).select("series", "present").sort("series").iter_rows():
        if missing := tuple(sorted(set(range(cycle)) - set(present))):
            found.setdefault(missing, []).append(name)
    return found


def _weekdays(days: Sequence[int]) -> str:
    return "weekends" if list(days) == WEEKEND else ", ".join(f"{day_name[day]}s" for day in days)


def _hours(parts: Sequence[int], part: int) -> str:
    """Parts of a day as spans: 17:00 to 08:00."""
    count, hours = DAY // part, part // HOUR
    starts = [place for place in parts if (place - 1) % count not in parts]
    ends = [next(end for end in range(start + 1, start + count) if end % count not in parts) for start in starts]
    spans = zip(starts, ends, strict=True)
    return ", ".join(f"{start * hours:02}:00 to {end % count * hours:02}:00" for start, end in spans)


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
