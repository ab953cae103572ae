"""Whether a challenger replaces the champion: what each lost at the same origins, and how sure the difference is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

Reals = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Decision = Literal["promote", "keep", "undecided"]

LEAST_GAIN = 0.01
"""A challenger must be better by more than this share of the champion's error."""
LEAST_BLOCKS = 10
"""Fewer independent stretches of time decide nothing."""
_BLOCK = 2
"""Horizons in a block: the errors of windows a step apart are mostly of the same steps."""
_DRAWS = 4000
_UNSURE = 0.01
"""How often, at most, a challenger that is no better may pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionDecision:
    """What was decided, and by which numbers: mean squared errors in z-scores, and the gain as a share."""

    decision: Decision
    why: str
    """One line for people."""
    challenger: float
    champion: float
    naive: float
    """The best naive forecast's."""
    gain: float
    low: float
    """What the gain is at least, 19 times of 20."""
    high: float
    blocks: int
    """Stretches of time that are about independent of each other."""


def needed(horizon: int) -> int:
    """Steps in a row that a verdict takes, from the first target to the last."""
    return LEAST_BLOCKS * _BLOCK * horizon + horizon - 1


def by_origin(step: Ints, losses: Reals) -> tuple[Ints, Reals]:
    """The distinct origins in order, and at each the mean over its series of these windows' losses, (N,) both."""
    origins, place, count = np.unique(step, return_inverse=True, return_counts=True)
    return origins, np.bincount(place, losses) / count


def decide(
    challenger: Reals, champion: Reals, naive: Mapping[str, Reals], horizon: int, seed: int = 0
) -> PromotionDecision:
    """The verdict on losses (T,) at the same origins in order of time; `naive` has each naive forecast's.

    The gain's lower bound is a moving-block bootstrap's (Kuensch 1989), as wide as so few blocks make it.
    """
    length = _block(champion - challenger, horizon)
    blocks = len(challenger) // length
    name, beaten = min(((name, float(losses.mean())) for name, losses in naive.items()), key=lambda each: each[1])
    mine, theirs = float(challenger.mean()), float(champion.mean())
    gain = 1 - mine / theirs if theirs > 0 else 0.0
    sure = blocks >= LEAST_BLOCKS and theirs > 0
    low, high = _bounds(challenger, champion, gain, length, seed) if sure else (-np.inf, np.inf)
    against = f"error {mine:.4g} against the champion's {theirs:.4g}, a gain of {gain:+.1%}"
    naively = f"the best naive forecast ({name}) has {beaten:.4g}"
    decision: Decision = "keep"
    if blocks < LEAST_BLOCKS:
        decision, why = "undecided", f"{blocks} stretches of {length} origins decide nothing, {LEAST_BLOCKS} would"
    elif low <= LEAST_GAIN:
        why = f"{against}, which is at least {low:+.1%}: not surely more than {LEAST_GAIN:.0%}; {naively}"
    elif mine >= beaten:
        why = f"{against}, but {naively}"
    else:
        decision, why = "promote", f"{against}, at least {low:+.1%}; {naively}"
    return PromotionDecision(
        decision=decision,
        why=why,
        challenger=mine,
        champion=theirs,
        naive=beaten,
        gain=gain,
        low=float(low),
        high=float(high),
        blocks=blocks,
    )


def _bounds(challenger: Reals, champion: Reals, gain: float, length: int, seed: int) -> tuple[float, float]:
    count = len(challenger) // length
    totals = [np.convolve(losses, np.ones(length), "valid") for losses in (challenger, champion)]
    starts = np.random.default_rng(seed).integers(0, len(totals[0]), (_DRAWS, count))
    mine, theirs = (total[starts].sum(axis=1) for total in totals)
    gains = 1 - mine / np.maximum(theirs, np.finfo(np.float64).tiny)
    # Blocks drawn from few differ less than new ones would: by Student's, and by one of them.
    wider = t.isf(_UNSURE, count - 1) / norm.isf(_UNSURE) * np.sqrt(count / (count - 1))
    low, high = np.quantile(gains, [_UNSURE, 1 - _UNSURE])
    return gain + wider * (low - gain), gain + wider * (high - gain)


def _block(difference: Reals, horizon: int) -> int:
    """Origins in a block: two horizons, or where a difference of losses lasts longer, four times that."""
    centred = difference - difference.mean()
    size = len(centred)
    spectrum = np.abs(np.fft.rfft(centred, 2 * size)) ** 2
    correlation = np.fft.irfft(spectrum)[:size]
    if correlation[0] <= 0:
        return _BLOCK * horizon
    correlation = correlation / correlation[0]
    times = 1 + 2 * np.cumsum(correlation[1:])
    enough = np.flatnonzero(np.arange(1, size) >= 5 * times)  # Sokal's window
    lasting = times[enough[0]] if len(enough) else size
    return max(_BLOCK * horizon, int(np.ceil(2 * lasting)))
