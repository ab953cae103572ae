"""Users' frames, of polars or pandas: read as histories, and forecasts returned as frames of the same library."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from polars import selectors

from deploy.training.jobs import TrainJob
from model.card import InputSpec
from model.evaluation.splits import run_starts
from model.windows import Floats, Rows
from pipeline.datasets.columns import Columns
from pipeline.datasets.history import History, from_frame
from pipeline.datasets.measurements import measurements
from pipeline.datasets.tables import Table
from pipeline.windows.grid import Ints
from pipeline.windows.sliding import SlidingWindows
from pipeline.windows.steps import Grid
from tidecast.errors import DataError
from tidecast.times import format_time


def read_frame(frame: Any, job: TrainJob) -> History:
    """A frame's measurements: long, as unique_id, ds, y, or in any layout that a file may have. Raises DataError."""
    columns = Columns(features=job.features, aggregated=job.aggregate is not None)
    source = measurements(_as_table(frame), columns, freq=job.freq)
    source = source.checked(columns.max_skipped, "drop them, or aggregate what is in one step: aggregate='mean'")
    return from_frame(source.frame, source.notes)


def frame_covariates(frame: Any, job: TrainJob, name: str = "frame") -> pl.DataFrame | None:
    """The future covariates in a frame, in rows that have all of them; None for a job without."""
    return future_covariates(_as_table(frame, name), Columns(features=job.features), job) if job.known else None


def future_covariates(table: Table, columns: Columns, job: TrainJob, stem: str = "value") -> pl.DataFrame:
    """The future covariates in a table: series, ts and a column for each. Raises DataError."""
    return measurements(table, replace(columns, features=job.known), freq=job.freq, stem=stem).frame


def check_unique(future: pl.DataFrame) -> None:
    """Raises DataError if a future has different values for one series and time."""
    twice = future.unique().filter(pl.struct("series", "ts").is_duplicated()).sort("series", "ts")
    if len(twice):
        time = format_time(twice["ts"][0])
        raise DataError(f"future: {twice['series'][0]!r} has different values at {time}")


def _as_table(frame: Any, name: str = "frame") -> Table:
    if not hasattr(frame, "columns") or isinstance(frame, pl.LazyFrame):
        raise DataError(f"{name}: {type(frame).__name__} is not a polars or pandas DataFrame")
    columns = (frame if isinstance(frame, pl.DataFrame) else pl.from_pandas(frame)).with_columns(
        selectors.boolean().cast(pl.Int8)
    )
    return Table(name, columns, pl.int_range(1, len(columns) + 1, eager=True))


def same_library(result: pl.DataFrame, frame: Any) -> Any:
    """The result as a frame of the same library as the user's."""
    return result if frame is None or isinstance(frame, pl.DataFrame) else result.to_pandas()


def with_datetimes(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with datetimes instead of epoch milliseconds."""
    return frame.with_columns(pl.from_epoch(name, time_unit="ms") for name in ("ds", "cutoff") if name in frame.columns)


def covariates_at(known: pl.DataFrame, series: list[str], times: Ints, spec: InputSpec) -> Floats:
    """The future covariates (M,C) of series at some times, on the grid; nan where there are none."""
    index, names = Grid.parse(str(spec.freq)).index, list(spec.known)
    steps = known.select("series", *names, step=pl.Series(index(known["ts"].to_numpy())))
    steps = steps.unique(["series", "step"], keep="first", maintain_order=True)
    places = pl.DataFrame({"series": series, "step": index(times)}, schema_overrides={"series": pl.String})
    found = places.join(steps, on=["series", "step"], how="left", maintain_order="left").select(names)
    return np.asarray(found.fill_null(np.nan).to_numpy(), np.float32)


def column_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names of columns; a string is one."""
    return (names,) if isinstance(names, str) else tuple(names)


def times_ahead(data: SlidingWindows, ends: Rows, freq: str | None, horizon: int) -> Ints:
    """The times of the horizons after some rows, (N,K) epoch ms; without a freq, spaced as the last two steps."""
    ahead = np.arange(1, horizon + 1)
    if freq is None:
        spacing = np.where(run_starts(data, ends) < ends, data.ts[ends] - data.ts[ends - 1], 0)
        return np.asarray(data.ts[ends][:, None] + spacing[:, None] * ahead)
    grid = Grid.parse(freq)
    if grid.months:
        return grid.time(data.step[ends][:, None] + ahead)
    return np.asarray(data.ts[ends][:, None] + grid.milliseconds * ahead)


def repeated_series(data: SlidingWindows, ends: Rows, horizon: int) -> list[str]:
    """The series of some rows, repeated for each step ahead."""
    return [data.names[place] for place in data.series[ends] for _ in range(horizon)]
