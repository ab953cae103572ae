"""Files and standard input as measurements.

Three layouts are understood. Columns that no option names are found by their usual names, or by what they hold:

    long     series, ts, value   (or unique_id, ds, y): one measurement per row
    single   ts, value           one series, named after the file
    wide     date, HUFL, OT, ... one time per row, each numeric column a series

What was found is in the notes; what may be read in two ways is refused, with the option that tells.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from polars import selectors

from pipeline.datasets.clocks import as_moments, like_a_clock, zone_of
from pipeline.datasets.columns import Columns, Layout, find_layout, find_time
from pipeline.datasets.margins import without_margins
from pipeline.datasets.numbers import find_decimal, read_numbers
from pipeline.datasets.tables import Table, read_table, said
from pipeline.datasets.times import looks_like_time, read_times
from pipeline.formats.clock import MAX_AHEAD
from pipeline.formats.columnar.points import Chunk
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import Event
from pipeline.formats.series import check_series
from pipeline.formats.times import MIN_TIME
from pipeline.windows.steps import Grid
from tidecast.errors import DataError

CHUNK = 8_192
START = MIN_TIME
"""The first time of a file without times: 2000-01-01, in epoch milliseconds."""
SEPARATOR = "/"
"""Between the parts of a series' name that are of several columns."""
SHOWN = 3
"""Most columns, or words for no value, that a note names."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """A file's measurements: series (String), ts (Int64, epoch ms), a Float64 column per feature, in the file's order.

    `skipped` counts those that are not in the frame; `notes` tell the user how the file was read. `left_out` counts, by
    the reason, what the file has and a training does not use.
    """

    name: str
    frame: pl.DataFrame
    skipped: int
    notes: tuple[str, ...]
    left_out: Mapping[str, int]
    series: tuple[str, ...] = ()
    """The columns of series."""
    time: str | None = None
    """The column of times."""
    zone: str | None = None
    """The zone whose clock they are in, if it is known."""

    def checked(self, most: float, instead: str = "") -> Self:
        """The same, for a training. Raises DataError, and tells what to do `instead`, if more than this is left out."""
        count, total = sum(self.left_out.values()), len(self.frame) + self.skipped
        if count > most * total:
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in self.left_out.items() if number)
            instead = instead or f"--max-skipped {ceil(100 * count / total) / 100:g} goes on without them"
            what = f"{count:,} of {total:,} measurements, {count / total:.1%}, are left out: {reasons}"
            raise DataError(f"{self.name}: {what}. {instead}")
        return self


def read_file(path: str, columns: Columns | None = None, *, freq: str | None = None) -> Measurements:
    """Read a file, or standard input for ``-``: CSV, JSON lines or Parquet, gzipped or not.

    A file without times needs `freq` (such as "30m"): its rows become steps from 2000-01-01 on. Raises DataError with
    the row and column of the first fault; a file is read as a whole or not at all.
    """
    return measurements(read_table(path), columns, freq=freq, stem=stem_of(path))


def measurements(
    table: Table, columns: Columns | None = None, *, freq: str | None = None, stem: str = "value"
) -> Measurements:
    """The measurements in a table; `stem` names its series if no column does. Raises DataError, ConfigError."""
    columns = columns or Columns()
    table, ts = find_time(without_margins(table), columns)
    if ts and table.delimiter and looks_like_time([ts]):
        raise DataError(f"{table.name}: the first line is data: put a line of names above it, such as series,ts,value")
    read = None if ts is None else read_times(table, ts, columns.time_format)
    layout = find_layout(table, columns, ts, None if read is None else read.ms, freq)
    series = _series(table, layout, stem)
    clock_notes: list[str] = []
    if ts is None or read is None:
        times, time_note = _steps(series, str(freq)), f"no column of times: rows are steps of {freq} from 2000-01-01 on"
    else:
        times, clock_notes = as_moments(table, ts, read, series, columns.timezone)
        time_note = f"times from {said(ts)}" + (f", {read.note}" if read.note else "")
    cells, words, decimal, doubts = _cells(table, layout, columns)
    wide = len(layout.values) > len(columns.features)
    frame = _wide(table, cells, times) if wide else _long(cells, series, times, columns.features)
    kept = frame.drop_nulls()
    if kept.is_empty():
        raise DataError(f"{table.name}: no row has a value")
    repeats = len(kept) - kept.select("series", "ts").n_unique()
    found = (_found(layout, kept), time_note, _values(layout, wide=wide), decimal, _unused(layout))
    hint = _clock_hint(kept) if read and read.wall.any() and columns.timezone is None else ""
    left = (_missing(frame, words), _repeated(repeats, len(kept)))
    notes = ("; ".join(filter(None, found)), *table.notes, *doubts, *clock_notes, *left, hint)
    left_out = _left_out(frame, words, columns, repeats)
    zone = None if ts is None or read is None else zone_of(table, ts, read, columns.timezone)
    return Measurements(
        table.name, kept, len(frame) - len(kept), tuple(filter(None, notes)), left_out, layout.series, ts, zone
    )


def _left_out(frame: pl.DataFrame, words: Mapping[str, int], columns: Columns, repeats: int) -> dict[str, int]:
    """What the file has and a training does not use, by the reason; cells that are empty, by an option too, are not."""
    told = {word.lower() for word in columns.na}
    return {
        **{repr(word): count for word, count in words.items() if word.lower() not in told},
        "of an hour that the clock skipped": _with_values(frame)["ts"].null_count(),
        "of a series and time that were there before": 0 if columns.aggregated else repeats,
    }


def _with_values(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop_nulls(selectors.exclude("ts"))


def publishable(frame: pl.DataFrame) -> Iterator[Event]:
    """The frame's rows as events for a topic, by time. Raises DataError at once for times that readers refuse."""
    _check_times(frame)
    return events(frame, frame.drop("series", "ts").columns)


