"""Plots of a model's quality: forecasts against actuals, confusion matrices, losses."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from model.card import Card
from model.evaluation.baselines import baselines
from model.evaluation.intervals import SHOWN, window_scales
from model.evaluation.promotion import LEAST_GAIN, PromotionDecision
from model.training.forecasting import FittedForecaster, forecast
from model.training.loop import Epoch
from model.windows import Floats, Rows, WindowData
from tidecast.text import escaped

rcParams["text.parse_math"] = False  # names are text, whatever is in them

Reals = npt.NDArray[np.float64]
INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
FORECAST, NAIVE = "#0b69c7", "#e07a1f"
PANELS = 4
LONGEST_LABEL, MOST_NUMBERS = 20, 20


def plot_forecasts(fitted: FittedForecaster, data: WindowData, path: Path) -> None:
    """Plots the first target of four validation windows: actuals, forecast and naive forecast. Writes a PNG."""
    card = fitted.card
    horizon, columns = card.output.horizon, card.target_columns[:1]
    ends = fitted.split.validation
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, PANELS).astype(int))]
    season, naive_mse = card.best_naive
    naive = baselines(data, ends, horizon, columns, {season: _lag(card, season)})
    forecasts = forecast(fitted.model, data, ends)[:, :, 0]
    figure = Figure(figsize=(12, 6.4), dpi=110, layout="constrained", facecolor="white")
    panels = figure.subplots(2, 2, squeeze=False).ravel()
    naive_forecasts = naive[season][:, :, 0]
    for panel, end, *lines in zip(panels[: len(ends)], ends, forecasts, naive_forecasts, strict=True):
        _draw(panel, data, end, columns[0], (lines[0], lines[1]), season, {})
    for panel in panels[len(ends) :]:
        panel.set_axis_off()
    errors = f"validation mse {card.metrics['validation_mse']:.3f}, naive {naive_mse:.3f}"
    figure.suptitle(f"{card.name}: {card.output.targets[0]}, {horizon} steps ahead   ·   {errors}", color=INK)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    _save(figure, path)


def plot_backtest(
    fitted: FittedForecaster, data: WindowData, ends: Rows, errors: Mapping[str, Sequence[float]], path: Path
) -> None:
    """Plots model and naive forecast at three origins, the model's with intervals, and `errors` by steps ahead, a PNG.

    `ends` (N,) are the candidate origins, sampled evenly; `errors` are mean squared errors in z-scores.
    """
    card = fitted.card
    horizon, columns = card.output.horizon, card.target_columns[:1]
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, PANELS + 1).astype(int)[1:-1])]
    lags = {name: _lag(card, name) for name in ("last", *card.input.lags) if f"naive ({name})" in errors}
    season = min(lags, key=lambda name: float(np.mean(errors[f"naive ({name})"])))
    naive = baselines(data, ends, horizon, columns, {season: lags[season]})
    forecasts = forecast(fitted.model, data, ends)
    bands = _bands(fitted, data, ends, forecasts)
    figure = Figure(figsize=(12, 6.4), dpi=110, layout="constrained", facecolor="white")
    first, *panels = figure.subplots(2, 2, squeeze=False).ravel()
    for name, values in errors.items():
        is_model = not name.startswith("naive")
        color = FORECAST if is_model else NAIVE if name == f"naive ({season})" else MUTED
        first.plot(range(1, horizon + 1), values, label=name, color=color, linewidth=2.2 if is_model else 1.2)
    first.set_title("mean squared error by steps ahead, in z-scores", loc="left", fontsize=10, color=INK)
    first.legend(frameon=False, fontsize=8)
    _plain(first)
    for place, (panel, end) in enumerate(zip(panels, ends, strict=False)):
        lines = forecasts[place, :, 0], naive[season][place, :, 0]
        band = {name: (lower[place, :, 0], upper[place, :, 0]) for name, (lower, upper) in bands.items()}
        _draw(panel, data, end, columns[0], lines, season, band)
    for panel in panels[len(ends) :]:
        panel.set_axis_off()
    figure.suptitle(f"{card.name}: {card.output.targets[0]}, {horizon} steps ahead", color=INK)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3 + len(bands), frameon=False
    )
    _save(figure, path)


def plot_promotion(decision: PromotionDecision, ts: Rows, losses: Mapping[str, Reals], title: str, path: Path) -> None:
    """Plots the losses of challenger, champion and naive forecasts over time, and the gain's bounds. Writes a PNG.

    `ts` (T,) are the origins in epoch milliseconds, `losses` (T,) mean squared errors in z-scores.
    """
    figure = Figure(figsize=(12, 6), dpi=110, layout="constrained", facecolor="white")
    over_time, gain = figure.subplots(2, 1, height_ratios=[4, 1])
    times = [datetime.fromtimestamp(ms / 1000, UTC) for ms in ts.tolist()]
    width = max(1, len(times) // max(decision.blocks, 1))
    colors = {"challenger": FORECAST, "champion": INK}
    for name, values in losses.items():
        smooth = np.convolve(values, np.ones(width) / width, "valid")
        line = 2.2 if name in colors else 1.2
        over_time.plot(times[width - 1 :], smooth, label=name, color=colors.get(name, MUTED), linewidth=line)
    over_time.set_title(f"mean squared error in z-scores, of {width} origins", loc="left", fontsize=10, color=INK)
    over_time.legend(frameon=False, fontsize=8)
    _timed(over_time)
    if np.isfinite(decision.low):
        gain.plot([100 * decision.low, 100 * decision.high], [0, 0], color=FORECAST, linewidth=3, solid_capstyle="butt")
    gain.plot([100 * decision.gain], [0], "o", color=FORECAST)
    gain.axvline(100 * LEAST_GAIN, color=NAIVE, linestyle=(0, (4, 2)))
    gain.set_yticks([])
    gain.set_title("gain in percent; promoted if all of it is right of the line", loc="left", fontsize=10, color=INK)
    _plain(gain)
    figure.suptitle(f"{title}: {decision.decision}", color=INK)
    _save(figure, path)


def plot_replay(
    ts: Rows, over_time: Mapping[str, Reals], by_step: Mapping[str, Sequence[float]], title: str, path: Path
) -> None:
    """Plots several forecasters' mean squared errors in z-scores over time and by steps ahead. Writes a PNG.

    `ts` (T,) are times in epoch milliseconds, `over_time` (T,) errors, nan where there is no forecast.
    """
    figure = Figure(figsize=(12, 6), dpi=110, layout="constrained", facecolor="white")
    when, ahead = figure.subplots(2, 1)
    times = np.array([datetime.fromtimestamp(ms / 1000, UTC) for ms in ts.tolist()])
    for name, values in over_time.items():
        known = np.isfinite(values)
        label = f" {name}"  # one that begins with _ would be left out
        when.plot(times[known], values[known], label=label, linewidth=1.6)
    for steps in by_step.values():
        ahead.plot(range(1, len(steps) + 1), steps, linewidth=1.6)
    for panel, heading in ((when, "over time"), (ahead, "by steps ahead")):
        panel.set_title(f"mean squared error in z-scores, {heading}", loc="left", fontsize=10, color=INK)
    _timed(when)
    _plain(ahead)
    figure.suptitle(title, color=INK)
    figure.legend(loc="outside lower center", ncols=len(over_time), frameon=False)
    _save(figure, path)


def plot_window(window: Floats, times: tuple[int, int], predicted: Floats, title: str, path: Path) -> None:
    """Plots a window (n,F) and its forecast (K,). Writes a PNG.

    `times` are the start of the forecast and the length of a step, in milliseconds.
    """
    start, step = times
    ms = start + step * np.arange(-len(window), len(predicted))
    moments = np.array([datetime.fromtimestamp(at / 1000, UTC) for at in ms.tolist()])
    figure = Figure(figsize=(12, 4.4), dpi=110, layout="constrained", facecolor="white")
    panel = figure.subplots()
    panel.plot(moments[: len(window)], window[:, 1:], color=MUTED, linewidth=1)
    panel.plot(moments[: len(window)], window[:, 0], color=INK, linewidth=1.6, label="window")
    panel.plot(moments[len(window) :], predicted, color=FORECAST, linewidth=2.2, label="forecast")
    panel.set_title(title, loc="left", fontsize=10, color=INK)
    panel.legend(frameon=False)
    _timed(panel)
    _save(figure, path)


def plot_ahead(
    history: pl.DataFrame, forecasts: pl.DataFrame, target: str, bands: Mapping[str, tuple[str, str]], path: Path
) -> None:
    """Plots the history of up to four series and their forecasts. Writes a PNG.

    The columns of `history` are series, ts (epoch milliseconds) and the target, those of `forecasts` unique_id, ds, the
    forecast, and for each of its `bands`, the widest first, the lower and the upper bound.
    """
    names = forecasts["unique_id"].unique(maintain_order=True).to_list()[:PANELS]
    rows, columns = (1, 1) if len(names) == 1 else (2, 2)
    figure = Figure(figsize=(12, 3.2 + 1.6 * rows), dpi=110, layout="constrained", facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        ahead = forecasts.filter(pl.col("unique_id") == name)
        before = history.filter(pl.col("series") == name).sort("ts").tail(3 * len(ahead) + 24)
        moments = pl.from_epoch(before["ts"], time_unit="ms")
        panel.plot(moments.to_list(), before[target].to_list(), color=INK, linewidth=1.6, label="actual")
        times, line = np.array(ahead["ds"].to_list()), ahead[forecasts.columns[2]].to_list()
        _fan(panel, times, {label: (ahead[low].to_numpy(), ahead[up].to_numpy()) for label, (low, up) in bands.items()})
        panel.plot(times, line, color=FORECAST, linewidth=2.2, label="forecast")
        panel.set_title(name, loc="left", fontsize=10, color=INK)
        _timed(panel)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 + len(bands), frameon=False
    )
    _save(figure, path)


def plot_confusion(confusion: npt.NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """Plots a confusion matrix (C,C): true labels in rows, predicted labels in columns. Writes a PNG."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = 3.2 + 0.6 * min(len(labels), 30)
    figure = Figure(figsize=(size + 0.6, size), dpi=110, layout="constrained", facecolor="white")
    panel = figure.subplots()
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    shown = map(escaped, labels)
    names = [label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 2]}.." for label in shown]
    panel.set_xticks(range(len(names)), names, rotation=45, ha="right")
    panel.set_yticks(range(len(names)), names)
    panel.set_xlabel("predicted label", color=INK)
    panel.set_ylabel("true label", color=INK)
    if len(labels) <= MOST_NUMBERS:
        for row, column in np.ndindex(*confusion.shape):
            color = "white" if shares[row, column] > 0.5 else INK
            panel.text(column, row, f"{confusion[row, column]:,}", ha="center", va="center", color=color, fontsize=9)
    right = np.trace(confusion) / max(confusion.sum(), 1)
    panel.set_title(f"{right:.1%} of {confusion.sum():,} held-out texts are right", loc="left", fontsize=10, color=INK)
    panel.tick_params(colors=MUTED, length=0, labelsize=9)
    _save(figure, path)


