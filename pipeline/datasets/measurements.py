"""Files and standard input as measurements.

Three layouts are understood. Columns that no option names are found by their usual names:

    long     series, ts, value   (or unique_id, ds, y): one measurement per row
    single   ts, value           one series, named after the file
    wide     date, HUFL, OT, ... one time per row, each numeric column a series
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.datasets.columns import Columns, Layout, find_layout, find_time
from pipeline.datasets.tables import Table, read_table
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import MAX_AHEAD, MIN_TIME, Event, check_series
from pipeline.windows.steps import Grid
from tidecast.errors import DataError

CHUNK = 8_192
START = MIN_TIME
"""The first time of a file without times: 2000-01-01, in epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """A file's measurements: series (String), ts (Int64, epoch ms), a Float64 column per feature, in the file's order.

    `skipped` counts measurements without a value; `notes` tell the user how the file was read.
    """

    frame: pl.DataFrame
    skipped: int
    notes: tuple[str, ...]


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
    table, ts = find_time(table, columns)
    layout = find_layout(table, columns, ts, freq)
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


def _generated_times(table: Table, layout: Layout, freq: str) -> tuple[pl.Series, str]:
    """Times of each series' rows, one step of `freq` apart, from START on."""
    grid = Grid.parse(freq)
    row = pl.int_range(pl.len())
    steps = table.columns.select(row.over(layout.series) if layout.series else row).to_series().to_numpy()
    note = f"no column of times: rows are steps of {freq} from 2000-01-01 on"
    return pl.Series(grid.time(grid.index(START) + steps)), note


def _long(table: Table, layout: Layout, ts: pl.Series, features: Sequence[str], stem: str) -> pl.DataFrame:
    series = table.names(layout.series) if layout.series else pl.repeat(stem, len(ts), eager=True)
    values = [table.numbers(name).alias(feature) for name, feature in zip(layout.values, features, strict=True)]
    return pl.DataFrame([series.alias("series"), ts.alias("ts"), *values])


def _wide(table: Table, layout: Layout, ts: pl.Series) -> pl.DataFrame:
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