def publishable_columns(frame: pl.DataFrame) -> Iterator[Chunk]:
    """The same in columns."""
    _check_times(frame)
    for part in frame.sort("ts", maintain_order=True).iter_slices(CHUNK):
        values = part.drop("series", "ts").cast(pl.Float64).to_numpy()
        yield Chunk(part["series"].to_list(), part["ts"].to_numpy(), values)


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


def _series(table: Table, layout: Layout, stem: str) -> pl.Series:
    """Each row's series. Raises DataError for a name that is none, or that two series would have."""
    if not layout.series:
        return pl.repeat(stem, len(table.columns), eager=True).alias("series")
    parts = pl.DataFrame([table.names(name).alias(name) for name in layout.series])
    names = parts.select(pl.concat_str(pl.all(), separator=SEPARATOR)).to_series().alias("series")
    if names.n_unique() < parts.n_unique():
        both = parts.with_columns(names).unique(maintain_order=True)["series"]
        raise DataError(f"{table.name}: two series would be called {both.filter(both.is_duplicated())[0]!r}")
    return names


def _steps(series: pl.Series, freq: str) -> pl.Series:
    """Times of each series' rows, one step of `freq` apart, from START on."""
    grid = Grid.parse(freq)
    steps = series.to_frame().select(pl.int_range(pl.len()).over("series")).to_series().to_numpy()
    first = grid.index(START)
    return pl.Series(grid.time(first + (grid.time(first) < START) + steps))


def _cells(table: Table, layout: Layout, columns: Columns) -> tuple[pl.DataFrame, Counter[str], str, list[str]]:
    """The values' columns, the count of each word without a value, the decimal separator if it is said, and notes."""
    decimal, note = find_decimal(table, layout.values, columns.decimal)
    words: Counter[str] = Counter()
    values, notes = [], list[str]()
    for name in layout.values:
        numbers = read_numbers(table, name, decimal, columns.na)
        values.append(numbers.values.alias(name))
        words.update(numbers.words)
        notes += numbers.notes
    return pl.DataFrame(values), words, note, notes


def _long(cells: pl.DataFrame, series: pl.Series, ts: pl.Series, features: Sequence[str]) -> pl.DataFrame:
    values = [cells[name].alias(feature) for name, feature in zip(cells.columns, features, strict=True)]
    return pl.DataFrame([series.alias("series"), ts.alias("ts"), *values])


def _wide(table: Table, cells: pl.DataFrame, ts: pl.Series) -> pl.DataFrame:
    """Each value column as a series, row by row, as a stream would deliver them."""
    for name in cells.columns:
        try:
            check_series(name)
        except InvalidEvent as error:
            raise DataError(f"{table.name}: column {name!r}: {error.detail}") from None
    place = pl.int_range(len(ts), eager=True)
    return pl.DataFrame(
        {
            "series": cells.columns * len(ts),
            "ts": ts.gather(np.repeat(place.to_numpy(), cells.width)),
            "value": pl.Series(cells.to_numpy().ravel()).fill_nan(None),
        }
    )


def _found(layout: Layout, kept: pl.DataFrame) -> str:
    """How many series there are, and by which columns."""
    count = kept["series"].n_unique()
    number = f"{count:,} series" if count > 1 else f"one series, {said(kept['series'][0])}"
    return number + (f" by {_listed(layout.series)}" if layout.series else "")


def _values(layout: Layout, *, wide: bool) -> str:
    if wide:
        return f"a column each: {_listed(layout.values)}"
    return f"value{'s' * (len(layout.values) > 1)} {_listed(layout.values)}"


def _unused(layout: Layout) -> str:
    """Which columns are not read."""
    numbers = f"{_listed(layout.row_numbers)} numbers the rows" if layout.row_numbers else ""
    others = f"not used: {_listed(layout.unused)}" if layout.unused else ""
    return "; ".join(filter(None, (numbers, others)))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN + 1 else ""
    return ", ".join(map(said, names[: SHOWN if more else None])) + more


def _missing(frame: pl.DataFrame, words: Mapping[str, int]) -> str:
    """How many measurements have no value, and which words they have instead."""
    count = len(frame) - len(_with_values(frame))
    if not count:
        return ""
    why = ", ".join(f"{words[word]:,} {word!r}" for word in sorted(words, key=lambda word: -words[word])[:SHOWN])
    return f"{count:,} of {len(frame):,} measurements have no value: skipped" + (f" ({why})" if why else "")


def _repeated(count: int, total: int) -> str:
    if not count:
        return ""
    return f"{count:,} of {total:,} measurements repeat their series' time: without an aggregate, the first counts"


def _clock_hint(kept: pl.DataFrame) -> str:
    """What to do where times without a zone are like a clock's with a summer time."""
    if not (like := like_a_clock(kept["series"], kept["ts"])):
        return ""
    return f"the times are taken as UTC, and look like a clock with summer time: --timezone {like}, or one like it"
