"""Pictures of forecasts: what was known, what was forecast from there, and what came."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from model.card import Card
from model.evaluation.baselines import baselines
from model.evaluation.intervals import SHOWN, window_scales
from model.plots.style import (
    ACTUAL,
    ANOMALY,
    DASHES,
    ERROR,
    FORECAST,
    INK,
    INTERVAL,
    MUTED,
    NAIVE,
    Times,
    blended,
    grid_of,
    headed,
    legend,
    moments,
    numbered,
    page,
    save,
    spread,
    timed,
)
from model.training.forecasting import FittedForecaster, forecast
from model.windows import Floats, Rows, WindowData
from tidecast.times import format_time

PANELS = 4
"""Most forecasts in a picture."""
FEW = 60
"""So few values have a mark each."""

Look = dict[str, Any]
"""How a line is drawn."""
Bands = Mapping[str, tuple[Floats, Floats]]
"""The lower and upper bounds (K,) of intervals by their levels, the widest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A forecast from one origin, to be drawn. A value that is not known is nan."""

    title: str
    unit: str
    """What the values are: the target's name."""
    times: Times
    """(n,): of the history."""
    values: Floats
    """(n,): the history, which ends where the forecast begins."""
    ahead: Times
    """(K,): of the forecast."""
    forecast: Floats
    """(K,)."""
    bands: Bands = field(default_factory=dict)
    came: Floats | None = None
    """(K,): what really happened next."""
    naive: tuple[str, Floats] | None = None
    """Which naive forecast, and its values (K,)."""
    is_naive: bool = False
    """Whether the forecast is itself one, of a series too short for the model."""
    anomaly: float | None = None
    """The score of the last known value, if it is an anomaly."""


def history_steps(horizon: int, times: int = 3) -> int:
    """How many steps before a forecast are shown: so many times as it has, fewer where what came is to be compared."""
    return max(times * horizon, 24)


def draw_outlook(panel: Axes, look: Outlook, zone: str = "UTC") -> None:
    """Draw a forecast where history ends, without a gap, on its interval, beside what came."""
    headed(panel, look.title, f"time ({zone})", look.unit)
    dots: Look = {"marker": "o", "markersize": 2.5} if len(look.times) + len(look.ahead) <= FEW else {}
    times, last = np.concatenate([look.times[-1:], look.ahead]), look.values[-1:]
    dashed: Look = {"color": NAIVE, "linewidth": 1.6, "linestyle": DASHES[0], **dots}
    panel.plot(look.times, look.values, color=ACTUAL, linewidth=1.6, label="actual", **dots)
    if look.came is not None:
        panel.plot(times, np.concatenate([last, look.came]), color=ACTUAL, linewidth=1.6, **dots)
    if look.naive is not None:
        name, values = look.naive
        panel.plot(times, np.concatenate([last, values]), label=name, **dashed)
    line: Look = {"color": FORECAST, "linewidth": 2.2, "label": "forecast", **dots}
    line = {**dashed, "label": "naive forecast"} if look.is_naive else line
    panel.plot(times, np.concatenate([last, look.forecast]), **line)
    _draw_bands(panel, times, last, look)
    if len(look.times):
        panel.axvline(look.times[-1], color=MUTED, linewidth=1, linestyle=DASHES[1], label="history ends")
    if look.anomaly is not None:
        label = f"anomaly, score {look.anomaly:.3g}"
        panel.plot(look.times[-1:], last, "o", color=ANOMALY, markersize=7, label=label, zorder=5)
    timed(panel)
    numbered(panel)


def _draw_bands(panel: Axes, times: Times, last: Floats, look: Outlook) -> None:
    """Draw the bands that there are, below all lines, from where history ends; the narrower the darker."""
    color, of = (NAIVE, " (naive)") if look.is_naive else (FORECAST, "")
    drawn = {label: bounds for label, bounds in look.bands.items() if np.isfinite(bounds).all(axis=0).any()}
    for place, (label, bounds) in enumerate(drawn.items(), 1):
        lower, upper = (np.concatenate([last, side]) for side in bounds)
        shade = blended(color, place * INTERVAL)
        panel.fill_between(times, lower, upper, color=shade, linewidth=0, label=f"{label} interval{of}", zorder=1)


def plot_outlooks(looks: Sequence[Outlook], title: str, path: Path, zone: str = "UTC") -> None:
    """Plots one to four forecasts. Writes a PNG."""
    figure = page(title, height=4.8 if len(looks) == 1 else 2.8 * len(looks) if len(looks) < PANELS else 7.2)
    panels = grid_of(figure, len(looks))
    for panel, look in zip(panels, looks, strict=True):
        draw_outlook(panel, look, zone)
    legend(figure, panels)
    save(figure, path)


def plot_forecasts(fitted: FittedForecaster, data: WindowData, path: Path) -> None:
    """Plots the first target of four validation windows: actuals, forecast and naive forecast. Writes a PNG."""
    card = fitted.card
    ends = _evenly(fitted.split.validation, PANELS)
    season, naive_mse = card.best_naive
    errors = f"validation mse {card.metrics['validation_mse']:.3f}, naive {naive_mse:.3f}, in z-scores"
    plot_outlooks(_outlooks(fitted, data, ends, season), f"{_title(card, 'forecasts')}  ·  {errors}", path)


