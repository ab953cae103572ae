"""Forecasts of frames, without a broker or a server: `fit`, `predict`, `cross_validation`, as forecasters know them.

from tidecast import Forecaster

model = Forecaster(horizon=24).fit(frame)         # unique_id, ds, y, in polars or pandas
model.predict()                                   # unique_id, ds, Tidecast, source
model.cross_validation(frame, n_windows=5)        # unique_id, ds, cutoff, y, Tidecast, source

Forecaster(horizon=24, features=("load", "heat"), targets=("load",))   # heat helps, load is forecast

model = Forecaster(horizon=24, features=("load", "heat"), known=("heat",)).fit(frame)
model.predict(future=heat)                        # heat is known ahead: unique_id, ds, heat
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from deploy.frames import as_given, known_at, known_in_frame, names_of, read_frame, refuse_contradictions, with_times
from deploy.settings.serve import window_config
from deploy.settings.values import Device
from deploy.training.forecasting import TrainJob, shapes
from model.evaluation.baselines import seasonal_naive
from model.evaluation.splits import Cuts, held_out, run_starts
from model.seasons import shortest_lag
from model.training.forecasting import FittedForecaster, ForecastConfig, fit, forecast
from model.training.loop import OnStep
from model.windows import Floats, Rows
from pipeline.datasets.history import History, before, windows
from pipeline.windows.grid import Aggregate, Grid, Ints
from pipeline.windows.sliding import SlidingWindows
from tidecast.errors import ConfigError, DataError
from tidecast.times import format_time

NAMES = ("unique_id", "ds", "y")
"""What the columns of a frame are called: its series, their times, the values."""
Arch = Literal["blend", "lstm", "segment", "linear", "naive"]
FORECAST = "Tidecast"
"""What the column of forecasts is called."""


class Forecaster:
    """One model for all series of a frame. What is left out is found from the data.

    horizon       steps of a forecast.
    features      columns that the model looks at; left out, y alone.
    targets       those of them that are forecast; left out, the first.
    known         those of them that are known for the horizon too, such as a weather forecast or a holiday: none
                  that is forecast. They need evenly spaced data or a `freq`, and take no `aggregate`.
    freq          the spacing of steps: 250ms, 15s, 30m, 1h, 1d, 1w, 1mo, 1y; left out, what most of the data has.
    seq_len       steps that the model looks back; left out, a quarter of the longest series (up to half, for three
                  seasons), up to 720 or 15 seasons, and short enough to fit between breaks.
    max_gap       the longest hole, in missing steps, that is filled by a straight line; a longer one is a break.
                  Left out, 3, and more where that leaves too few windows.
    aggregate     what several rows in one step become together: mean, sum, last, count, min or max; needs a `freq`.
                  Left out, the first one is the step.
    non_negative  whether no forecast may be below zero.
    arch          the network: blend (the default: the mean of several), lstm, segment, linear or naive.
    epochs        passes over the data, at most; left out, 30, or as many as make 5,000 steps.
    seed          of the weights, the order of rows and dropout; 0 if left out.
                  On the CPU the same seed gives the same model.
    device        auto (the default: a GPU if there is one), cpu or cuda.
    config        everything else about the network and its training; arch, epochs, seed and device come before it.
    """

    _fitted: FittedForecaster | None = None
    _history: History | None = None
    _known: pl.DataFrame | None = None
    _given: Any = None

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
        """Settle what to learn; see the class. Raises ConfigError naming the setting that cannot be."""
        given: dict[str, Any] = {"arch": arch, "epochs": epochs, "seed": seed, "device": device}
        chosen = {name: value for name, value in given.items() if value is not None}
        self.job = TrainJob(
            name="forecaster",
            horizon=horizon,
            features=names_of(features),
            targets=None if targets is None else names_of(targets),
            known=names_of(known),
            freq=freq,
            seq_len=seq_len,
            max_gap=max_gap,
            aggregate=aggregate,
            non_negative=non_negative,
            config=replace(config or ForecastConfig(), **chosen),
        )

    @classmethod
    def of(cls, job: TrainJob) -> Self:
        """One for a job, whose horizon may be left to the data."""
        made = cls(job.horizon or 0)
        made.job = job
        return made

    @property
    def fitted(self) -> FittedForecaster:
        """The model, and how it came about. Raises ValueError before `fit`."""
        if self._fitted is None:
            raise ConfigError("predict: fit comes first")
        return self._fitted

    def fit(self, frame: Any, on_step: OnStep | None = None) -> Self:
        """Learn from a frame (long: unique_id, ds, y; or whatever `tidecast train --data` reads), and keep it.

        Raises DataError for a frame that can't be used, or is too short.
        """
        history, known = read_frame(frame, self.job), known_in_frame(frame, self.job)
        self._given = frame[:0]
        return self.learn(history, on_step, known=known)

    def learn(
        self,
        history: History,
        on_step: OnStep | None = None,
        cuts: Cuts | None = None,
        known: pl.DataFrame | None = None,
    ) -> Self:
        """Learn from a history, and keep it; `cuts` say what is not looked at.

        `known` is what is known ahead: series, ts and a column for each such feature.
        """
        inputs, outputs = shapes(history if cuts is None else before(history, cuts.test), self.job)
        data = windows(history, window_config(inputs))
        self._fitted = fit(data, inputs, outputs, self.job.config, self.job.name, on_step, cuts)
        self._history, self._known = history, known
        return self

    def predict(self, frame: Any = None, future: Any = None) -> Any:
        """The horizon after each series' last step, of a frame or of what was learned from.

        As the frame was given, in polars or pandas: unique_id, ds, the forecast (Tidecast, or of several targets
        Tidecast-NAME each), and `source`, what made it: `model`, or for a series shorter than the model looks back
        `naive`. Features that are known ahead come in `future`, or in rows of the frame without a value to forecast;
        raises DataError where one is missing.
        """
        if self._history is None:
            raise ConfigError("predict: fit comes first")
        history = self._history if frame is None else read_frame(frame, self.job)
        known = self._known if frame is None else known_in_frame(frame, self.job)
        if future is not None:
            told = known_in_frame(future, self.job, "future")
            if told is None:
                raise ConfigError("future: the forecaster was made with no `known` features")
            refuse_contradictions(told)
            known = told if known is None else pl.concat([told, known])
        return as_given(self.ahead(history, known), self._given if frame is None else frame)

    def ahead(self, history: History, known: pl.DataFrame | None = None) -> pl.DataFrame:
        """`predict` of a history, in polars; `known` as for `learn`."""
        data = self._windows(history)
        ends = np.flatnonzero(np.diff(data.series, append=-1))
        return with_times(self._table(data, ends, self._future(data, ends, known, needed=True)))

    def cross_validation(self, frame: Any, n_windows: int = 1, step_size: int | None = None) -> Any:
        """Learn from what lies before the first of `n_windows` cut-offs, and forecast from each of them.

        They lie `step_size` steps apart (a horizon, if left out), the last one a horizon before the end. The frame has
        unique_id, ds, cutoff, y, the forecast and `source`, where the truth is known. Raises ConfigError for cut-offs
        that do not lie in the frame.
        """
        if not isinstance(n_windows, int) or n_windows < 1 or (step_size is not None and step_size < 1):
            raise ConfigError(f"n_windows, step_size: {n_windows} and {step_size} are not numbers from 1 on")
        history, horizon = read_frame(frame, self.job), self.job.horizon or 1
        times = np.unique(history.frame["ts"].to_numpy())
        back = horizon + (step_size or horizon) * np.arange(n_windows)[::-1]
        if back.max() >= len(times):
            raise ConfigError(f"n_windows: {n_windows} cut-offs do not lie in {len(times):,} steps")
        cutoffs = times[len(times) - 1 - back]
        known = times[times <= cutoffs[0]]
        validated = held_out(len(known), self.job.config.validation, horizon)
        given = known_in_frame(frame, self.job)
        self.learn(history, cuts=Cuts(int(known[-validated]), int(cutoffs[0]) + 1), known=given)
        data = self._windows(history)
        names = dict(zip(self._targets, self._columns(NAMES[2]), strict=True))
        truth = history.frame.rename({"series": NAMES[0], "ts": NAMES[1], **names})
        parts = []
        for cutoff in cutoffs:
            ends = np.flatnonzero(data.ts == cutoff)
            table = self._table(data, ends, self._future(data, ends, given, needed=False))
            parts.append(table.with_columns(pl.lit(int(cutoff)).alias("cutoff")))
        made = pl.concat(parts).join(truth, on=NAMES[:2], how="inner")
        columns = (*NAMES[:2], "cutoff", *names.values(), *self._columns(FORECAST), "source")
        return as_given(with_times(made.select(columns)), frame)

    @property
    def horizon(self) -> int:
        """K, steps of a forecast."""
        return self.fitted.card.output.horizon

    @property
    def _targets(self) -> tuple[str, ...]:
        return self.fitted.card.output.targets

    def _columns(self, name: str) -> list[str]:
        """A column for each target: of this name if there is one, else with the target's behind it."""
        return [name] if len(self._targets) == 1 else [f"{name}-{target}" for target in self._targets]

    def _windows(self, history: History) -> SlidingWindows:
        return windows(history, window_config(self.fitted.card.input))

    def _future(self, data: SlidingWindows, ends: Rows, known: pl.DataFrame | None, *, needed: bool) -> Floats | None:
        """What is known of the horizon (N,K,C) after some rows, nan where nothing is; None for a model without.

        Raises DataError where it is needed and missing after a series that is long enough for the model.
        """
        spec = self.fitted.card.input
        if known is None or spec.freq is None:
            return None
        times = _times_ahead(data, ends, spec.freq, self.horizon)
        values = known_at(known, _repeated(data, ends, self.horizon), times.ravel(), spec).reshape(*times.shape, -1)
        lacking = np.isin(ends, data.ends)[:, None] & np.isnan(values).any(axis=2)
        if needed and lacking.any():
            place, step = np.argwhere(lacking)[0]
            series, moment = data.names[data.series[ends[place]]], format_time(int(times[place, step]))
            raise DataError(
                f"known: {', '.join(spec.known)} of {series!r} must be told for {self.horizon} steps of {spec.freq} "
                f"ahead, and {moment} has nothing"
            )
        return values

    def _table(self, data: SlidingWindows, ends: Rows, future: Floats | None) -> pl.DataFrame:
        """The forecasts from some rows, one a line; times in epoch milliseconds."""
        values, full = self._forecast(data, ends, future)
        times = _times_ahead(data, ends, self.fitted.card.input.freq, self.horizon)
        columns = zip(self._columns(FORECAST), np.moveaxis(values, -1, 0), strict=True)
        return pl.DataFrame(
            {
                NAMES[0]: _repeated(data, ends, self.horizon),
                NAMES[1]: times.ravel(),
                **{name: made.ravel().astype(np.float64) for name, made in columns},
                "source": np.repeat(np.where(full, "model", "naive"), self.horizon),
            },
            schema_overrides={NAMES[0]: pl.String},
        )

    def _forecast(
        self, data: SlidingWindows, ends: Rows, future: Floats | None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """The targets' forecasts (N,K,O) from some rows, and which are the model's, (N,).

        The rest, with too little history, or too little known ahead, are seasonal naive ones.
        """
        fitted = self.fitted
        known, full = data.values[:, fitted.card.target_columns], np.isin(ends, data.ends)
        if future is not None:
            full &= np.isfinite(future).all(axis=(1, 2))
        lag = shortest_lag(fitted.card.input.freq)
        values = seasonal_naive(known, ends, run_starts(data, ends), self.horizon, lag)
        if full.any():
            values[full] = forecast(fitted.model, data, ends[full], None if future is None else future[full])
        if len(wrong := np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))):
            raise DataError(
                f"the forecast of {data.names[data.series[ends[wrong[0]]]]!r} is not finite: its values are too large"
            )
        return values, full


def _times_ahead(data: SlidingWindows, ends: Rows, freq: str | None, horizon: int) -> Ints:
    """(N,K) epoch milliseconds; without a grid, as far apart as the last two steps."""
    ahead = np.arange(1, horizon + 1)
    if freq is None:
        spacing = np.where(run_starts(data, ends) < ends, data.ts[ends] - data.ts[ends - 1], 0)
        return np.asarray(data.ts[ends][:, None] + spacing[:, None] * ahead)
    grid = Grid.parse(freq)
    if grid.months:
        return grid.time(data.step[ends][:, None] + ahead)
    return np.asarray(data.ts[ends][:, None] + grid.milliseconds * ahead)


def _repeated(data: SlidingWindows, ends: Rows, horizon: int) -> list[str]:
    """The series of some rows, once for each step ahead."""
    return [data.names[place] for place in data.series[ends] for _ in range(horizon)]
