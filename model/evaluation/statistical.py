"""A statistical baseline, refitted at every origin: AutoETS or MSTL from statsforecast."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from model.evaluation.metrics import ErrorScale, Scores
from model.evaluation.splits import targets
from model.windows import Rows, WindowData

ORIGINS = 60
"""Origins fitted, evenly spaced: a fit takes about a second."""
CYCLES = 12
"""The history of a fit, in longest seasons before the origin."""
LONGEST_ETS = 24
"""The longest season that ETS supports."""


def name_of(lags: Mapping[str, int]) -> str:
    """The model for these seasons: MSTL for several or long ones, else AutoETS."""
    return "MSTL" if len(lags) > 1 or max(lags.values(), default=1) > LONGEST_ETS else "AutoETS"


def statistical_scores(
    data: WindowData,
    ends: Rows,
    horizon: int,
    column: int,
    lags: Mapping[str, int],
    scale: ErrorScale,
    on_fit: Callable[[int], object],
) -> Scores:
    """The scores of a new fit at each of these origins, on the unbroken history of its series up to the origin.

    A season with fewer than two cycles before an origin is left out there. `on_fit` is called with the number of fits
    done.
    """
    scores = Scores(scale, horizon)
    for done, end in enumerate(ends, start=1):
        part = ends[done - 1 : done]
        first = int(np.searchsorted(data.run, data.run[end], side="left"))
        longest = CYCLES * max(lags.values(), default=100)
        history = data.values[max(first, end + 1 - longest) : end + 1, column].astype(np.float64)
        forecasts = _forecast(history, horizon, [lag for lag in lags.values() if len(history) > 2 * lag])
        actual, observed = targets(data, part, horizon, [column])
        scores.add(data.series[part], forecasts[None, :, None], actual, observed)
        on_fit(done)
    return scores


def _forecast(history: npt.NDArray[np.float64], horizon: int, seasons: list[int]) -> npt.NDArray[np.float64]:
    from statsforecast.models import MSTL, AutoETS  # an optional extra that takes seconds to compile

    if len(seasons) > 1 or max(seasons, default=1) > LONGEST_ETS:
        model = MSTL(season_length=seasons, trend_forecaster=AutoETS(model="ZZN"))
    else:
        model = AutoETS(season_length=max(seasons, default=1))
    return np.asarray(model.forecast(y=history, h=horizon)["mean"], np.float64)
