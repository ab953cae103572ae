"""Prediction intervals that keep their coverage while errors drift: an online conformal tracker per step and side.

R tracks   H scored steps   B = 2H bounds: lower and upper of each step in turn   G gains   P steps up to LONGEST
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from model.online.tracks import Field, Fields, Ints, Tracks

Margins = npt.NDArray[np.float32]
"""(R,H,2): lower = forecast - margins[..., 0], upper = forecast + margins[..., 1]."""
Singles = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

GAINS = (0.03, 0.1, 0.3, 1.0)
"""How far one actual beyond a bound moves it, in mean absolute errors, for the first step."""
SLOWER = 0.1
"""The gains of step h are these times h to the power of minus this."""
SHARPNESS = 1.5
"""How strongly the gains' weights follow their losses."""
SHARE = 0.01
"""The part of the weights that is shared out evenly, so that each gain can come back."""
SETTLE = 0.0001
"""The part of what moved a bound that becomes its base, at each actual."""
SPREAD = 0.004
"""The rate of the mean absolute error."""
SEASONAL, WEEKLY, RETURN = 0.06, 0.0025, 0.002
"""The rates of the scales of a place in the season and of a season in seven, and of their return to no difference."""
SEASONS = 7
"""The days of a week, where the season is a day."""
FIT, RIDGE = 0.0015, 0.2
"""The rate of the regression on earlier errors, and its pull to no slope."""
MOST, LARGE, FAR = 30.0, 8.0, 3.0
"""Larger errors, in mean absolute errors, are taken as these: in losses; in the mean; in scales and the regression."""
LONGEST = 288
"""The longest season that has scales, and the longest step whose bounds are shifted by earlier errors."""
LARGEST, WIDEST, LEAST, BOUND = 1e30, 69.0, -46.0, 5.0
"""The largest error; of logarithms: the largest spread, the least that the next error does not replace, the most of a
scale."""
LITTLE = 1e-30
"""A divisor's least value."""


LEFT, RIGHT = np.array([0, 1, 0, 0, 1]), np.array([0, 1, 1, 2, 2])
"""Whose products the moments of the two earlier errors and the present one are."""


