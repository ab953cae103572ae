"""Forecasts of frames, without a broker or a server: the usual `fit`, `predict` and `cross_validation`.

from tidecast import Forecaster

model = Forecaster(horizon=24).fit(frame)         # unique_id, ds, y, in polars or pandas
model.predict()                                   # unique_id, ds, Tidecast, source
model.predict(level=[80, 90])                     # .. Tidecast-lo-90, Tidecast-lo-80, Tidecast-hi-80, Tidecast-hi-90
model.cross_validation(frame, n_windows=5)        # unique_id, ds, cutoff, y, Tidecast, source

Forecaster(horizon=24, features=("load", "heat"), targets=("load",))   # heat is an input, load is forecast

model = Forecaster(horizon=24, features=("load", "heat"), known=("heat",)).fit(frame)
model.predict(future=heat)                        # future values of heat: unique_id, ds, heat
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import polars as pl

from deploy.frame_types import ID, TIMES
from deploy.frames import (
    UserFrame,
    check_unique,
    column_names,
    future_values,
    repeated_series,
    times_ahead,
    with_datetimes,
)
from deploy.intervals import bound_columns, bounds_from, say_missing
from deploy.origins import actual_values, forecasts_from, rolling_origins
from deploy.settings.serve import window_config
from deploy.settings.values import Device, checked_levels, parse_seconds_option
from deploy.training.forecasting import format_epoch
from deploy.training.jobs import ALIGNED, TrainJob
from deploy.training.look_back import infer_grid, infer_specs
from deploy.training.registration import training_progress
from model.evaluation.splits import Cuts
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import FittedForecaster, fit, last_value
from model.training.loop import OnStep
from model.windows import Rows
from pipeline.datasets.history import History, before, windows
from pipeline.windows.choices import Aggregate
from pipeline.windows.sliding import SlidingWindows
from tidecast.errors import ConfigError
from tidecast.freq import steps_in_words

NAMES = ("unique_id", "ds", "y")
"""The columns of a frame: series, times, values."""
Arch = Literal["blend", "lstm", "segment", "linear", "naive"]
FORECAST = "Tidecast"
"""The column of forecasts."""


class Forecaster:
    """One model for all series of a frame. Settings left out are inferred from the data.

    horizon       steps of a forecast.
    features      the model's input columns; left out, y alone.
    targets       the features that are forecast; left out, the first.
    known         the features that are known over the horizon too, such as a weather forecast or a holiday; none of
                  the targets. They need evenly spaced data or a `freq`, and take no `aggregate`.
    freq          the spacing of steps: 250ms, 15s, 30m, 1h, 1d, B (business days), 1w, 1mo, 1y; left out, the most
                  common in the data.
    offset        where steps lie: 30m past each, 2mo (quarters from March), -1d (month ends), or "none"; left out,
                  where the data's are.
    seq_len       steps that the model looks back; left out, a quarter of the longest series (up to half, for three
                  seasons), up to 720 or 15 seasons, and short enough to fit between gaps.
    max_gap       the longest gap, in missing steps, that is interpolated; no window crosses a longer one. Left out,
                  3, and more if that leaves too few windows.
    aggregate     how several rows in one step are aggregated: mean, sum, last, count, min or max; needs a `freq`.
                  Left out, the first one is the step.
    non_negative  whether no forecast may be below zero; left out, where the data never was.
    arch          the network: blend (the default: the mean of several), lstm, segment, linear or naive.
    epochs        the maximum number of epochs; left out, 30, or as many as make 5,000 steps.
    seed          of the weights, the order of rows and dropout; 0 if left out.
                  On the CPU the same seed gives the same model.
    budget        about how long to train, as 20s or 5m; left out, until it stops improving.
    progress      whether to show a progress bar while training.
    device        auto (the default: a GPU if there is one), cpu or cuda.
    config        everything else about the network and its training; arch, epochs, seed, budget and device override it.

    Series and times of a forecast have the types that they have in the frame: numbers, categories, times in a zone,
    dates, periods.
    """

    _fitted: FittedForecaster | None = None
    _history: History | None = None
    _data: SlidingWindows | None = None
    _known: pl.DataFrame | None = None
    _frame: UserFrame | None = None
    """The frame that it was trained on."""

    def __init__(
        self,
        horizon: int,
        *,
        features: str | Sequence[str] = ("value",),
        targets: str | Sequence[str] | None = None,
        known: str | Sequence[str] = (),
        freq: str | None = None,
        offset: str | None = None,
        seq_len: int | None = None,
        max_gap: int | None = None,
        aggregate: Aggregate | None = None,
        non_negative: bool | None = None,
        arch: Arch | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        budget: str | None = None,
        progress: bool = False,
        device: Device | None = None,
        config: ForecastConfig | None = None,
    ) -> None:
        """See the class. Raises ConfigError naming the setting that is wrong."""
        seconds = parse_seconds_option("budget", budget)
        settings = {"arch": arch, "epochs": epochs, "seed": seed, "device": device, "seconds": seconds}
        given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        self._progress = progress
        self.job = TrainJob(
            name="forecaster",
            horizon=horizon,
            features=column_names(features),
            targets=None if targets is None else column_names(targets),
            known=column_names(known),
            freq=freq,
            offset=offset,
            seq_len=seq_len,
            max_gap=max_gap,
            aggregate=aggregate,
            non_negative=non_negative,
            config=replace(config or ForecastConfig(), **given),
        )

    @classmethod
    def from_job(cls, job: TrainJob) -> Self:
        """A forecaster for a job, whose horizon may be None."""
        forecaster = cls(job.horizon or 0)
        forecaster.job = job
        return forecaster

    def __repr__(self) -> str:
        job = self.job
        if self._fitted is None:
            given = {"freq": job.freq, "offset": job.offset, "seq_len": job.seq_len, "aggregate": job.aggregate}
            others = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
            return f"Forecaster(horizon={job.horizon}{others}), not fitted"
        card, naive = self.fitted.card, self.fitted.naive_mse
        steps, error = steps_in_words(card.input.freq, card.input.offset), card.metrics["validation_mse"]
        scores = f"error {error:.3f} on held-out data, in z-scores, the seasonal naive's {naive:.3f}"
        return f"Forecaster(horizon={self.horizon}), {card.arch} of {card.input.seq_len} steps back, {steps}; {scores}"

    @property
    def fitted(self) -> FittedForecaster:
        """The model and its training. Raises ConfigError before `fit`."""
        if self._fitted is None:
            raise ConfigError("predict: fit comes first")
        return self._fitted

    def fit(self, frame: Any, on_step: OnStep | None = None) -> Self:
        """Train on a frame, and keep it: long, as unique_id, ds, y, or in a layout that `tidecast train --data` reads.

        Raises DataError for a frame that can't be used, or is too short.
        """
        given = UserFrame(frame, self.job)
        self.fit_history(given.history(), on_step, known=given.covariates())
        self._frame = given
        return self

    def fit_history(self, history: History, on_step: OnStep | None = None, known: pl.DataFrame | None = None) -> Self:
        """Train on a history, and keep it; `known` are the future covariates: series, ts and a column for each."""
        return self._fit(history, self.job, on_step, None, known)

    def _fit(
        self, history: History, job: TrainJob, on_step: OnStep | None, cuts: Cuts | None, known: pl.DataFrame | None
    ) -> Self:
        inputs, outputs = infer_specs(history if cuts is None else before(history, cuts.test), job)
        data = windows(history, window_config(inputs))
        shown = training_progress(format_epoch) if self._progress and on_step is None else nullcontext(on_step)
        with shown as report:
            self._fitted = fit(data, inputs, outputs, job.config, job.name, report, cuts)
        self._frame, self._history, self._known, self._data = None, history, known, data
        return self

    def keep_history(self, history: History) -> Self:
        """Keep a history that is too short to train on: all forecasts of it are naive ones."""
        too_long = replace(self.job, seq_len=1 + max(history.frame["series"].value_counts()["count"]))
        self._fitted, self._history = last_value(*infer_specs(history, too_long), self.job.name), history
        self._data = self._windows(history)
        return self

    def predict(self, frame: Any = None, future: Any = None, level: Sequence[float] | None = None) -> Any:
        """Forecast the horizon after each series' last step, of a frame or of the training data.

        In polars or pandas, as the frame: unique_id, ds, the forecast (Tidecast, or of several targets Tidecast-NAME
        each), and its `source`: `model`, or for a series shorter than the look-back `naive`. Future covariates are
        given in `future`, or in rows of the frame without values of the targets; raises DataError if one is missing.
        Each `level`, in percent, adds the bounds of an interval, as Tidecast-lo-90 and Tidecast-hi-90 (or
        Tidecast-NAME-lo-90): so wide that it held that share of the values in validation; null where they were too few.
        """
        if self._history is None:
            raise ConfigError("predict: fit comes first")
        freq = self.fitted.card.input.freq
        given = self._frame if frame is None else UserFrame(frame, self.job, freq=freq)
        history = self._history if frame is None or given is None else given.history()
        known = self._known if frame is None or given is None else given.covariates()
        if future is not None:
            ahead = UserFrame(future, self.job, "future", freq).covariates()
            if ahead is None:
                raise ConfigError("future: the forecaster has no `known` features")
            check_unique(ahead)
            known = ahead if known is None else pl.concat([ahead, known])
        result = self._ahead(history, known, checked_levels(level))
        return with_datetimes(result) if given is None else given.restored(result)

    def predict_history(
        self, history: History, known: pl.DataFrame | None = None, level: Sequence[float] | None = None
    ) -> pl.DataFrame:
        """`predict` of a history, in polars; `known` as for `fit_history`."""
        return with_datetimes(self._ahead(history, known, checked_levels(level)))

    def _ahead(self, history: History, known: pl.DataFrame | None, levels: Sequence[float]) -> pl.DataFrame:
        data = self._windows(history)
        ends = np.flatnonzero(np.diff(data.series, append=-1))
        table = self._table(data, ends, known, levels, needed=True)
        say_missing(table, levels)
        return table

    def cross_validation(
        self, frame: Any, n_windows: int = 1, step_size: int | None = None, level: Sequence[float] | None = None
    ) -> Any:
        """Train on what lies before the first of `n_windows` cutoffs, and forecast from each of them.

        They are `step_size` steps apart (a horizon, if left out), the last one a horizon before the end. The result has
        unique_id, ds, cutoff, y, the forecast, `source` and bounds as in `predict`, for steps with actual values.
        Raises ConfigError for cutoffs that do not fit into the frame.
        """
        if not isinstance(n_windows, int) or n_windows < 1 or (step_size is not None and step_size < 1):
            raise ConfigError(f"n_windows, step_size: {n_windows} and {step_size} must be 1 or more")
        given, levels = UserFrame(frame, self.job), checked_levels(level)
        history, known = given.history(), given.covariates()
        freq, offset = infer_grid(history, self.job)
        job = replace(self.job, freq=freq, offset=offset or ALIGNED)
        origins = rolling_origins(history, job, offset, n_windows, step_size or job.horizon or 1)
        self._fit(history, job, None, origins.cuts, known)
        data, ahead = self._windows(history), np.arange(1, self.horizon + 1)
        tables = []
        for place, last in zip(origins.places.tolist(), origins.times.tolist(), strict=True):
            ends = origins.ends(data, place)
            table = self._table(data, ends, known, levels, needed=False).drop(TIMES[0])
            step = pl.Series("step", (data.step[ends][:, None] + ahead).ravel())
            table = table.with_columns(step, pl.lit(last).alias(TIMES[1]))
            tables.append(table.filter(pl.col("step") > place) if origins.gridded else table)
        names = dict(zip(self.fitted.card.output.targets, self._columns(NAMES[2]), strict=True))
        actual = actual_values(data, history, job, names).rename({"series": ID, "ts": TIMES[0]})
        joined = pl.concat(tables).join(actual, on=(ID, "step"), how="inner", maintain_order="left")
        first = (ID, *TIMES, *names.values())
        result = joined.select(*first, pl.exclude(*first, "step"))
        say_missing(result, levels)
        return given.restored(result)

    @property
    def horizon(self) -> int:
        """K, steps of a forecast."""
        return self.fitted.card.output.horizon

    def _columns(self, name: str) -> list[str]:
        """A column for each target: NAME if there is one target, else NAME-TARGET."""
        targets = self.fitted.card.output.targets
        return [name] if len(targets) == 1 else [f"{name}-{target}" for target in targets]

    def _windows(self, history: History) -> SlidingWindows:
        return windows(history, window_config(self.fitted.card.input))

    def _table(
        self, data: SlidingWindows, ends: Rows, known: pl.DataFrame | None, levels: Sequence[float], *, needed: bool
    ) -> pl.DataFrame:
        """The forecasts from some rows, a row each; times in epoch milliseconds."""
        spec, columns = self.fitted.card.input, self._columns(FORECAST)
        times = times_ahead(data, ends, spec, self.horizon)
        future = None if known is None else future_values(known, data, ends, times, spec, needed=needed)
        values, full = forecasts = forecasts_from(self.fitted, data, ends, future)
        assert self._data is not None
        bounds = bounds_from(self.fitted, self._data, data, ends, forecasts, levels)
        return pl.DataFrame(
            {
                NAMES[0]: repeated_series(data, ends, self.horizon),
                NAMES[1]: times.ravel(),
                **{name: values[..., place].ravel().astype(np.float64) for place, name in enumerate(columns)},
                "source": np.repeat(np.where(full, "model", "naive"), self.horizon),
                **bound_columns(columns, bounds),
            },
            schema_overrides={NAMES[0]: pl.String},
            nan_to_null=True,
        )
