"""Which columns of a table hold the series, the time and the values: by option, or found by names and contents."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from pipeline.datasets.clocks import check_timezone
from pipeline.datasets.keys import (
    interleaved,
    is_row_number,
    labels_beside_values,
    naming_columns,
    repeated_share,
)
from pipeline.datasets.numbers import is_missing, is_numeric
from pipeline.datasets.separated import UNNAMED
from pipeline.datasets.tables import Table, listed
from pipeline.datasets.times import MONTHS, looks_like_time
from tidecast.errors import DataError

SERIES = (
    *("series", "uniqueid", "seriesid", "itemid", "key", "sensor", "sensorid", "device", "deviceid", "entityid"),
    *("host", "hostname", "machine", "machineid", "station", "stationid", "meter", "meterid", "symbol", "ticker", "id"),
)
TIMES = ("ts", "ds", "timestamp", "datetime", "date", "time", "eventtime", "datum", "zeit", "zeitstempel")
VALUES = ("value", "y")
"""Usual names, as `plain` writes them."""
TOGETHER = {
    "date": (("date", "time"), ("date", "hour")),
    "datum": (("datum", "zeit"), ("datum", "uhrzeit")),
    "": (("year", "month", "day", "hour"), ("year", "month", "day"), ("year", "month")),
}
"""Columns that make up one time together, by the time column that is found without them."""
CLOCKS = ("hour", "hr", "hh", "time", "minute", "period", "interval", "timeofday")
"""Usual names of the time of day."""
HOURS = 24
"""The last hour of a day, as some count them from 1."""
FEW_REPEATS = 0.05
"""The share of rows up to which they may repeat others, and be left out."""
SAMPLED = 100
"""Cells by which a column of times is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns to read, and how their cells are written. What is None is found."""

    series: str | None = None
    """The name of each row's series; of several columns, separated by commas, the parts of it."""
    ts: str | None = None
    """The time; of two columns, the date and the time of day."""
    value: str | None = None
    """The measurement, if `features` is the default single value; of several columns, each a series."""
    features: tuple[str, ...] = ("value",)
    """The values of one series at one time; if not the default, the columns of these names."""
    decimal: str | None = None
    """The decimal separator; the other one of point and comma may stand between thousands."""
    na: tuple[str, ...] = ()
    """More texts that stand for no value."""
    timezone: str | None = None
    """The zone of times without an offset; None is UTC."""
    time_format: str | None = None
    """How times are written, as strptime has it, or the unit of an epoch: s, ms, us, ns."""
    max_skipped: float = FEW_REPEATS
    """The largest share of measurements that may be left out."""
    aggregated: bool = False
    """Whether several measurements of a series at one time are meant, because they are aggregated."""

    def __post_init__(self) -> None:
        if self.timezone is not None:
            check_timezone(self.timezone)


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns found. With more value columns than features the file is wide: each is a series."""

    series: tuple[str, ...]
    values: tuple[str, ...]
    row_numbers: tuple[str, ...] = ()
    """Columns that only number the rows."""
    unused: tuple[str, ...] = ()
    """Columns that are not read for another reason."""


def plain(name: str) -> str:
    """A name as the usual ones are written: small letters and digits only."""
    return re.sub(r"[\W_]+", "", name.lower())


def _guess(table: Table, names: Sequence[str]) -> str | None:
    known = {plain(column): column for column in reversed(table.columns.columns)}
    return next((known[name] for name in names if name in known), None)


def _named(table: Table, given: str) -> str:
    found = given if given in table.columns.columns else plain(given) and _guess(table, [plain(given)])
    if not found:
        raise DataError(f"{table.name}: no column {given!r} among {listed(table.columns.columns)}")
    return found


def _named_all(table: Table, given: str) -> tuple[str, ...]:
    """One column, or several separated by commas."""
    names = [given] if given in table.columns.columns else [name.strip() for name in given.split(",")]
    found = tuple(dict.fromkeys(_named(table, name) for name in names))
    if len(found) < len(names):
        raise DataError(f"{table.name}: {given!r} names a column twice")
    return found


def find_time(table: Table, columns: Columns) -> tuple[Table, str | None]:
    """The name of the time column, if there is one; columns that make up a time together are joined first."""
    if columns.ts:
        return _together(table, _named_all(table, columns.ts))
    found = _guess(table, TIMES)
    for names in TOGETHER.get(plain(found or ""), ()):
        parts = tuple(column for name in names if (column := _guess(table, [name])))
        if len(parts) == len(names) and (names[0] == "year" or _are_date_and_clock(table, *parts)):
            return _together(table, parts)
    return table, found or _only_times(table, columns)


def _only_times(table: Table, columns: Columns) -> str | None:
    """The one column of dates or times, whatever it is called. Raises DataError if there are several."""
    named = columns.series.split(",") if columns.series else []
    found = [name for name in table.columns.columns if name not in named and _holds_times(table.columns[name])]
    if len(found) > 1:
        raise DataError(f"{table.name}: which column is the time among {listed(found)}? Name it with --time-column")
    return found[0] if found else None


def _holds_times(cells: pl.Series) -> bool:
    if cells.dtype != pl.String:
        return cells.dtype == pl.Date or isinstance(cells.dtype, pl.Datetime)
    given = cells.drop_nulls().head(SAMPLED).str.strip_chars()
    return len(given) > 0 and looks_like_time(given.unique().to_list())


def _are_date_and_clock(table: Table, date: str, clock: str) -> bool:
    dates, clocks = (table.columns[name].cast(pl.String).fill_null("").str.strip_chars() for name in (date, clock))
    return not dates.str.contains(":").any() and clocks.str.contains(r"^\d{1,2}(:\d\d|$)").all()


def _together(table: Table, parts: tuple[str, ...]) -> tuple[Table, str]:
    """Columns joined to one of times: year, month, day and hour, or a date and the time of day."""
    if len(parts) == 1:
        return table, parts[0]
    cells = [table.columns[part].cast(pl.String).fill_null("").str.strip_chars() for part in parts]
    numbers = plain(parts[0]) == "year"
    dates, clocks = (_joined_date(*cells[:3]), cells[3:]) if numbers else (cells[0], cells[1:])
    if clocks:
        _check_hours(table, parts[-1])
    for clock in (each.str.strip_prefix("HE") for each in clocks):
        whole = pl.select(pl.when(clock.str.contains(r"^\d{1,2}$")).then(clock.str.zfill(2) + ":00").otherwise(clock))
        dates = dates + "T" + whole.to_series()
    name = "+".join(parts)
    return replace(table, columns=table.columns.drop(parts).with_columns(dates.alias(name))), name


def _joined_date(year: pl.Series, month: pl.Series, *day: pl.Series) -> pl.Series:
    numbers = {name: str(number) for number, name in enumerate(MONTHS, start=1)}
    month = month.str.to_lowercase().str.slice(0, 3).replace(numbers)
    return pl.select(pl.concat_str(year, *(part.str.zfill(2) for part in (month, *day)), separator="-")).to_series()


def find_layout(
    table: Table, columns: Columns, ts: str | None, ms: pl.Series | None, freq: str | None = None
) -> Layout:
    """Which columns to read; `ms` are the rows' times, if they have any. Raises DataError where that is open."""
    if ms is None and freq is None:
        raise DataError(
            f"{table.name}: no column of times among {listed(table.columns.columns)}: name it with --time-column, or, "
            "if the rows are evenly spaced, give their spacing with --freq (such as 30m)"
        )
    series = _series(table, columns)
    values = _given_values(table, columns, series)
    others = [name for name in table.columns.columns if name not in {*series, *values, ts}]
    numbers = tuple(name for name in others if is_row_number(table, name))
    if not values and len(numbers) == len(others):
        numbers = tuple(name for name in numbers if UNNAMED.fullmatch(name))
    others = [name for name in others if name not in numbers]
    named = columns.series or columns.value or columns.features != Columns().features
    if ms is not None and columns.max_skipped < 1 and not (columns.aggregated and named):
        _check_times(table, series, others, ms, measured=not values)
    values = values or _value_columns(table, columns, series, others)
    return Layout(series, values, numbers, tuple(name for name in others if name not in values))


