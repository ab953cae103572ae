"""How the demo's forecasts do: the errors so far, beside the seasonal naive's, and a picture in the terminal."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import plotext
from rich.console import Group
from rich.text import Text

from model.evaluation.baselines import seasonal_naive
from model.evaluation.metrics import mse
from model.seasons import seasonal_lags
from pipeline.formats.forecasts import Forecast

FREQ = "30m"
HORIZON = 48
SHOWN_STEPS = 192
"""How much of the past the plot shows: four days."""


@dataclass(slots=True)
class Scoreboard:
    """The replayed part of a series, the forecasts for it so far, and both errors on the same windows.

    `values` (T,) is the whole series, `times` (T,) its epoch milliseconds; the replay begins at row `cut`. Errors are
    z-scored by what lies before.
    """

    values: npt.NDArray[np.float64]
    times: npt.NDArray[np.int64]
    cut: int
    forecasts: npt.NDArray[np.float32] = field(init=False)
    sent: int = 0

    def __post_init__(self) -> None:
        self.forecasts = np.full((len(self.values) - self.cut, HORIZON), np.nan, np.float32)

    def note(self, forecast: Forecast) -> None:
        """Keep a forecast, if it is for a replayed event; a repeated one changes nothing."""
        row = int(np.searchsorted(self.times, forecast.ts)) - self.cut
        if row >= 0 and isinstance(forecast.forecast, list):
            self.forecasts[row] = forecast.forecast

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N,): which replayed events have a forecast."""
        return ~np.isnan(self.forecasts[:, 0])

    def errors(self) -> tuple[float, float]:
        """The forecasts' error, and the better seasonal naive's, where all targets have been sent; nan before."""
        rows = np.flatnonzero(self.known[: max(self.sent - HORIZON, 0)])
        ends, scale = rows + self.cut, float(self.values[: self.cut].std())
        actual = self.values[ends[:, None] + np.arange(1, HORIZON + 1)]
        first = np.zeros_like(ends)
        naives = [
            seasonal_naive(self.values[:, None], ends, first, HORIZON, lag)[..., 0]
            for lag in seasonal_lags(FREQ).values()
        ]
        return mse(self.forecasts[rows], actual, scale), min(mse(naive, actual, scale) for naive in naives)

    def picture(self, width: int) -> Group:
        """The newest stretch: what happened, and the last forecast over what is to come."""
        now, first = self.cut + self.sent, max(self.cut + self.sent - SHOWN_STEPS, 0)
        plotext.clf()
        plotext.theme("clear")
        plotext.plotsize(width, 16)
        past = list(range(first - now + 1, 1))
        plotext.plot(past, self.values[first:now].tolist(), label="actual", marker="braille", color="default")
        newest = int(np.flatnonzero(self.known)[-1]) if self.known.any() else -1
        for label, made, color in (("forecast a day ago", newest - HORIZON, "orange"), ("forecast", newest, "cyan+")):
            if made >= 0 and self.known[made]:
                ahead = np.arange(1, HORIZON + 1) + self.cut + made + 1 - now
                row = self.forecasts[made].tolist()
                plotext.plot(ahead.tolist(), row, label=label, marker="braille", color=color)
        plotext.xlim(-SHOWN_STEPS, HORIZON)
        plotext.ylim(0, 1.1 * float(self.values[: self.cut].max()))
        days = range(-SHOWN_STEPS, HORIZON + 1, HORIZON)
        plotext.xticks(list(days), [f"{step // HORIZON:+} d" if step else "now" for step in days])
        return Group(Text.from_ansi(plotext.build()), Text(self.line()))

    def line(self) -> str:
        """The running score in words."""
        ours, naive = self.errors()
        total = len(self.forecasts)
        score = f"error {ours:.3f}, seasonal naive {naive:.3f}" if ours == ours else "no forecast is a day old yet"
        return f"{self.sent:,} of {total:,} events sent, {int(self.known.sum()):,} forecasts back; {score}"
