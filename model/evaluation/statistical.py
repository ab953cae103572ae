"""A statistical forecast to stand beside a model's: AutoETS or MSTL, by statsforecast, fitted at every origin."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from model.evaluation.metrics import ErrorScale, Scores
from model.evaluation.splits import targets
from model.windows import Rows, WindowData

ORIGINS = 60
"""How many origins are fitted, spread over all: one takes about a second."""
CYCLES = 12
"""How many of the longest seasons before an origin a fit sees."""
LONGEST_ETS = 24
"""The longest season that ETS takes."""


def name_of(lags: Mapping[str, int]) -> str:
    """What suits these seasons: MSTL for several or long ones, AutoETS for the rest."""
    return "MSTL" if len(lags) > 1 or max(lags.values(), default=1) > LONGEST_ETS else "AutoETS"


def statistical_scores(
    data: WindowData,
    ends: Rows,
    horizon: int,
    column: int,
    lags: Mapping[str, int],
    by: ErrorScale,
    on_fit: Callable[[int], object],
) -> Scores:
    """The scores of a new fit at each of these origins; each sees its series without a break, up to its origin.

    A season that does not lie twice before an origin is left out there. `on_fit` is told how many are done.
    """
    scores = Scores(by, horizon)
    for done, end in enumerate(ends, start=1):
        part = ends[done - 1 : done]
        first = int(np.searchsorted(data.run, data.run[end], side="left"))
        longest = CYCLES * max(lags.values(), default=100)
        known = data.values[max(first, end + 1 - longest) : end + 1, column].astype(np.float64)
        made = _forecast(known, horizon, [lag for lag in lags.values() if len(known) > 2 * lag])
        actual, observed = targets(data, part, horizon, [column])
        scores.add(data.series[part], made[None, :, None], actual, observed)
        on_fit(done)
    return scores


def _forecast(known: npt.NDArray[np.float64], horizon: int, seasons: list[int]) -> npt.NDArray[np.float64]:
    from statsforecast.models import MSTL, AutoETS  # an extra of its own, and seconds of compiling

    if len(seasons) > 1 or max(seasons, default=1) > LONGEST_ETS:
        model = MSTL(season_length=seasons, trend_forecaster=AutoETS(model="ZZN"))
    else:
        model = AutoETS(season_length=max(seasons, default=1))
    return np.asarray(model.forecast(y=known, h=horizon)["mean"], np.float64)