def _series(table: Table, columns: Columns) -> tuple[str, ...]:
    if columns.series:
        return _named_all(table, columns.series)
    found = _guess(table, SERIES)
    unique = found is not None and plain(found) == "id" and table.columns[found].is_unique().all()
    return () if found is None or unique else (found,)


def _given_values(table: Table, columns: Columns, series: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of values that options or usual names tell."""
    if columns.features != Columns().features:
        return tuple(_named(table, name) for name in columns.features)
    if columns.value:
        found = _named_all(table, columns.value)
        if series and len(found) > 1:
            raise DataError(f"{table.name}: with a column of series there is one of values; several are --features")
        return found
    value = _guess(table, VALUES)
    return (value,) if value else ()


def _check_times(
    table: Table, series: tuple[str, ...], others: Sequence[str], ms: pl.Series, *, measured: bool
) -> None:
    """Raises DataError for rows that are of several series, by columns that no option names."""
    rows = pl.DataFrame([ms.alias("ms"), *(table.columns[name].alias(f"series {name}") for name in series)])
    if repeated_share(rows) <= FEW_REPEATS:
        among = [name for name in others if not _is_clock(table, name)]
        if not series and (name := interleaved(table, ms, among, measured=measured)):
            raise DataError(f"{table.name}: rows are of several series by {name!r}: --series-column {name}")
        return
    found = naming_columns(table, rows, others, FEW_REPEATS)
    if clock := next((name for name in found if _is_clock(table, name)), None):
        _check_hours(table, clock)
        what = f"give date and time of day as --time-column DATE,{clock}"
        raise DataError(f"{table.name}: rows repeat their times: {what}")
    if found:
        named = ",".join((*series, *found))
        raise DataError(
            f"{table.name}: rows repeat their times: name the series' columns with --series-column {named} "
            "(--max-skipped 1 reads them as they are)"
        )


def _is_clock(table: Table, name: str) -> bool:
    """Whether a column tells the time of day, by its name or as 14:00 and HE14 do."""
    cells = table.columns[name].cast(pl.String).fill_null("").str.strip_chars()
    words = {word.lower() for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name)}
    named = not words.isdisjoint(CLOCKS) or plain(name) in CLOCKS or plain(name).endswith(("period", "interval"))
    return named or bool(cells.str.contains(r"^(?:\d{1,2}:\d\d(?::\d\d)?|(?i:HE)\d{1,2})$").all())


def _is_empty(table: Table, name: str) -> bool:
    return bool(is_missing(table.columns[name].cast(pl.String).fill_null("").str.strip_chars()).all())


def _check_hours(table: Table, name: str) -> None:
    """Raises DataError for a column that numbers the steps of a day, such as half-hours from 1 to 48, and not hours."""
    numbers = table.columns[name].cast(pl.String).str.strip_chars().str.replace(r"\.0*$", "")
    most = numbers.filter(numbers.str.contains(r"^\d{1,3}$")).cast(pl.Int64).max()
    if isinstance(most, int) and most > HOURS and not numbers.str.contains(":").any():
        minutes = next((minutes for minutes in (60, 30, 15, 10, 5) if most <= (HOURS + 1) * 60 // minutes), 1)
        raise DataError(
            f"{table.name}: {name!r} numbers the steps of a day, up to {most}, which are no hours: add a column of "
            f"times, as the UTC time of the date's midnight + ({name} - 1) x {minutes} min, for --time-column"
        )


def _value_columns(table: Table, columns: Columns, series: tuple[str, ...], others: Sequence[str]) -> tuple[str, ...]:
    """Where no column is called value: the only one, the only numeric one, or, without a series, all of them."""
    others = [name for name in others if plain(name) not in SERIES]
    others = [name for name in others if not _is_empty(table, name)] or others
    if not others:
        raise DataError(f"{table.name}: no column of values among {listed(table.columns.columns)}")
    numbers = tuple(name for name in others if is_numeric(table, name, columns.na))
    if len(others) == 1 or len(numbers) == 1:
        return numbers or tuple(others)
    name_it = "Name it with --value-column"
    if not series:
        name_it += " (several, if each is a series), and the one that names the series, if any, with --series-column"
    if not numbers or len(numbers) < len(others) or series:
        raise DataError(f"{table.name}: which column is the value among {listed(others)}? {name_it}")
    if labels := labels_beside_values(table, numbers):
        few = f"{listed(labels)} only {'has' if len(labels) == 1 else 'have'} a few whole numbers"
        raise DataError(f"{table.name}: which columns are values among {listed(others)}? {few}. {name_it}")
    return numbers
