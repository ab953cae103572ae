"""Intervals in a backtest: how much they cover, beside those of the best naive forecast."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import numpy.typing as npt
from rich.table import Table

from model.evaluation.baselines import baselines
from model.evaluation.intervals import SHOWN, IntervalScores, naive_calibration
from model.evaluation.splits import chunks, sample, targets
from model.training.forecasting import FittedForecaster
from model.windows import Rows, WindowData

COLUMNS = {"coverage": ".1%", "width": ".4g", "winkler": ".4g"}
IN_WORDS = (
    "intervals are as wide as the errors in validation; coverage: the share of values inside; width, winkler: in "
    "z-scores, and winkler, the width and a penalty for each value outside, is lower for a better interval"
)


@dataclass(frozen=True, slots=True)
class IntervalComparison:
    """The scores of a model's intervals, for each seed, and those of a naive forecast, calibrated on the same part."""

    runs: Sequence[IntervalScores]
    naive_name: str
    naive: IntervalScores

    def table(self) -> Table:
        """A row for each level and forecast."""
        table = Table(caption=IN_WORDS, caption_justify="left")
        for heading in ("intervals", *COLUMNS):
            table.add_column(heading, no_wrap=True, justify="left" if heading == "intervals" else "right")
        for level in map(str, SHOWN):
            for name, scores in self._overall().items():
                cells = (f"{scores[level][column]:{how}}" for column, how in COLUMNS.items())
                table.add_row(f"{name}, {level} %", *cells)
        return table

    def summary(self) -> dict[str, object]:
        """The same, with the CRPS and the coverage by step, as data."""
        return {
            "intervals": self._overall(),
            "crps": {"Tidecast": mean(run.crps for run in self.runs), self.naive_name: self.naive.crps},
            "coverage_by_step": self.runs[0].by_step(),
            "without_interval": self.runs[0].missing,
        }

    def _overall(self) -> dict[str, dict[str, dict[str, float]]]:
        """By forecast and level, the model's averaged over seeds."""
        runs = [run.overall() for run in self.runs]
        model = {
            level: {column: mean(run[level][column] for run in runs) for column in scores}
            for level, scores in runs[0].items()
        }
        return {"Tidecast": model, self.naive_name: self.naive.overall()}


def naive_intervals(
    fitted: FittedForecaster, data: WindowData, ends: Rows, deviation: npt.NDArray[np.float64]
) -> tuple[str, IntervalScores]:
    """The best naive forecast in validation, and how its intervals fare after the windows that end in these rows."""
    card, (name, _) = fitted.card, fitted.card.best_naive
    horizon, columns, lag = card.output.horizon, card.target_columns, card.input.lags.get(name, 1)
    scores = IntervalScores(naive_calibration(data, sample(fitted.split.validation), card, lag), card, deviation)
    for part in chunks(ends):
        actual, observed = targets(data, part, horizon, columns)
        scores.add(data, part, baselines(data, part, horizon, columns, {name: lag})[name], actual, observed)
    return f"naive ({name})", scores