class Intervals:
    """Margins around forecasts. A bound moves out when an actual lay beyond it, and in when none did.

    A bound is base + gain x drive, times the mean absolute error and the scale of its place in the season. `drive` sums
    whether actuals lay beyond the margins that were issued, as that becomes known h steps late: so the coverage is
    right in the long run. The gain is a mean of G, weighed by the pinball losses that their bounds would have. The
    scales, of a place in the season and of a season in seven, are common to all steps. What a step's error can be
    expected to be, by the newest error and the one a season before, shifts both bounds.
    """

    def __init__(self, steps: Sequence[int], coverage: float, season: int = 1) -> None:
        """For these steps ahead, ascending; `season` in steps, 1 for none."""
        H, f4 = len(steps), np.float32
        self._steps, self._season = np.array(steps), season if season <= LONGEST else 1
        self._seasons = SEASONS if self._season > 1 else 1
        self._scales = self._season + self._seasons
        self._rates = np.array([[SEASONAL], [WEEKLY]], f4)
        self._step_of = np.arange(2 * H) // 2
        self._sides = np.tile(np.array([-1, 1], f4), H)
        self._miss = f4((1 - coverage) / 2)
        self._width = NormalDist().inv_cdf((1 + coverage) / 2) / 0.8
        self._gains = (np.array(GAINS)[:, None] * self._steps[self._step_of] ** -SLOWER).astype(f4)
        near = self._steps[self._steps + self._season <= LONGEST + 1]
        lags = np.stack((near, -(-near // self._season) * self._season))
        self._lags, self._near, self._turn = lags, len(near), int(lags.max(initial=1))
        self.fields: Fields = {
            "base": Field("<f4", (2 * H,)),
            "drive": Field("<f4", (2 * H,)),
            "weights": Field("<f4", (len(GAINS), 2 * H)),
            "spread": Field("<f4", (H,)),
            "scales": Field("<f4", (self._scales,)),
            "earlier": Field("<f4", (self._turn,)),
            "moments": Field("<f4", (5, self._near)),
            "slopes": Field("<f4", (2, self._near)),
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
        e = _within(np.where(seen, error, 0), LARGEST).astype(np.float32)
        spread, places = tracks["spread"], self._places(step)
        if (unknown := (spread < LEAST) & (e != 0)).any():
            spread[unknown] = np.log(np.abs(e[unknown]))
        x = _within(e / self._units(tracks, places[..., None]), MOST)
        x = self._surprise(tracks, x, seen, step)
        more = np.minimum(np.abs(x), LARGE)
        more -= seen
        spread += SPREAD * more
        np.minimum(np.maximum(spread, -WIDEST, out=spread), WIDEST, out=spread)
        self._rescale(tracks["scales"], places, np.minimum(more, FAR - 1), seen)
        beyond = self._both(e) > issued.reshape(len(e), -1)
        self._move(tracks, self._both(x), beyond, seen[:, self._step_of])

    def margins(self, tracks: Tracks, step: Ints) -> Margins:
        """The margins (R,H,2) of the forecasts made at this step (R,), for `steps` ahead. Finite, and not negative."""
        ahead = step[:, None] + self._steps
        bounds = self._gain(tracks)
        bounds *= tracks["drive"]
        bounds += tracks["base"]
        bounds += self._both(self._expected(tracks, self._earlier(tracks, ahead)))
        bounds *= self._units(tracks, self._places(ahead))[:, self._step_of]
        return np.maximum(bounds, 0, out=bounds).reshape(len(bounds), -1, 2)

    def _move(self, tracks: Tracks, x: Singles, beyond: Bools, seen: Bools) -> None:
        """Weigh the gains by how their bounds would have fitted x, and move all bounds; (R,B) each."""
        base, drive, weights = tracks["base"], tracks["drive"], tracks["weights"]
        over = (x - base)[:, None] - self._gains * drive[:, None]
        fit = np.minimum(over * (-SHARPNESS * (1 - self._miss)), over * (SHARPNESS * self._miss))
        np.exp(fit, out=fit)
        fit *= weights
        fit *= ((1 - SHARE) / np.maximum(_total(fit), LITTLE))[:, None]
        fit += SHARE / len(GAINS)
        np.copyto(weights, fit, where=seen[:, None])
        outcome = beyond - self._miss
        outcome *= seen
        drive += outcome
        settled = drive * (seen * np.float32(SETTLE))
        base += self._gain(tracks) * settled
        drive -= settled

    def _gain(self, tracks: Tracks) -> Singles:
        """The mean of the gains, (R,B)."""
        return _total(tracks["weights"] * self._gains)

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
        scales.put(places, _within(logs, BOUND))

    def _earlier(self, tracks: Tracks, target: Ints) -> Singles:
        """The newest error when a step (R,1) or (R,H) was forecast, and the one whole seasons before it: (R,2,P)."""
        lagged = target[:, None, : self._near] - self._lags
        row = np.arange(0, len(target) * self._turn, self._turn)
        earlier: Singles = tracks["earlier"].take(lagged % self._turn + row[:, None, None])
        return earlier

    def _expected(self, tracks: Tracks, earlier: Singles) -> Singles:
        """What earlier errors (R,2,P) let expect of steps, (R,H)."""
        expected = np.zeros((len(earlier), len(self._steps)), np.float32)
        parts = tracks["slopes"] * earlier
        np.add(parts[:, 0], parts[:, 1], out=expected[:, : self._near])
        return expected

    def _surprise(self, tracks: Tracks, x: Singles, seen: Bools, step: Ints) -> Singles:
        """Errors x (R,H) less what was expected of them, 0 where none was seen; learns from them and keeps them."""
        earlier = self._earlier(tracks, step[:, None])
        surprise: Singles = (x - self._expected(tracks, earlier)) * seen
        x = _within(x, FAR)
        values = np.concatenate((earlier, x[:, None, : self._near]), axis=1)
        moments, slopes = tracks["moments"], tracks["slopes"]
        new = values.take(LEFT, axis=1)
        new *= values.take(RIGHT, axis=1)
        new -= moments
        new *= (seen[:, : self._near] * np.float32(FIT))[:, None]
        moments += new
        rest = moments[:, 3:] - moments[:, 2:3] * slopes[:, ::-1]  # one pass of Jacobi's method
        rest /= moments[:, :2] + RIDGE
        slopes[:] = _within(rest, 1)
        first, last = seen[:, 0], seen[:, -1]
        mean = (x[:, 0] * first + x[:, -1] * last) / np.maximum(first.astype(np.float32) + last, 1)
        tracks["earlier"].put(step % self._turn + np.arange(0, len(x) * self._turn, self._turn), mean)
        return surprise


def _within(values: npt.NDArray[Any], most: float) -> npt.NDArray[Any]:
    """Values, at most so large."""
    return np.asarray(np.minimum(np.maximum(values, -most), most))


def _total(values: Singles) -> Singles:
    """The sum over gains of (R,G,B), in their order."""
    total = values[:, 0] + values[:, 1]
    for gain in range(2, len(GAINS)):
        total += values[:, gain]
    return total