def plot_backtest(
    fitted: FittedForecaster, data: WindowData, ends: Rows, errors: Mapping[str, Sequence[float]], path: Path
) -> None:
    """Plots model and naive forecast at three origins, the model's with intervals, and `errors` by steps ahead, a PNG.

    `ends` (N,) are the candidate origins, sampled evenly; `errors` are mean squared errors in z-scores, by forecaster.
    """
    card = fitted.card
    lags = [name for name in ("last", *card.input.lags) if f"naive ({name})" in errors]
    season = min(lags, key=lambda name: float(np.mean(errors[f"naive ({name})"])))
    looks = _outlooks(fitted, data, _evenly(ends, PANELS - 1), season)
    figure = page(_title(card, "backtest"), height=7.2 if len(looks) == PANELS - 1 else 2.8 * (len(looks) + 1))
    first, *panels = grid_of(figure, len(looks) + 1)
    draw_by_step(first, errors, {"Tidecast": FORECAST}, card.input.freq, f"naive ({season})")
    if first.get_legend_handles_labels()[1]:
        legend(first)
    for panel, look in zip(panels, looks, strict=True):
        draw_outlook(panel, look)
    legend(figure, panels)
    save(figure, path)


def draw_by_step(
    panel: Axes, errors: Mapping[str, Sequence[float]], colors: Mapping[str, str], freq: str | None, best: str = ""
) -> None:
    """Draw mean squared errors by steps ahead; who has no colour is naive, the `best` of them with a heavier line."""
    naive = sorted((name for name in errors if name not in colors), key=lambda name: name != best)
    across = "steps ahead" + (f" (of {freq})" if freq else "")
    if len(next(iter(errors.values()))) == 1:  # a line needs two points
        headed(panel, f"error one step{across[5:]}", ERROR, "")
        bars = panel.barh(
            list(errors), [each[0] for each in errors.values()], color=[colors.get(name, NAIVE) for name in errors]
        )
        panel.bar_label(bars, fmt=" {:.4g}", color=INK, fontsize=9)
        panel.invert_yaxis()
        panel.margins(x=0.12)
        return
    headed(panel, "error by steps ahead", across, ERROR)
    for name in (*naive, *(name for name in errors if name in colors)):
        steps = range(1, len(errors[name]) + 1)
        dots: Look = {"marker": "o", "markersize": 3} if len(steps) <= FEW // 4 else {}
        if name in colors:
            panel.plot(steps, errors[name], label=name, color=colors[name], linewidth=2.2, **dots)
        else:
            dashes = DASHES[min(naive.index(name), len(DASHES) - 1)]
            width = 1.8 if name == best else 1.2
            panel.plot(steps, errors[name], label=name, color=NAIVE, linewidth=width, linestyle=dashes, **dots)
    spread(panel, list(errors.values()))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def steps_ahead(card: Card) -> str:
    """How far a model forecasts, in words."""
    count = f"{card.output.horizon:,} step{'s' * (card.output.horizon > 1)}"
    return f"{count}{f' of {card.input.freq}' if card.input.freq else ''} ahead"


def _title(card: Card, what: str) -> str:
    return f"{card.name}: {what} of {card.output.targets[0]}, {steps_ahead(card)}"


def _evenly(ends: Rows, count: int) -> Rows:
    """So many of these rows, evenly: the middles of as many parts."""
    parts = min(count, len(ends))
    chosen: Rows = ends[((np.arange(parts) + 0.5) * len(ends) / parts).astype(int)]
    return chosen


def _outlooks(fitted: FittedForecaster, data: WindowData, ends: Rows, season: str) -> list[Outlook]:
    """The first target's forecasts from these rows, beside a season's naive forecasts."""
    card, horizon = fitted.card, fitted.card.output.horizon
    column, lag = card.target_columns[0], card.input.lags.get(season, 1)
    naive = baselines(data, ends, horizon, [column], {season: lag})[season][:, :, 0]
    forecasts = forecast(fitted.model, data, ends)
    bands = _bands(fitted, data, ends, forecasts)
    actual: npt.NDArray[np.float64] = np.where(data.observed[:, column], data.values[:, column], np.nan)
    looks = []
    for place, end in enumerate(ends):
        before: Rows = np.arange(end - min(data.seq_len, history_steps(horizon, 1)) + 1, end + 1)
        after: Rows = np.arange(end + 1, end + horizon + 1)
        look = Outlook(
            title=f"{data.names[data.series[end]]}, from {format_time(int(data.ts[end]))}",
            unit=card.output.targets[0],
            times=moments(data.ts[before]),
            values=actual[before],
            ahead=moments(data.ts[after]),
            forecast=forecasts[place, :, 0],
            bands={name: (lower[place, :, 0], upper[place, :, 0]) for name, (lower, upper) in bands.items()},
            came=actual[after],
            naive=(f"naive ({season})", naive[place]),
        )
        looks.append(look)
    return looks


def _bands(fitted: FittedForecaster, data: WindowData, ends: Rows, forecasts: Floats) -> Bands:
    """The intervals (N,K,O) around a model's forecasts."""
    if (calibration := fitted.calibration) is None:
        return {}
    scales, clipped = window_scales(data, ends, fitted.card), fitted.card.output.clipped
    return {f"{level} %": calibration.bounds(forecasts, scales, level / 100, clipped) for level in reversed(SHOWN)}
