"""Whether a challenger replaces the champion, decided on paired losses at the same forecast origins."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

Reals = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Decision = Literal["promote", "keep", "undecided"]

LEAST_GAIN = 0.01
"""The smallest relative reduction of the champion's error that justifies a promotion."""
LEAST_BLOCKS = 10
"""The fewest blocks to decide on; with fewer the decision is `undecided`."""
_BLOCK = 2
"""Block length in horizons: forecasts from neighbouring origins share most of their target steps."""
_RESAMPLES = 4000
_ALPHA = 0.01
"""Significance level: the false promotion rate aimed at for a challenger that is no better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionDecision:
    """The decision and the numbers behind it: mean squared errors in z-scores, gains as fractions."""

    decision: Decision
    why: str
    """The reason, in one readable line."""
    contender: str
    """What is compared with the champion: `challenger`, or the naive forecast that has a lower error."""
    challenger: float
    champion: float
    naive: float
    """The error of the best naive forecast."""
    gain: float
    """1 - contender / champion."""
    low: float
    """Lower confidence bound of the gain; -inf with too few blocks."""
    high: float
    """Upper confidence bound of the gain; inf with too few blocks."""
    blocks: int
    """Number of roughly independent blocks of consecutive origins."""


def required_steps(horizon: int) -> int:
    """Consecutive steps needed for a decision, from the first target step to the last."""
    return LEAST_BLOCKS * _BLOCK * horizon + horizon - 1


def by_origin(step: Ints, losses: Reals) -> tuple[Ints, Reals]:
    """The distinct origins in ascending order, and the mean loss over the series at each, (T,) both.

    `step` and `losses` are (N,): each window's origin and loss.
    """
    origins, place, count = np.unique(step, return_inverse=True, return_counts=True)
    return origins, np.bincount(place, losses) / count


def decide(
    challenger: Reals,
    champion: Reals,
    naive: Mapping[str, Reals],
    horizon: int,
    servable: Collection[str] = (),
) -> PromotionDecision:
    """The promotion decision from losses (T,) at the same origins in time order; `naive` maps names to such losses.

    Where one of the `servable` naive forecasts has a lower error than the challenger, it contends instead: a champion
    that is surely worse than a naive forecast does not stay because the challenger is no better. The confidence bounds
    of the gain are from a moving block bootstrap (Kuensch 1989), corrected for few blocks.
    """
    all_losses = {"champion": champion, "challenger": challenger, **naive}
    means = {name: float(losses.mean()) for name, losses in all_losses.items()}
    contender = min(("challenger", *servable), key=means.__getitem__)
    best_naive = min(naive, key=means.__getitem__)
    losses, error = all_losses[contender], means["champion"]
    length = _block(champion - losses, horizon)
    blocks = len(losses) // length
    gain = 1 - means[contender] / error if error > 0 else 0.0
    bounded = blocks >= LEAST_BLOCKS and error > 0
    low, high = _confidence_bounds(losses, champion, gain, length) if bounded else (-np.inf, np.inf)
    decision: Decision = "undecided" if blocks < LEAST_BLOCKS else "promote" if low > LEAST_GAIN else "keep"
    why = f"{blocks} blocks of {length} origins are too few to decide, {LEAST_BLOCKS} are needed"
    if decision != "undecided":
        why = _comparison(means, contender, best_naive, gain, low)
    return PromotionDecision(
        decision=decision,
        why=why,
        contender=contender,
        challenger=means["challenger"],
        champion=error,
        naive=means[best_naive],
        gain=gain,
        low=float(low),
        high=float(high),
        blocks=blocks,
    )


def _comparison(means: Mapping[str, float], contender: str, best_naive: str, gain: float, low: float) -> str:
    """The contender's error against the champion's, the bound on its gain, and the best naive forecast's error."""
    against = f"error {means[contender]:.4g} against the champion's {means['champion']:.4g}, a gain of {gain:+.1%}"
    if contender != "challenger":
        against = f"{contender}, better than the challenger's {means['challenger']:.4g}, has {against}"
    bound = f"with lower bound {low:+.1%}"
    if low <= LEAST_GAIN:
        bound += f": not significantly above {LEAST_GAIN:.0%}"
    naively = f"the best naive forecast, {best_naive}, has {means[best_naive]:.4g}"
    if means[best_naive] < means[contender]:
        naively += ", which a model with these windows can't be"
    return f"{against}, {bound}; {naively}"


def _confidence_bounds(challenger: Reals, champion: Reals, gain: float, length: int) -> tuple[float, float]:
    count = len(challenger) // length
    totals = [np.convolve(losses, np.ones(length), "valid") for losses in (challenger, champion)]
    starts = np.random.default_rng(0).integers(0, len(totals[0]), (_RESAMPLES, count))
    challenger_sums, champion_sums = (total[starts].sum(axis=1) for total in totals)
    gains = 1 - challenger_sums / np.maximum(champion_sums, np.finfo(np.float64).tiny)
    # With few blocks the bootstrap understates the spread: widen by Student's t and by Bessel's correction.
    widening = t.isf(_ALPHA, count - 1) / norm.isf(_ALPHA) * np.sqrt(count / (count - 1))
    low, high = np.quantile(gains, [_ALPHA, 1 - _ALPHA])
    return gain + widening * (low - gain), gain + widening * (high - gain)


def _block(difference: Reals, horizon: int) -> int:
    """Block length in origins: two horizons, or if longer, twice the autocorrelation time of the difference."""
    centred = difference - difference.mean()
    size = len(centred)
    spectrum = np.abs(np.fft.rfft(centred, 2 * size)) ** 2
    correlation = np.fft.irfft(spectrum)[:size]
    if correlation[0] <= 0:
        return _BLOCK * horizon
    correlation = correlation / correlation[0]
    times = 1 + 2 * np.cumsum(correlation[1:])
    windows = np.flatnonzero(np.arange(1, size) >= 5 * times)  # Sokal's automatic windowing
    autocorrelation_time = times[windows[0]] if len(windows) else size
    return max(_BLOCK * horizon, int(np.ceil(2 * autocorrelation_time)))