def plot_history(history: Sequence[Epoch], unit: str, path: Path) -> None:
    """Plots training and validation loss by epoch. Writes a PNG."""
    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained", facecolor="white")
    panel = figure.subplots()
    numbers = [epoch.number for epoch in history]
    panel.plot(numbers, [epoch.train_loss for epoch in history], color=MUTED, marker="o", label="training")
    panel.plot(numbers, [epoch.validation_loss for epoch in history], color=FORECAST, marker="o", label="validation")
    panel.set_xlabel("epoch", color=INK)
    panel.set_ylabel(unit, color=INK)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(frameon=False)
    _plain(panel)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG; names in its texts come from others."""
    for text in figure.findobj(Text):
        text.set_text(escaped(text.get_text()))
    figure.savefig(path)


def _lag(card: Card, season: str) -> int:
    """The lag of a naive forecast by its name."""
    return card.input.lags.get(season, 1)


Bands = Mapping[str, tuple[Floats, Floats]]
"""The lower and upper bounds of intervals by label, the widest first."""


def _bands(fitted: FittedForecaster, data: WindowData, ends: Rows, forecasts: Floats) -> Bands:
    """The intervals (N,K,O) around a model's forecasts."""
    if (calibration := fitted.calibration) is None:
        return {}
    scales, clipped = window_scales(data, ends, fitted.card), fitted.card.output.clipped
    return {f"{level} %": calibration.bounds(forecasts, scales, level / 100, clipped) for level in reversed(SHOWN)}


