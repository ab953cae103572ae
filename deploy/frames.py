"""Users' frames, of polars or pandas: read as histories and covariates; the times of forecasts."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from deploy.frame_types import FrameTypes, as_columns, as_table
from deploy.settings.serve import window_config
from deploy.training.jobs import TrainJob
from model.card import InputSpec
from model.evaluation.splits import run_starts
from model.windows import Floats, Rows
from pipeline.datasets.columns import Columns, find_time
from pipeline.datasets.history import History, from_frame
from pipeline.datasets.measurements import Measurements, measurements
from pipeline.datasets.spacing import infer_freq
from pipeline.datasets.tables import Table
from pipeline.windows.grid import Ints
from pipeline.windows.sliding import SlidingWindows
from pipeline.windows.steps import DAY, Grid
from tidecast.errors import DataError
from tidecast.times import format_time

logger = logging.getLogger(__name__)

AS_NAMED = "times from `ds`; value `y`"
"""How what is said of a frame ends if its columns are called as they should be, and nothing was guessed."""
IN_FRAMES = {
    r" \(--max-skipped [^)]*\)": "",
    "[Nn]ame it with --time-column": "call it ds",
    "[Nn]ame it with --value-column": "call it y",
    "name the series' columns with --series-column ([^(]*)": r"call the one that names the series unique_id: \1",
    "--series-column": "unique_id as the name of",
    "--time-column": "ds as the name of",
    "--value-column": "y as the name of",
    "--time-format": "pandas.to_datetime with a format",
    "--timezone": "dt.tz_localize",
    "--decimal": "pandas.read_csv with decimal=",
    "--na": "nan instead of",
    "--(freq|offset|features|aggregate)": r"\1",
}
"""What to do with a frame where a file needs an option."""


@contextmanager
def in_frames() -> Iterator[None]:
    """Errors about a file's columns say what is to be done with a frame's."""
    try:
        yield
    except DataError as error:
        text = str(error)
        for option, instead in IN_FRAMES.items():
            text = re.sub(option, instead, text)
        raise DataError(text.rstrip()) from None


class UserFrame:
    """A frame to read, and its types.

    Times in a zone are instants; but in steps of a day or longer they are what a clock there shows, so that such steps
    begin at midnight in summer and in winter.
    """

    def __init__(self, frame: Any, job: TrainJob, name: str = "frame", freq: str | None = None) -> None:
        """`freq` is that of the steps, if it is known. Raises DataError."""
        self._job, self._columns = job, Columns(features=job.features, aggregated=job.aggregate is not None)
        self._frame = as_columns(frame, name)
        self._table = self._as_given = as_table(self._frame, name)
        self._types: FrameTypes | None = None
        self._clock = self._is_clock(freq or job.freq)

    def _is_clock(self, freq: str | None) -> bool:
        """Whether times are what a clock shows; only then the table has them so."""
        with in_frames():
            _, time = find_time(self._as_given, self._columns)
        if time is None or getattr(self._as_given.columns.schema.get(time), "time_zone", None) is None:
            return False
        shown = pl.col(time).dt.replace_time_zone(None)
        self._table = replace(self._as_given, columns=self._as_given.columns.with_columns(shown))
        long = of_days(freq or infer_freq(self._measured().frame))
        self._table = self._table if long else self._as_given
        return long

    def _measured(self) -> Measurements:
        with in_frames():
            return measurements(self._table, self._columns, freq=self._job.freq)

    def history(self) -> History:
        """Its measurements: long, as unique_id, ds, y, or in any layout that a file may have. Raises DataError."""
        way_out = "drop them, or aggregate what is in one step: aggregate='mean'"
        source = self._measured().checked(self._columns.max_skipped, way_out)
        for note in source.notes:
            logger.log(logging.INFO if note.endswith(AS_NAMED) else logging.WARNING, f"{self._table.name}: {note}")
        self._types = FrameTypes(self._frame, self._as_given, source.series, source.time)
        return from_frame(source.frame, source.notes)

    def covariates(self) -> pl.DataFrame | None:
        """Its future covariates, in rows that have all of them; None for a job without. Raises DataError."""
        with in_frames():
            return future_covariates(self._table, self._columns, self._job) if self._job.known else None

    def restored(self, result: pl.DataFrame) -> Any:
        """A result in the frame's library, its series and times in the types of the frame, whose `history` was read."""
        assert self._types is not None
        return self._types.restored(result, self._clock)


