"""Users' frames, of polars or pandas, as histories, and what is made of them as frames again."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from polars import selectors

from deploy.training.forecasting import TrainJob
from model.card import InputSpec
from model.windows import Floats
from pipeline.datasets.history import History, from_frame
from pipeline.datasets.measurements import Columns, measurements
from pipeline.datasets.tables import Table
from pipeline.windows.grid import Grid, Ints
from tidecast.errors import DataError
from tidecast.times import format_time


def read_frame(frame: Any, job: TrainJob) -> History:
    """A frame's measurements (long: unique_id, ds, y; or whatever a file may be). Raises DataError."""
    return from_frame(measurements(_as_table(frame), Columns(features=job.features), freq=job.freq).frame)


def known_in_frame(frame: Any, job: TrainJob, name: str = "frame") -> pl.DataFrame | None:
    """What a frame tells of the features that are known ahead, wherever it tells all of them."""
    return known_ahead(_as_table(frame, name), Columns(features=job.features), job) if job.known else None


def known_ahead(table: Table, columns: Columns, job: TrainJob, stem: str = "value") -> pl.DataFrame:
    """What a table tells of the features that are known ahead: series, ts and a column for each. Raises DataError."""
    return measurements(table, replace(columns, features=job.known), freq=job.freq, stem=stem).frame


def refuse_contradictions(told: pl.DataFrame) -> None:
    """Raises DataError where a future has two values of one series and time."""
    twice = told.unique().filter(pl.struct("series", "ts").is_duplicated()).sort("series", "ts")
    if len(twice):
        moment = format_time(twice["ts"][0])
        raise DataError(f"future: {twice['series'][0]!r} has different values at {moment}")


def _as_table(frame: Any, name: str = "frame") -> Table:
    if not hasattr(frame, "columns") or isinstance(frame, pl.LazyFrame):
        raise DataError(f"{name}: {type(frame).__name__} is no frame of polars or pandas")
    known = (frame if isinstance(frame, pl.DataFrame) else pl.from_pandas(frame)).with_columns(
        selectors.boolean().cast(pl.Int8)
    )
    return Table(name, known, pl.int_range(1, len(known) + 1, eager=True))


def as_given(made: pl.DataFrame, frame: Any) -> Any:
    """As a frame of the library that the user's is of."""
    return made if frame is None or isinstance(frame, pl.DataFrame) else made.to_pandas()


def with_times(made: pl.DataFrame) -> pl.DataFrame:
    """With its epoch milliseconds as times."""
    return made.with_columns(pl.from_epoch(name, time_unit="ms") for name in ("ds", "cutoff") if name in made.columns)


def known_at(known: pl.DataFrame, series: list[str], times: Ints, spec: InputSpec) -> Floats:
    """The known features (M,C) of series at some times, on the grid; nan where there are none."""
    index, names = Grid.parse(str(spec.freq)).index, list(spec.known)
    steps = known.select("series", *names, step=pl.Series(index(known["ts"].to_numpy())))
    steps = steps.unique(["series", "step"], keep="first", maintain_order=True)
    places = pl.DataFrame({"series": series, "step": index(times)}, schema_overrides={"series": pl.String})
    found = places.join(steps, on=["series", "step"], how="left", maintain_order="left").select(names)
    return np.asarray(found.fill_null(np.nan).to_numpy(), np.float32)


def names_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names of columns; a string is one."""
    return (given,) if isinstance(given, str) else tuple(given)