def _fan(panel: Axes, times: npt.NDArray[Any], bands: Bands) -> None:
    """Draw bands (K,) in the colour of the forecast, the narrower the darker."""
    for place, (label, (lower, upper)) in enumerate(bands.items(), 1):
        panel.fill_between(times, lower, upper, color=FORECAST, alpha=0.12 * place, linewidth=0, label=label)


def _draw(
    panel: Axes, data: WindowData, end: np.int64, column: int, lines: tuple[Floats, Floats], naive: str, bands: Bands
) -> None:
    (predicted, baseline), horizon = lines, len(lines[0])
    before: Rows = np.arange(end - min(data.seq_len, 2 * horizon) + 1, end + 1)
    after: Rows = np.arange(end + 1, end + horizon + 1)
    known = np.concatenate([before, after])
    times = np.array([datetime.fromtimestamp(ms / 1000, UTC) for ms in data.ts[known].tolist()])
    ahead = times[len(before) :]
    panel.axvspan(times[len(before) - 1], times[-1], color=GRID, alpha=0.5, linewidth=0)
    panel.plot(times, data.values[known, column], color=INK, linewidth=1.6, label="actual")
    _fan(panel, ahead, bands)
    panel.plot(ahead, baseline, color=NAIVE, linewidth=1.4, linestyle=(0, (4, 2)), label=f"naive ({naive})")
    panel.plot(ahead, predicted, color=FORECAST, linewidth=2.2, label="forecast")
    title = f"{data.names[data.series[end]]}, from {times[len(before) - 1]:%Y-%m-%d %H:%M} UTC"
    panel.set_title(title, loc="left", fontsize=10, color=INK)
    _timed(panel)
    panel.margins(x=0)


def _timed(panel: Axes) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    _plain(panel)


def _plain(panel: Axes) -> None:
    panel.grid(axis="y", color=GRID)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(MUTED)
    panel.tick_params(colors=MUTED, length=0, labelsize=9)
