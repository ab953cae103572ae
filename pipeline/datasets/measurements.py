"""Files and standard input as measurements.

Three layouts are understood. Columns that no option names are found by their usual names:

    long     series, ts, value   (or unique_id, ds, y): one measurement per row
    single   ts, value           one series, named after the file
    wide     date, HUFL, OT, ... one time per row, each numeric column a series
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.datasets.tables import Table, listed, read_table
from pipeline.formats.errors import InvalidEvent
from pipeline.formats.events import MAX_AHEAD, MIN_TIME, Event, check_series
from pipeline.windows.grid import Grid
from tidecast.errors import DataError

CHUNK = 8_192
SERIES = ("series", "unique_id", "series_id", "item_id", "key", "sensor", "device", "id")
TIMES = ("ts", "ds", "timestamp", "datetime", "date_time", "date", "time")
VALUES = ("value", "y")
TOGETHER = {"date": (("date", "time"),), "": (("year", "month", "day"), ("year", "month"))}
"""Columns that make up one time together, by the time column that is found without them."""
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
START = MIN_TIME
"""The first time of a file without times: 2000-01-01, in epoch milliseconds."""


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
class Measurements:
    """A file's measurements: series (String), ts (Int64, epoch ms), a Float64 column per feature, in the file's order.

    `skipped` counts measurements without a value; `notes` tell the user how the file was read.
    """

    frame: pl.DataFrame
    skipped: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """The columns found. With more value columns than features the file is wide: each is a series."""

    series: str | None
    values: tuple[str, ...]


def read_file(path: str, columns: Columns | None = None, *, freq: str | None = None) -> Measurements:
    """Read a file, or standard input for ``-``: CSV, JSON lines or Parquet, gzipped or not.

    A file without times needs `freq` (such as "30m"): its rows become steps from 2000-01-01 on. Raises DataError with
    the row and column of the first fault; a file is read as a whole or not at all.
    """
    return measurements(read_table(path), columns, freq=freq, stem=stem_of(path))


def measurements(
    table: Table, columns: Columns | None = None, *, freq: str | None = None, stem: str = "value"
) -> Measurements:
    """The measurements in a table; `stem` names its series if no column does. Raises DataError."""
    columns = columns or Columns()
    table, ts = _with_time(table, columns)
    layout = _layout(table, columns, ts, freq)
    times, note = table.times(ts) if ts else _generated_times(table, layout, freq or "")
    wide = len(layout.values) > len(columns.features)
    frame = _wide(table, layout, times) if wide else _long(table, layout, times, columns.features, stem)
    kept = frame.drop_nulls()
    if kept.is_empty():
        raise DataError(f"{table.name}: no row has a value")
    skipped = len(frame) - len(kept)
    notes = (note, f"{skipped:,} of {len(frame):,} measurements have no value: skipped" if skipped else "")
    return Measurements(kept, skipped, tuple(filter(None, notes)))


def publishable(frame: pl.DataFrame) -> Iterator[Event]:
    """The frame's rows as events for a topic, by time. Raises DataError at once for times that readers refuse."""
    _check_times(frame)
    return events(frame, frame.drop("series", "ts").columns)


def events(frame: pl.DataFrame, features: Sequence[str] = ("value",)) -> Iterator[Event]:
    """The frame's rows as events by time; those of the same time in the frame's order."""
    for part in frame.sort("ts", maintain_order=True).iter_slices(CHUNK):
        values = zip(*(part[name].to_list() for name in features), strict=True)
        yield from map(Event, part["series"].to_list(), part["ts"].to_list(), values)


def _check_times(frame: pl.DataFrame) -> None:
    latest = int(time.time() * 1000) + MAX_AHEAD
    for wrong, why in ((pl.col("ts") < MIN_TIME, "before 2000-01-01"), (pl.col("ts") > latest, "in the future")):
        if count := len(frame.filter(wrong)):
            raise DataError(f"{count:,} of {len(frame):,} measurements lie {why}, which readers of a topic refuse")


def stem_of(path: str) -> str:
    """The name of a file's series if no column has one."""
    return "stdin" if path == "-" else Path(path.removesuffix(".gz")).stem


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


def _with_time(table: Table, columns: Columns) -> tuple[Table, str | None]:
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


def _generated_times(table: Table, layout: _Layout, freq: str) -> tuple[pl.Series, str]:
    """Times of each series' rows, one step of `freq` apart, from START on."""
    grid = Grid.parse(freq)
    row = pl.int_range(pl.len())
    steps = table.columns.select(row.over(layout.series) if layout.series else row).to_series().to_numpy()
    note = f"no column of times: rows are steps of {freq} from 2000-01-01 on"
    return pl.Series(grid.time(grid.index(START) + steps)), note


def _layout(table: Table, columns: Columns, ts: str | None, freq: str | None) -> _Layout:
    if ts is None and freq is None:
        raise DataError(
            f"{table.name}: no column of times among {listed(table.columns.columns)}: name it with --time-column, or, "
            "if the rows are evenly spaced, give their spacing with --freq (such as 30m)"
        )
    series = _named(table, columns.series) if columns.series else _guess(table, SERIES)
    if series and _plain(series) == "id" and not columns.series and table.columns[series].is_unique().all():
        series = None  # a row number
    if columns.features != Columns().features:
        return _Layout(series, tuple(_named(table, name) for name in columns.features))
    value = _named(table, columns.value) if columns.value else _guess(table, VALUES)
    return _Layout(series, (value,) if value else _value_columns(table, series, ts))


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


def _long(table: Table, layout: _Layout, ts: pl.Series, features: Sequence[str], stem: str) -> pl.DataFrame:
    series = table.names(layout.series) if layout.series else pl.repeat(stem, len(ts), eager=True)
    values = [table.numbers(name).alias(feature) for name, feature in zip(layout.values, features, strict=True)]
    return pl.DataFrame([series.alias("series"), ts.alias("ts"), *values])


def _wide(table: Table, layout: _Layout, ts: pl.Series) -> pl.DataFrame:
    """Each value column as a series, row by row, as a stream would deliver them."""
    for name in layout.values:
        try:
            check_series(name)
        except InvalidEvent as error:
            raise DataError(f"{table.name}: column {name!r}: {error.detail}") from None
    cells = pl.DataFrame([table.numbers(name) for name in layout.values]).to_numpy()
    return pl.DataFrame(
        {
            "series": list(layout.values) * len(ts),
            "ts": np.repeat(ts.to_numpy(), len(layout.values)),
            "value": pl.Series(cells.ravel()).fill_nan(None),
        }
    )
