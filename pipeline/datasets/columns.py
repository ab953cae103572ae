"""Which columns of a table hold the series, the time and the values: by option, or found by their names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from pipeline.datasets.tables import Table, listed
from tidecast.errors import DataError

SERIES = ("series", "unique_id", "series_id", "item_id", "key", "sensor", "device", "id")
TIMES = ("ts", "ds", "timestamp", "datetime", "date_time", "date", "time")
VALUES = ("value", "y")
TOGETHER = {"date": (("date", "time"),), "": (("year", "month", "day"), ("year", "month"))}
"""Columns that make up one time together, by the time column that is found without them."""
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns to read. One that is None is found by its usual names, in any case."""

    series: str | None = None
    """The name of each row's series."""
    ts: str | None = None
    """The time: ISO 8601 (UTC without a zone), a date or month, or an epoch in seconds to nanoseconds."""
    value: str | None = None
    """The measurement, if `features` is the default single value."""
    features: tuple[str, ...] = ("value",)
    """The values of one series at one time; if not the default, the columns of these names."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns found. With more value columns than features the file is wide: each is a series."""

    series: str | None
    values: tuple[str, ...]


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _guess(table: Table, names: Sequence[str]) -> str | None:
    known = {_plain(column): column for column in reversed(table.columns.columns)}
    return next((known[name] for name in names if name in known), None)


def _named(table: Table, given: str) -> str:
    found = given if given in table.columns.columns else _guess(table, [_plain(given)])
    if found is None:
        raise DataError(f"{table.name}: no column {given!r} among {listed(table.columns.columns)}")
    return found


def find_time(table: Table, columns: Columns) -> tuple[Table, str | None]:
    """The name of the time column, if there is one; columns that make up a time together are joined first."""
    if columns.ts:
        return table, _named(table, columns.ts)
    found = _guess(table, TIMES)
    for names in TOGETHER.get(_plain(found or ""), ()):
        parts = [column for name in names if (column := _guess(table, [name]))]
        if len(parts) == len(names):
            joined = "+".join(parts)
            cells = [table.columns[part].cast(pl.String).str.strip_chars() for part in parts]
            time_of_day = names[1] == "time"
            date_time = cells[0] + "T" + cells[1] if time_of_day else _joined_date(*cells)
            return replace(table, columns=table.columns.drop(parts).with_columns(date_time.alias(joined))), joined
    return table, found


def _joined_date(year: pl.Series, month: pl.Series, *day: pl.Series) -> pl.Series:
    numbers = {name: str(number) for number, name in enumerate(MONTHS, start=1)}
    month = month.str.to_lowercase().str.slice(0, 3).replace(numbers)
    return pl.select(pl.concat_str(year, *(part.str.zfill(2) for part in (month, *day)), separator="-")).to_series()


def find_layout(table: Table, columns: Columns, ts: str | None, freq: str | None) -> Layout:
    """Which columns to read. Raises DataError where that is open."""
    if ts is None and freq is None:
        raise DataError(
            f"{table.name}: no column of times among {listed(table.columns.columns)}: name it with --time-column, or, "
            "if the rows are evenly spaced, give their spacing with --freq (such as 30m)"
        )
    series = _named(table, columns.series) if columns.series else _guess(table, SERIES)
    if series and _plain(series) == "id" and not columns.series and table.columns[series].is_unique().all():
        series = None  # a row number
    if columns.features != Columns().features:
        return Layout(series, tuple(_named(table, name) for name in columns.features))
    value = _named(table, columns.value) if columns.value else _guess(table, VALUES)
    return Layout(series, (value,) if value else _value_columns(table, series, ts))


def _value_columns(table: Table, series: str | None, ts: str | None) -> tuple[str, ...]:
    """Where no column is called value: the only numeric one, or, without a series, all of them."""
    others = [name for name in table.columns.columns if name not in {series, ts, ""} and _plain(name) not in SERIES]
    if not others:
        raise DataError(f"{table.name}: no column of values among {listed(table.columns.columns)}")
    numbers = tuple(name for name in others if table.numeric(name))
    if not numbers or len(numbers) < len(others) or (series and len(numbers) > 1):
        raise DataError(
            f"{table.name}: which column is the value among {listed(others)}? Name it with --value-column"
            + ("" if series else ", and the one that names the series, if there is one, with --series-column")
        )
    return numbers
