"""Pictures of several models' errors at the same origins: a promotion decision, a replay."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from model.evaluation.promotion import LEAST_GAIN, PromotionDecision
from model.plots.forecasts import draw_by_step
from model.plots.style import (
    CHALLENGER,
    CHAMPION,
    DASHES,
    ERROR,
    INK,
    MUTED,
    NAIVE,
    OTHERS,
    Times,
    headed,
    legend,
    moments,
    page,
    save,
    spread,
    timed,
)
from model.windows import Rows

Reals = npt.NDArray[np.float64]
LEAST_PARTS = 10
"""A moving average is over no more than this part of the origins."""
LONG_GAP = 3
"""A line is broken where nothing is known for more than so many times as long as usual."""
SETTLED = {"promote": "promoted", "keep": "the champion is kept", "undecided": "undecided"}


def plot_promotion(decision: PromotionDecision, ts: Rows, losses: Mapping[str, Reals], title: str, path: Path) -> None:
    """Plots the losses of challenger, champion and naive forecasts over time, their difference and the gain, a PNG.

    `ts` (T,) are the origins in epoch milliseconds, `losses` (T,) mean squared errors in z-scores.
    """
    figure = page(f"{title}: {SETTLED[decision.decision]}", height=8)
    over_time, difference, gain = figure.subplots(3, 1, height_ratios=[4, 3, 1.3])
    width = max(1, len(ts) // max(decision.blocks, LEAST_PARTS))
    times, average = moments(ts[width - 1 :]), np.ones(width) / width
    smooth = {name: np.convolve(values, average, "valid") for name, values in losses.items()}
    smoothing = f"moving average of {width:,} origins" if width > 1 else "each origin"
    headed(over_time, f"error over time, {smoothing}", "origin of the forecast (UTC)", ERROR)
    _draw_over_time(over_time, times, smooth, {"champion": CHAMPION, "challenger": CHALLENGER})
    legend(over_time)
    _draw_difference(difference, times, smooth, decision.contender)
    _draw_gain(gain, decision)
    save(figure, path)


def _draw_over_time(
    panel: Axes, times: Times, errors: Mapping[str, Reals], colors: Mapping[str, str], prefix: str = ""
) -> None:
    """Draw each one's errors; who has no colour is naive. `prefix` keeps a name that begins with _ in the legend."""
    naive = sorted((name for name in errors if name not in colors), key=lambda name: float(np.nanmean(errors[name])))
    for place, name in enumerate(naive):
        line = {"color": NAIVE, "linewidth": 1.5, "linestyle": DASHES[min(place, len(DASHES) - 1)]}
        _line(panel, times, errors[name], prefix + name, line)
    for name in colors:
        _line(panel, times, errors[name], prefix + name, {"color": colors[name], "linewidth": 2})
    spread(panel, list(errors.values()))
    timed(panel)


def _line(panel: Axes, times: Times, values: Reals, label: str, look: Mapping[str, object]) -> None:
    """Draw a line, broken where for a long time nothing is known."""
    known = np.isfinite(values)
    places = np.flatnonzero(known)
    gaps = np.diff(places)
    for before in places[:-1][gaps > LONG_GAP * np.median(gaps)] if len(gaps) else ():
        known[before + 1] = True
    dots = {"marker": "o", "markersize": 4} if known.sum() <= LEAST_PARTS else {}
    panel.plot(times[known], values[known], label=label, **look, **dots)  # type: ignore[arg-type]


def _draw_difference(panel: Axes, times: Times, errors: Mapping[str, Reals], contender: str) -> None:
    """Where the contender is better and where the champion, at the same origins: to be seen however close they are."""
    better = errors["champion"] - errors[contender]
    title = f"the champion's error less the {contender}'s, at the same origins"
    headed(panel, title, "origin of the forecast (UTC)", "difference, in z-scores")
    for sign, name, color in ((1, contender, CHALLENGER), (-1, "champion", CHAMPION)):
        part = np.where(sign * better > 0, better, 0)
        if not part.any():
            continue
        panel.fill_between(times, part, color=color, alpha=0.35, linewidth=0, label=f"{name} better", interpolate=True)
    panel.plot(times, better, color=INK, linewidth=1.2)
    panel.axhline(0, color=MUTED, linewidth=1)
    timed(panel)
    legend(panel)


def _draw_gain(panel: Axes, decision: PromotionDecision) -> None:
    """The gain and its bounds, beside what a promotion needs."""
    gain, low, high = (100 * each for each in (decision.gain, decision.low, decision.high))
    bounded = bool(np.isfinite([low, high]).all())
    sure = f"99 % sure to be from {low:+.1f} % to {high:+.1f} %" if bounded else "bounds unknown"
    headed(panel, f"gain {gain:+.1f} %, {sure}", f"gain of the {decision.contender} over the champion, percent", "")
    if bounded:
        panel.plot([low, high], [0, 0], color=CHALLENGER, linewidth=4, solid_capstyle="butt", label="bounds")
    panel.plot([gain], [0], "o", color=CHALLENGER, markersize=8, label="gain")
    needed = f"promoted if all is right of {LEAST_GAIN:.0%}"
    panel.axvline(100 * LEAST_GAIN, color=INK, linestyle=DASHES[0], linewidth=1.4, label=needed)
    panel.axvline(0, color=MUTED, linewidth=1)
    panel.set_yticks([])
    panel.margins(x=0.05)
    panel.legend(frameon=False, fontsize=9, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.96))


def plot_replay(
    ts: Rows,
    over_time: Mapping[str, Reals],
    by_step: Mapping[str, Sequence[float]],
    naive: Collection[str],
    freq: str | None,
    title: str,
    path: Path,
) -> None:
    """Plots several forecasters' mean squared errors over time, against the first one, and by steps ahead, a PNG.

    `ts` (T,) are times in epoch milliseconds, `over_time` (T,) errors in z-scores, nan where there is no forecast;
    `naive` says which of them are naive forecasts.
    """
    models = [name for name in over_time if name not in naive]
    colors = {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(models)}
    first, *others = models if len(models) > 1 else [*models, *naive]
    figure = page(title, height=7.2)
    layout = "AA;BC" if others else "AA;CC"
    panels = figure.subplot_mosaic(layout)
    headed(panels["A"], "error over time", "origin of the forecast (UTC)", ERROR)
    _draw_over_time(panels["A"], moments(ts), over_time, colors, prefix=" ")
    if others:
        title = f"error less that of {first}: below 0 is better"
        headed(panels["B"], title, "origin of the forecast (UTC)", "difference, in z-scores")
        for name in others:
            look = {"color": colors[name]} if name in colors else {"color": NAIVE, "linestyle": DASHES[0]}
            _line(panels["B"], moments(ts), over_time[name] - over_time[first], f" {name}", look)
        panels["B"].axhline(0, color=colors[first], linewidth=2)
        timed(panels["B"])
    draw_by_step(panels["C"], by_step, colors, freq)
    legend(figure, [panels["A"]])
    save(figure, path)
