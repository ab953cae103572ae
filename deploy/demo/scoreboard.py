"""The demo's score: the errors so far next to the seasonal naive forecast's, and a plot in the terminal."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import plotext
from rich.console import Group
from rich.text import Text

from deploy.grading.totals import Totals
from model.evaluation.baselines import seasonal_naive
from model.evaluation.metrics import mse
from model.seasons import seasonal_lags
from pipeline.formats.forecasts import Forecast
from pipeline.formats.scores import SeriesScores

FREQ = "30m"
HORIZON = 48
SHOWN_STEPS = 192
"""Past steps in the plot: four days."""


@dataclass(slots=True)
class Scoreboard:
    """The replayed part of a series, the forecasts for it so far, and both errors on the same windows.

    `values` (T,) is the whole series, `times` (T,) its epoch milliseconds; the replay begins at row `cut`. Errors are
    scaled by the standard deviation of the values before it.
    """

    values: npt.NDArray[np.float64]
    times: npt.NDArray[np.int64]
    cut: int
    forecasts: npt.NDArray[np.float32] = field(init=False)
    bounds: tuple[list[float], list[float]] | None = None
    """Lower and upper of the newest forecast."""
    totals: Totals = field(default_factory=Totals)
    """The service's own scores of the replayed part."""
    sent: int = 0

    def __post_init__(self) -> None:
        self.forecasts = np.full((len(self.values) - self.cut, HORIZON), np.nan, np.float32)

    def add(self, forecast: Forecast) -> None:
        """Add a forecast, if it is for a replayed event; a duplicate changes nothing."""
        row = int(np.searchsorted(self.times, forecast.ts)) - self.cut
        if row >= 0 and isinstance(forecast.forecast, list):
            self.forecasts[row] = forecast.forecast
            if isinstance(forecast.lower, list) and isinstance(forecast.upper, list):
                self.bounds = forecast.lower, forecast.upper

    def add_scores(self, scores: SeriesScores) -> None:
        """Add a bucket of the service's scores, if it is of replayed events."""
        if scores.start >= self.times[self.cut]:
            self.totals.add(scores)

    @property
    def graded(self) -> dict[str, float | None]:
        """How many forecast values the service has graded, the share inside their intervals, and the skill, by its
        scores: 1 - error / that of the naive forecast.
        """
        rows = self.totals.rows("series")
        if not rows:
            return {"graded": 0, "coverage": None, "skill": None}
        return {"graded": rows[0].count, "coverage": rows[0].coverage, "skill": rows[0].skill}

    @property
    def received(self) -> npt.NDArray[np.bool_]:
        """(N,): which replayed events have a forecast so far."""
        return ~np.isnan(self.forecasts[:, 0])

    def errors(self) -> tuple[float, float]:
        """MSE of the forecasts whose target steps have all been sent, and of the better seasonal naive; nan if none."""
        rows = np.flatnonzero(self.received[: max(self.sent - HORIZON, 0)])
        ends, scale = rows + self.cut, float(self.values[: self.cut].std())
        actual = self.values[ends[:, None] + np.arange(1, HORIZON + 1)]
        first = np.zeros_like(ends)
        naives = [
            seasonal_naive(self.values[:, None], ends, first, HORIZON, lag)[..., 0]
            for lag in seasonal_lags(FREQ).values()
        ]
        return mse(self.forecasts[rows], actual, scale), min(mse(naive, actual, scale) for naive in naives)

    def render(self, width: int) -> Group:
        """A plot of the newest actual values with the latest forecast, above the score."""
        now, first = self.cut + self.sent, max(self.cut + self.sent - SHOWN_STEPS, 0)
        plotext.clf()
        plotext.theme("clear")
        plotext.plotsize(width, 16)
        past = list(range(first - now + 1, 1))
        plotext.plot(past, self.values[first:now].tolist(), label="actual", marker="braille", color="default")
        newest = int(np.flatnonzero(self.received)[-1]) if self.received.any() else -1
        for label, origin, color in (("forecast a day ago", newest - HORIZON, "orange"), ("forecast", newest, "cyan+")):
            if origin >= 0 and self.received[origin]:
                ahead = np.arange(1, HORIZON + 1) + self.cut + origin + 1 - now
                row = self.forecasts[origin].tolist()
                plotext.plot(ahead.tolist(), row, label=label, marker="braille", color=color)
        for row in self.bounds or ():
            first_step = self.cut + newest + 2 - now
            steps_ahead = list(range(first_step, first_step + HORIZON))
            plotext.plot(steps_ahead, row, label="90 % interval", marker="braille", color="gray")
        plotext.xlim(-SHOWN_STEPS, HORIZON)
        plotext.ylim(0, 1.1 * float(self.values[: self.cut].max()))
        days = range(-SHOWN_STEPS, HORIZON + 1, HORIZON)
        plotext.ylabel("rides per half hour")
        plotext.xlabel("days from now")
        plotext.xticks(list(days), [f"{step // HORIZON:+} d" if step else "now" for step in days])
        return Group(Text.from_ansi(plotext.build()), Text(self.score_line()))

    def score_line(self) -> str:
        """The score so far, as text."""
        error, naive = self.errors()
        total = len(self.forecasts)
        score = (
            f"squared error {error:.3f}, naive forecast {naive:.3f} (1: the variance in training)"
            if error == error
            else "no forecast is a day old yet"
        )
        received = f"{self.sent:,} of {total:,} events sent, {int(self.received.sum()):,} forecasts received"
        return f"{received}; {score}{self._graded_line()}"

    def _graded_line(self) -> str:
        graded = self.graded
        if graded["coverage"] is None or graded["skill"] is None:
            return ""
        inside, skill = f"{graded['coverage']:.0%} inside", f"skill {graded['skill']:.2f}"
        return f"; {graded['graded']:,} forecast values graded, {inside}, {skill}"
