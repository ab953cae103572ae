"""Prediction intervals that keep their coverage while errors drift: an online conformal tracker per step and side.

R tracks   H scored steps   B = 2H bounds: lower and upper of each step in turn   G gains   P steps up to NEAR
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from model.online.tracks import Field, Fields, Ints, Tracks

Margins = npt.NDArray[np.float32]
"""(R,H,2): lower = forecast - margins[..., 0], upper = forecast + margins[..., 1]."""
Singles = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

GAINS = (0.0057, 0.017, 0.057, 0.17, 0.57)
"""How far one actual beyond a bound moves it, in mean absolute errors, for the first step."""
SLOWER = 0.1
"""The gains of step h are these times h to the power of minus this."""
SHARPNESS = 4.0
"""How strongly the gains' weights follow their losses."""
SHARE = 0.04
"""The part of the weights that is shared out evenly, so that each gain can come back."""
SETTLE = 0.001
"""The part of what moved a bound that becomes its base, at each actual."""
SPREAD = 0.006
"""The rate of the mean absolute error."""
SEASONAL, WEEKLY, RETURN = 0.05, 0.005, 0.002
"""The rates of the scales of a place in the season and of a season in seven, and of their return to no difference."""
SEASONS = 7
"""The days of a week, where the season is a day."""
FIT, RIDGE = 0.002, 0.5
"""The rate of the regression on the newest error, and its pull to no slope."""
MOST, FAR = 30.0, 3.0
"""Larger errors, in mean absolute errors, are taken as these: in the mean itself; in scales and the regression."""
NEAR = 64
"""Up to this step a forecast makes use of the step's newest error."""
LARGEST, WIDEST, LEAST, BOUND = 1e30, 69.0, -46.0, 5.0
"""The largest error; of logarithms: the largest spread, the least that the next error does not replace, the most of a
scale."""
LITTLE = 1e-30
"""A divisor's least value."""


