"""A challenger, a champion and naive forecasts compared at the same origins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.models.predictor import Predictor
from model.card import Card
from model.evaluation.baselines import baselines, naive_lags
from model.evaluation.metrics import series_scale, window_mse
from model.evaluation.promotion import by_origin
from model.evaluation.splits import Cuts, chunks, split, step_numbers, targets
from model.training.forecasting import FittedForecaster, forecast
from model.windows import Rows
from pipeline.windows.sliding import SlidingWindows

Reals = npt.NDArray[np.float64]
Losses = dict[str, Reals]


@dataclass(frozen=True, slots=True)
class WindowRows:
    """Windows of a history, as a predictor takes them."""

    data: SlidingWindows
    ends: Rows

    def __len__(self) -> int:
        return len(self.ends)

    def arrays(self, start: int, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """A model's named inputs for some of the windows."""
        ends = self.ends[start:stop]
        return {"x": self.data.x(ends), "observed": self.data.x_observed(ends), "step": self.data.step[ends]}


def comparison_losses(
    data: SlidingWindows, fitted: FittedForecaster, champion: Predictor, cuts: Cuts
) -> tuple[Rows, Losses]:
    """The origins of the test part (T,), and the losses there of the challenger, the champion and the naive forecasts.

    Origins are rows, one each; losses are squared errors in z-scores, averaged over an origin's series.
    """
    card = fitted.card
    horizon, columns = card.output.horizon, card.target_columns
    ends = split(data, horizon, cuts).test
    scale = series_scale(data, columns, cuts.validation)
    lags = naive_lags(data, ends, horizon, card.input.lags)
    parts: dict[str, list[Reals]] = {}
    for part in chunks(ends):
        actual, observed = targets(data, part, horizon, columns)
        naive = baselines(data, part, horizon, columns, lags)
        forecasts = {
            "challenger": forecast(fitted.model, data, part),
            "champion": _as_served(champion, data, part),
            **{f"naive ({name})": each for name, each in naive.items()},
        }
        for name, each in forecasts.items():
            parts.setdefault(name, []).append(window_mse(each, actual, observed, scale[data.series[part]]))
    losses = {name: np.concatenate(part) for name, part in parts.items()}
    scored = np.isfinite(losses["champion"])
    key = step_numbers(data, ends)[scored]
    _, first = np.unique(key, return_index=True)
    return ends[scored][first], {name: by_origin(key, loss[scored])[1] for name, loss in losses.items()}


def _as_served(champion: Predictor, data: SlidingWindows, ends: Rows) -> Reals:
    """A model's forecasts (N,K,O) as a service gives them: the seasonal naive one where its own is not finite."""
    forecasts = np.concatenate(list(champion.predict(WindowRows(data, ends))))
    card = champion.card
    assert isinstance(card, Card)
    naive = baselines(data, ends, card.output.horizon, card.target_columns, {"": card.input.season_lag})[""]
    return np.where(np.isfinite(forecasts).all(axis=(1, 2), keepdims=True), forecasts, naive)