def of_days(freq: str | None) -> bool:
    """Whether steps are of a day or longer, and so begin by the clock of a zone."""
    return freq is not None and Grid.parse(freq).mean_step >= DAY


def future_covariates(table: Table, columns: Columns, job: TrainJob, stem: str = "value") -> pl.DataFrame:
    """The future covariates in a table: series, ts and a column for each. Raises DataError."""
    return measurements(table, replace(columns, features=job.known), freq=job.freq, stem=stem).frame


def check_unique(future: pl.DataFrame) -> None:
    """Raises DataError if a future has different values for one series and time."""
    twice = future.unique().filter(pl.struct("series", "ts").is_duplicated()).sort("series", "ts")
    if len(twice):
        time = format_time(twice["ts"][0])
        raise DataError(f"future: {twice['series'][0]!r} has different values at {time}")


def with_datetimes(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with datetimes instead of epoch milliseconds."""
    return frame.with_columns(pl.from_epoch("ds", time_unit="ms"))


def covariates_at(known: pl.DataFrame, series: list[str], times: Ints, spec: InputSpec) -> Floats:
    """The future covariates (M,C) of series at some times, on the grid; nan where there are none."""
    grid, names = window_config(spec).grid, list(spec.known)
    assert grid is not None
    steps = known.select("series", *names, step=pl.Series(grid.index(known["ts"].to_numpy())))
    steps = steps.unique(["series", "step"], keep="first", maintain_order=True)
    places = pl.DataFrame({"series": series, "step": grid.index(times)}, schema_overrides={"series": pl.String})
    found = places.join(steps, on=["series", "step"], how="left", maintain_order="left").select(names)
    return np.asarray(found.fill_null(np.nan).to_numpy(), np.float32)


def future_values(
    known: pl.DataFrame, data: SlidingWindows, ends: Rows, times: Ints, spec: InputSpec, *, needed: bool
) -> Floats | None:
    """The future covariates (N,K,C) at the times (N,K) after some rows, nan where unknown; None for a spec without.

    Raises DataError if one is needed and missing, after a series that is long enough for the model.
    """
    if not spec.known:
        return None
    series = repeated_series(data, ends, times.shape[1])
    values = covariates_at(known, series, times.ravel(), spec).reshape(*times.shape, -1)
    lacking = np.isin(ends, data.ends)[:, None] & np.isnan(values).any(axis=2)
    if needed and lacking.any():
        place, step = np.argwhere(lacking)[0]
        name, time = data.names[data.series[ends[place]]], format_time(int(times[place, step]))
        raise DataError(
            f"known: {', '.join(spec.known)} of {name!r} must be given for {times.shape[1]} steps of {spec.freq} "
            f"ahead, and is missing at {time}"
        )
    return values


def column_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names of columns; a string is one."""
    return (names,) if isinstance(names, str) else tuple(names)


def times_ahead(data: SlidingWindows, ends: Rows, spec: InputSpec, horizon: int) -> Ints:
    """The times of the horizons after some rows, (N,K) epoch ms; without a grid, spaced as the last two steps."""
    ahead, grid = np.arange(1, horizon + 1), window_config(spec).grid
    if grid is not None:
        return grid.ahead(data.step[ends][:, None], data.ts[ends][:, None], ahead)
    spacing = np.where(run_starts(data, ends) < ends, data.ts[ends] - data.ts[ends - 1], 0)
    return np.asarray(data.ts[ends][:, None] + spacing[:, None] * ahead)


def repeated_series(data: SlidingWindows, ends: Rows, horizon: int) -> list[str]:
    """The series of some rows, repeated for each step ahead."""
    return [data.names[place] for place in data.series[ends] for _ in range(horizon)]