class Intervals:
    """Margins around forecasts. A bound moves out when an actual lay beyond it, and in when none did.

    A bound is base + gain x drive, times the mean absolute error and the scale of its place in the season. `drive` sums
    whether actuals lay beyond the margins that were issued, as that becomes known h steps late: so the coverage is
    right in the long run. The gain is a mean of G, weighed by the pinball losses that their bounds would have. The
    scales, of a place in the season and of a season in seven, are common to all steps. What the newest error of a step
    says about the next one, in a regression that is learnt online, shifts both bounds.
    """

    def __init__(self, steps: Sequence[int], coverage: float, season: int = 1) -> None:
        """For these steps ahead, ascending; `season` in steps, 1 for none."""
        H, f4 = len(steps), np.float32
        self._steps, self._season, self._seasons = np.array(steps), season, SEASONS if season > 1 else 1
        self._scales = season + self._seasons
        self._rates = np.array([[SEASONAL], [WEEKLY]], f4)
        self._step_of = np.arange(2 * H) // 2
        self._sides = np.tile(np.array([-1, 1], f4), H)
        self._miss = f4((1 - coverage) / 2)
        self._width = NormalDist().inv_cdf((1 + coverage) / 2) / 0.8
        self._gains = (np.array(GAINS)[:, None] * self._steps[self._step_of] ** -SLOWER).astype(f4)
        self._near = self._steps[self._steps <= NEAR]
        self._slots, self._kept = np.cumsum(self._near) - self._near, int(self._near.sum())
        self.fields: Fields = {
            "base": Field("<f4", (2 * H,)),
            "drive": Field("<f4", (2 * H,)),
            "weights": Field("<f4", (len(GAINS), 2 * H)),
            "spread": Field("<f4", (H,)),
            "scales": Field("<f4", (self._scales,)),
            "newest": Field("<f4", (self._kept,)),
            "squares": Field("<f4", (len(self._near),)),
            "products": Field("<f4", (len(self._near),)),
        }

    def begin(self, tracks: Tracks, margins: npt.NDArray[np.float64]) -> None:
        """The state of new tracks from initial margins (R,H,2); where they have no width, the first error gives it."""
        margins = np.nan_to_num(margins, posinf=LARGEST, neginf=-LARGEST).clip(-LARGEST, LARGEST)
        spread = margins.sum(axis=2) / (2 * self._width)
        wide = spread > np.exp(LEAST)
        tracks["spread"][:] = np.log(spread, out=np.full(spread.shape, -WIDEST), where=wide)
        base = np.full(margins.shape, self._width)
        np.divide(margins, spread[..., None], out=base, where=wide[..., None])
        tracks["base"][:] = base.clip(-MOST, MOST).reshape(len(base), -1)
        tracks["weights"][:] = 1 / len(GAINS)

    def update(self, tracks: Tracks, error: npt.NDArray[np.float64], issued: Margins, step: Ints) -> None:
        """Learn from the errors (R,H) of what had been forecast for this step, actual - forecast, NaN for none.

        `issued` (R,H,2) are the margins of those forecasts, `step` (R,) is the step's number.
        """
        seen = np.isfinite(error + issued[..., 0] + issued[..., 1])
        e = np.where(seen, error, 0).clip(-LARGEST, LARGEST).astype(np.float32)
        spread, places = tracks["spread"], self._places(step)
        if (unknown := (spread < LEAST) & (e != 0)).any():
            spread[unknown] = np.log(np.abs(e[unknown]))
        x = (e / self._units(tracks, places[..., None])).clip(-MOST, MOST)
        x = self._surprise(tracks, x, seen, self._slots_at(step))
        more = np.minimum(np.abs(x), MOST)
        more -= seen
        spread += SPREAD * more
        np.clip(spread, -WIDEST, WIDEST, out=spread)
        self._rescale(tracks["scales"], places, np.minimum(more, FAR - 1), seen)
        beyond = self._both(e) > issued.reshape(len(e), -1)
        self._move(tracks, self._both(x), beyond, seen[:, self._step_of])

    def margins(self, tracks: Tracks, step: Ints) -> Margins:
        """The margins (R,H,2) of the forecasts made at this step (R,), for `steps` ahead. Finite, and never crossed."""
        bounds = self._gain(tracks)
        bounds *= tracks["drive"]
        bounds += tracks["base"]
        bounds += self._both(self._shift(tracks, tracks["newest"].take(self._slots_at(step))))
        bounds *= self._units(tracks, self._places(step[:, None] + self._steps))[:, self._step_of]
        result = bounds.reshape(len(bounds), -1, 2)
        np.maximum(result[..., 1], -result[..., 0], out=result[..., 1])
        return result

    def _move(self, tracks: Tracks, x: Singles, beyond: Bools, seen: Bools) -> None:
        """Weigh the gains by how their bounds would have fitted x, and move all bounds; (R,B) each."""
        base, drive, weights = tracks["base"], tracks["drive"], tracks["weights"]
        over = (x - base)[:, None] - self._gains * drive[:, None]
        fit = np.minimum(over * (-SHARPNESS * (1 - self._miss)), over * (SHARPNESS * self._miss))
        np.exp(fit, out=fit)
        fit *= weights
        fit *= ((1 - SHARE) / np.maximum(fit.sum(axis=1), LITTLE))[:, None]
        fit += SHARE / len(GAINS)
        np.copyto(weights, fit, where=seen[:, None])
        drive += (beyond - self._miss) * seen
        settled = drive * (seen * np.float32(SETTLE))
        base += self._gain(tracks) * settled
        drive -= settled

    def _gain(self, tracks: Tracks) -> Singles:
        """The mean of the gains, (R,B)."""
        mean: Singles = (tracks["weights"] * self._gains).sum(axis=1)
        return mean

    def _both(self, values: Singles) -> Singles:
        """Values of steps (R,H), as the bounds see them (R,B): what lies above the forecast is below the lower one."""
        return values[:, self._step_of] * self._sides

    def _places(self, step: Ints) -> Ints:
        """Where in the `scales` of all R tracks the scales of steps (R,...) are, (2,R,...)."""
        seasons, place = np.divmod(step, self._season)
        seasons %= self._seasons
        seasons += self._season
        row = np.arange(0, len(step) * self._scales, self._scales)
        return np.stack((place, seasons)) + row.reshape(-1, *(1,) * (step.ndim - 1))

    def _units(self, tracks: Tracks, places: Ints) -> Singles:
        """The unit of bounds at these places (2,R,1) or (2,R,H): the mean absolute error there, (R,H)."""
        scale = tracks["scales"].take(places)
        unit: Singles = np.exp(tracks["spread"] + scale[0] + scale[1])
        return unit

    def _rescale(self, scales: Singles, places: Ints, more: Singles, seen: Bools) -> None:
        """Learn the scales of a step's places (2,R) from its errors, (R,H) in mean absolute errors more than one."""
        mean = np.add.accumulate(more, axis=1)[:, -1] / np.maximum(seen.sum(axis=1), 1).astype(np.float32)
        logs = scales.take(places)
        logs += seen.any(axis=1) * (mean * self._rates - RETURN * logs)
        scales.put(places, logs.clip(-BOUND, BOUND))

    def _slots_at(self, step: Ints) -> Ints:
        """Where in the `newest` of all R tracks the errors at these steps (R,) are, or at their last turn: (R,P)."""
        row = np.arange(0, len(step) * self._kept, self._kept) if self._kept else np.zeros_like(step)
        slots: Ints = step[:, None] % self._near + self._slots + row[:, None]
        return slots

    def _shift(self, tracks: Tracks, newest: Singles) -> Singles:
        """What these errors (R,P) of steps let expect of their next ones, (R,H)."""
        shift = np.zeros((len(newest), len(self._steps)), np.float32)
        slope = (tracks["products"] / (tracks["squares"] + RIDGE)).clip(0, 1)
        np.multiply(slope, newest, out=shift[:, : len(self._near)])
        return shift

    def _surprise(self, tracks: Tracks, x: Singles, seen: Bools, slots: Ints) -> Singles:
        """Errors x (R,H) less what was expected of them, 0 where none was seen; learns from them and keeps them."""
        before = tracks["newest"].take(slots)
        result: Singles = (x - self._shift(tracks, before)) * seen
        seen, now = seen[:, : len(self._near)], x[:, : len(self._near)].clip(-FAR, FAR)
        rate = seen * np.float32(FIT)
        tracks["squares"] += rate * (before * before - tracks["squares"])
        tracks["products"] += rate * (before * now - tracks["products"])
        tracks["newest"].put(slots, now * seen)
        return result
