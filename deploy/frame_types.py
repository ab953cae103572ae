"""The types of a user's frame: read as polars, and given back to the series and times of forecasts."""

from dataclasses import replace
from itertools import product
from typing import Any
from zoneinfo import available_timezones

import polars as pl
from polars import selectors

from pipeline.datasets.clocks import in_zone
from pipeline.datasets.tables import Table
from pipeline.datasets.times import EPOCHS, read_times
from tidecast.errors import DataError

ID, TIMES = "unique_id", ("ds", "cutoff")
"""The columns of a result: the series, and times in epoch milliseconds."""
DATES = ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y")
CLOCKS = product(DATES, " T", ("%H:%M", "%H:%M:%S", "%H:%M:%S%.3f", "%H:%M:%S%.6f"), ("", "Z", "+00:00", " UTC"))
FORMATS = (*DATES, "%Y-%m", "%Y", "%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S", *map("".join, CLOCKS))
"""Texts and dates in digits that times are given back as; other texts become datetimes."""
OFFSET = r"\d([+-]\d\d:?\d\d)$"
"""The offset of a time that is text."""
SAMPLE = 1_000
"""Rows by which the format of texts is told."""


def as_columns(frame: Any, name: str) -> Any:
    """A frame with its index among the columns where that has times, or is of several levels, or is `unique_id`.

    Raises DataError for what is neither a polars nor a pandas DataFrame.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if not hasattr(frame, "columns") or not hasattr(frame, "index"):
        raise DataError(f"{name}: {type(frame).__name__} is not a polars or pandas DataFrame")
    index, kept = frame.index, {}
    for level in range(index.nlevels):
        values = index.get_level_values(level)
        is_time = values.dtype.kind == "M" or _is_period(values.dtype)
        label = values.name if values.name is not None else "ds" if is_time else None
        if label is not None and (is_time or index.nlevels > 1 or label == ID) and label not in frame.columns:
            kept[label] = values
    return frame.reset_index(drop=True).assign(**{str(label): values for label, values in kept.items()})


def as_table(frame: Any, name: str) -> Table:
    """A frame of `as_columns` as a table. Raises DataError for one that polars cannot hold."""
    try:
        columns = frame if isinstance(frame, pl.DataFrame) else _from_pandas(frame)
    except (TypeError, ValueError, NotImplementedError, pl.exceptions.PolarsError) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"{name}: a column has values of several types, or of one that is not read ({why})") from None
    if columns.is_empty():
        raise DataError(f"{name}: it has no rows")
    others = [each for each in columns if each.dtype.is_nested() or each.dtype in (pl.Object, pl.Duration, pl.Binary)]
    texts = [pl.Series(each.name, list(map(_text, each.to_list())), pl.String) for each in others]
    columns = columns.with_columns(selectors.boolean().cast(pl.Int8)).with_columns(texts)
    return Table(name, columns, pl.int_range(1, len(columns) + 1, eager=True))


def _text(value: object) -> str | None:
    return value.hex() if isinstance(value, bytes) else None if value is None else str(value)


def _from_pandas(frame: Any) -> pl.DataFrame:
    """A pandas frame: of periods their starts, of categories the values, in zones without a name UTC."""
    changed, zones = {}, {}
    for name, kind in frame.dtypes.items():
        column, zone = frame[name], getattr(kind, "tz", None)
        if _is_period(kind):
            changed[name] = column.dt.to_timestamp()
        elif hasattr(kind, "categories"):
            changed[name] = column.astype(kind.categories.dtype if column.notna().all() else object)
        elif zone is not None:
            changed[name] = column.dt.tz_convert(None)
            zones[name] = str(zone) if str(zone) in available_timezones() else "UTC"
    instants = [pl.col(name).dt.replace_time_zone("UTC").dt.convert_time_zone(zone) for name, zone in zones.items()]
    return pl.from_pandas(frame.assign(**changed)).with_columns(instants)


def _is_period(kind: Any) -> bool:
    return str(kind).startswith("period[")


class FrameTypes:
    """What the series and times of a frame are called in it, and of which types they are."""

    def __init__(self, frame: Any, table: Table, series: tuple[str, ...], time: str | None) -> None:
        """Of a frame of `as_columns`, its table, and the columns that were found in it."""
        self._empty = frame[:0]
        self._ids, self._places = None, dict[str, int]()
        self.time = time
        if len(series) == 1:
            names = table.columns[series[0]].unique(maintain_order=True).cast(pl.String)
            self._places = {name: place for place, name in enumerate(names)}
            self._ids = (
                frame[series[0]].unique(maintain_order=True) if self.polars else frame[series[0]].drop_duplicates()
            )
        self._kind = table.columns.schema.get(self.time or "")
        self._format, self._scale, self._ahead = "", 0.0, 0
        if self.time in table.columns.columns and self._kind is not None and not self._kind.is_temporal():
            self._find_format(table, str(self.time))

    @property
    def polars(self) -> bool:
        """Whether the frame is of polars."""
        return isinstance(self._empty, pl.DataFrame)

    @property
    def zone(self) -> str | None:
        """The zone of the times; None if they have none."""
        return self._kind.time_zone if isinstance(self._kind, pl.Datetime) else None

    def _find_format(self, table: Table, time: str) -> None:
        """How the first times, which are texts or numbers, are written."""
        rows = replace(table, columns=table.columns.head(SAMPLE), rows=table.rows.head(SAMPLE))
        ts, given = read_times(rows, time).ms, rows.columns[time]
        texts = given.cast(pl.String)
        offsets = texts.str.extract(OFFSET).unique()
        offset = offsets[0] if len(offsets) == 1 and offsets[0] not in (None, "+00:00") else ""
        if offset:
            hours, minutes = int(f"{offset[0]}{offset[1:3]}"), int(f"{offset[0]}{offset[-2:]}")
            self._ahead, texts = (hours * 60 + minutes) * 60_000, texts.str.strip_suffix(offset)
        moments = pl.from_epoch(ts + self._ahead, time_unit="ms")
        self._format = next((each for each in FORMATS if (moments.dt.strftime(each) == texts).all()), "")
        self._format += offset if self._format else ""
        if not self._format and given.dtype.is_numeric():
            self._scale = next((scale for _, _, scale in EPOCHS.values() if (given * scale == ts).all()), 0.0)

    def restored(self, result: pl.DataFrame, clock: bool = False) -> Any:
        """A result with the frame's types, in its library.

        `clock`: times are what a clock in the frame's zone shows.
        """
        times = [self._times(result[name], clock) for name in TIMES if name in result.columns]
        places = [self._places[name] for name in result[ID]] if self._ids is not None else []
        result = result.with_columns(times)
        if self.polars:
            return result if self._ids is None else result.with_columns(self._ids.gather(places).alias(ID))
        made = result.to_pandas()
        if self._ids is not None:
            made[ID] = self._ids.take(places).array
        for name in (each.name for each in times):
            made[name] = self._as_in_pandas(made[name])
        return made

    def _times(self, ts: pl.Series, clock: bool) -> pl.Series:
        naive = pl.from_epoch(ts, time_unit="ms")
        if self._scale:
            return (ts / self._scale).cast(self._kind or pl.Int64)
        if self._format:
            shifted = pl.from_epoch(ts + self._ahead, time_unit="ms")
            return shifted.dt.strftime(self._format).cast(self._kind or pl.String)
        if self._kind == pl.Date:
            return naive.cast(pl.Date) if (naive.dt.truncate("1d") == naive).all() else naive
        if not isinstance(self._kind, pl.Datetime):
            return naive
        if self.zone is None:
            return naive.cast(self._kind)
        return in_zone(ts, self.zone, clock=clock).cast(self._kind)

    def _as_in_pandas(self, times: Any) -> Any:
        """Times with the type of the frame's own column."""
        if self.time not in self._empty.columns:
            return times
        kind = self._empty[self.time].dtype
        if _is_period(kind):
            return times.dt.to_period(kind.freq)
        if kind.kind == "O" and self._kind == pl.Date:
            return times.dt.date
        if kind.kind == "O" and isinstance(self._kind, pl.Datetime):
            return times.astype(object)
        return times.astype(kind) if kind.kind == "M" else times
