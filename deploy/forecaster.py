"""Forecasts of frames, without a broker or a server: the usual `fit`, `predict` and `cross_validation`.

from tidecast import Forecaster

model = Forecaster(horizon=24).fit(frame)         # unique_id, ds, y, in polars or pandas
model.predict()                                   # unique_id, ds, Tidecast, source
model.cross_validation(frame, n_windows=5)        # unique_id, ds, cutoff, y, Tidecast, source

Forecaster(horizon=24, features=("load", "heat"), targets=("load",))   # heat is an input, load is forecast

model = Forecaster(horizon=24, features=("load", "heat"), known=("heat",)).fit(frame)
model.predict(future=heat)                        # future values of heat: unique_id, ds, heat
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from deploy.frames import (
    check_unique,
    column_names,
    covariates_at,
    frame_covariates,
    read_frame,
    repeated_series,
    same_library,
    times_ahead,
    with_datetimes,
)
from deploy.settings.serve import window_config
from deploy.settings.values import Device
from deploy.training.jobs import TrainJob
from deploy.training.look_back import infer_specs
from model.evaluation.baselines import seasonal_naive
from model.evaluation.splits import Cuts, held_out, run_starts
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import FittedForecaster, fit, forecast, last_value
from model.training.loop import OnStep
from model.windows import Floats, Rows
from pipeline.datasets.history import History, before, windows
from pipeline.windows.grid import Aggregate, Ints
from pipeline.windows.sliding import SlidingWindows
from tidecast.errors import ConfigError, DataError
from tidecast.times import format_time

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
    freq          the spacing of steps: 250ms, 15s, 30m, 1h, 1d, 1w, 1mo, 1y; left out, the most common in the data.
    seq_len       steps that the model looks back; left out, a quarter of the longest series (up to half, for three
                  seasons), up to 720 or 15 seasons, and short enough to fit between gaps.
    max_gap       the longest gap, in missing steps, that is interpolated; no window crosses a longer one. Left out,
                  3, and more if that leaves too few windows.
    aggregate     how several rows in one step are aggregated: mean, sum, last, count, min or max; needs a `freq`.
                  Left out, the first one is the step.
    non_negative  whether no forecast may be below zero.
    arch          the network: blend (the default: the mean of several), lstm, segment, linear or naive.
    epochs        the maximum number of epochs; left out, 30, or as many as make 5,000 steps.
    seed          of the weights, the order of rows and dropout; 0 if left out.
                  On the CPU the same seed gives the same model.
    device        auto (the default: a GPU if there is one), cpu or cuda.
    config        everything else about the network and its training; arch, epochs, seed and device override it.
    """

    _fitted: FittedForecaster | None = None
    _history: History | None = None
    _known: pl.DataFrame | None = None
    _empty_frame: Any = None
    """A frame of the library that the user's was of."""

    def __init__(
        self,
        horizon: int,
        *,
        features: str | Sequence[str] = ("value",),
        targets: str | Sequence[str] | None = None,
        known: str | Sequence[str] = (),
        freq: str | None = None,
        seq_len: int | None = None,
        max_gap: int | None = None,
        aggregate: Aggregate | None = None,
        non_negative: bool = False,
        arch: Arch | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        device: Device | None = None,
        config: ForecastConfig | None = None,
    ) -> None:
        """See the class. Raises ConfigError naming the setting that is wrong."""
        settings: dict[str, Any] = {"arch": arch, "epochs": epochs, "seed": seed, "device": device}
        given = {name: value for name, value in settings.items() if value is not None}
        self.job = TrainJob(
            name="forecaster",
            horizon=horizon,
            features=column_names(features),
            targets=None if targets is None else column_names(targets),
            known=column_names(known),
            freq=freq,
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
        history, known = read_frame(frame, self.job), frame_covariates(frame, self.job)
        self._empty_frame = frame[:0]
        return self.fit_history(history, on_step, known=known)

    def fit_history(
        self,
        history: History,
        on_step: OnStep | None = None,
        cuts: Cuts | None = None,
        known: pl.DataFrame | None = None,
    ) -> Self:
        """Train on a history, and keep it; `cuts` end the training and validation parts.

        `known` are the future covariates: series, ts and a column for each.
        """
        inputs, outputs = infer_specs(history if cuts is None else before(history, cuts.test), self.job)
        data = windows(history, window_config(inputs))
        self._fitted = fit(data, inputs, outputs, self.job.config, self.job.name, on_step, cuts)
        self._history, self._known = history, known
        return self

    def keep_history(self, history: History) -> Self:
        """Keep a history that is too short to train on: all forecasts of it are naive ones."""
        too_long = replace(self.job, seq_len=1 + max(history.frame["series"].value_counts()["count"]))
        self._fitted, self._history = last_value(*infer_specs(history, too_long), self.job.name), history
        return self

    def predict(self, frame: Any = None, future: Any = None) -> Any:
        """Forecast the horizon after each series' last step, of a frame or of the training data.

        In polars or pandas, as the frame: unique_id, ds, the forecast (Tidecast, or of several targets Tidecast-NAME
        each), and its `source`: `model`, or for a series shorter than the look-back `naive`. Future covariates are
        given in `future`, or in rows of the frame without values of the targets; raises DataError if one is missing.
        """
        if self._history is None:
            raise ConfigError("predict: fit comes first")
        history = self._history if frame is None else read_frame(frame, self.job)
        known = self._known if frame is None else frame_covariates(frame, self.job)
        if future is not None:
            ahead = frame_covariates(future, self.job, "future")
            if ahead is None:
                raise ConfigError("future: the forecaster has no `known` features")
            check_unique(ahead)
            known = ahead if known is None else pl.concat([ahead, known])
        return same_library(self.predict_history(history, known), self._empty_frame if frame is None else frame)

    def predict_history(self, history: History, known: pl.DataFrame | None = None) -> pl.DataFrame:
        """`predict` of a history, in polars; `known` as for `fit_history`."""
        data = self._windows(history)
        ends = np.flatnonzero(np.diff(data.series, append=-1))
        return with_datetimes(self._table(data, ends, self._future(data, ends, known, needed=True)))

    def cross_validation(self, frame: Any, n_windows: int = 1, step_size: int | None = None) -> Any:
        """Train on what lies before the first of `n_windows` cutoffs, and forecast from each of them.

        They are `step_size` steps apart (a horizon, if left out), the last one a horizon before the end. The result has
        unique_id, ds, cutoff, y, the forecast and `source`, for steps with actual values. Raises ConfigError for
        cutoffs that do not fit into the frame.
        """
        if not isinstance(n_windows, int) or n_windows < 1 or (step_size is not None and step_size < 1):
            raise ConfigError(f"n_windows, step_size: {n_windows} and {step_size} must be 1 or more")
        history, known, horizon = read_frame(frame, self.job), frame_covariates(frame, self.job), self.job.horizon or 1
        times = np.unique(history.frame["ts"].to_numpy())
        cutoffs = _cutoffs(times, horizon, n_windows, step_size or horizon)
        past = times[times <= cutoffs[0]]
        validation = held_out(len(past), self.job.config.validation, horizon)
        self.fit_history(history, cuts=Cuts(int(past[-validation]), int(cutoffs[0]) + 1), known=known)
        data = self._windows(history)
        names = dict(zip(self._targets, self._columns(NAMES[2]), strict=True))
        actual = history.frame.rename({"series": NAMES[0], "ts": NAMES[1], **names})
        forecasts = pl.concat([self._from_cutoff(data, int(cutoff), known) for cutoff in cutoffs])
        columns = (*NAMES[:2], "cutoff", *names.values(), *self._columns(FORECAST), "source")
        joined = forecasts.join(actual, on=NAMES[:2], how="inner").select(columns)
        return same_library(with_datetimes(joined), frame)

    def _from_cutoff(self, data: SlidingWindows, cutoff: int, known: pl.DataFrame | None) -> pl.DataFrame:
        ends = np.flatnonzero(data.ts == cutoff)
        table = self._table(data, ends, self._future(data, ends, known, needed=False))
        return table.with_columns(pl.lit(cutoff).alias("cutoff"))

    @property
    def horizon(self) -> int:
        """K, steps of a forecast."""
        return self.fitted.card.output.horizon

    @property
    def _targets(self) -> tuple[str, ...]:
        return self.fitted.card.output.targets

    def _columns(self, name: str) -> list[str]:
        """A column for each target: NAME if there is one target, else NAME-TARGET."""
        return [name] if len(self._targets) == 1 else [f"{name}-{target}" for target in self._targets]

    def _windows(self, history: History) -> SlidingWindows:
        return windows(history, window_config(self.fitted.card.input))

    def _future(self, data: SlidingWindows, ends: Rows, known: pl.DataFrame | None, *, needed: bool) -> Floats | None:
        """The future covariates (N,K,C) after some rows, nan where unknown; None for a model without.

        Raises DataError if one is needed and missing, after a series that is long enough for the model.
        """
        spec = self.fitted.card.input
        if known is None or spec.freq is None:
            return None
        times = times_ahead(data, ends, spec.freq, self.horizon)
        series = repeated_series(data, ends, self.horizon)
        values = covariates_at(known, series, times.ravel(), spec).reshape(*times.shape, -1)
        lacking = np.isin(ends, data.ends)[:, None] & np.isnan(values).any(axis=2)
        if needed and lacking.any():
            place, step = np.argwhere(lacking)[0]
            name, time = data.names[data.series[ends[place]]], format_time(int(times[place, step]))
            raise DataError(
                f"known: {', '.join(spec.known)} of {name!r} must be given for {self.horizon} steps of {spec.freq} "
                f"ahead, and is missing at {time}"
            )
        return values

    def _table(self, data: SlidingWindows, ends: Rows, future: Floats | None) -> pl.DataFrame:
        """The forecasts from some rows, a row each; times in epoch milliseconds."""
        values, full = self._forecast(data, ends, future)
        times = times_ahead(data, ends, self.fitted.card.input.freq, self.horizon)
        columns = zip(self._columns(FORECAST), np.moveaxis(values, -1, 0), strict=True)
        return pl.DataFrame(
            {
                NAMES[0]: repeated_series(data, ends, self.horizon),
                NAMES[1]: times.ravel(),
                **{name: column.ravel().astype(np.float64) for name, column in columns},
                "source": np.repeat(np.where(full, "model", "naive"), self.horizon),
            },
            schema_overrides={NAMES[0]: pl.String},
        )

    def _forecast(
        self, data: SlidingWindows, ends: Rows, future: Floats | None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """The targets' forecasts (N,K,O) from some rows, and which are the model's, (N,).

        Those with too little history, or without all future covariates, are seasonal naive ones.
        """
        fitted = self.fitted
        actual, full = data.values[:, fitted.card.target_columns], np.isin(ends, data.ends)
        if future is not None:
            full &= np.isfinite(future).all(axis=(1, 2))
        lag = fitted.card.input.season_lag
        values = seasonal_naive(actual, ends, run_starts(data, ends), self.horizon, lag)
        if full.any():
            values[full] = forecast(fitted.model, data, ends[full], None if future is None else future[full])
        if len(wrong := np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))):
            raise DataError(
                f"the forecast of {data.names[data.series[ends[wrong[0]]]]!r} is not finite: its values are too large"
            )
        return values, full


def _cutoffs(times: Ints, horizon: int, n_windows: int, step_size: int) -> Ints:
    """The last times before each window of a cross-validation, in order. Raises ConfigError."""
    back = horizon + step_size * np.arange(n_windows)[::-1]
    if back.max() >= len(times):
        raise ConfigError(f"n_windows: {n_windows} cutoffs do not fit into {len(times):,} steps")
    return times[len(times) - 1 - back]
