"""Prediction intervals that keep their coverage while errors drift: an online conformal tracker per step and side.

R tracks   N steps of them   H scored steps   K horizon steps, the last scored one of them
B = 2H bounds: lower and upper of each scored step in turn   P scored steps up to LONGEST
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.online.steps import Between
from model.online.tracks import Field, Fields, Ints, Tracks

Margins = npt.NDArray[np.float32]
"""(R,H,2): lower = forecast - margins[..., 0], upper = forecast + margins[..., 1]."""
Singles = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

GAIN, SLOWER = 0.15, 0.3
"""How far one actual beyond a bound moves it, in mean absolute errors: of step h, GAIN times h to minus SLOWER."""
SPREAD = 0.002
"""The rate of the mean absolute error."""
SEASONAL, WEEKLY, RECENT = (0.06, 0.002), (0.005, 0.002), (0.1, 0.2)
"""The rates of the scales of a place in the season, of a season in seven and of the last steps, and of their return to
no difference.
"""
SEASONS = 7
"""The days of a week, where the season is a day."""
FIT, RIDGE = 0.002, 0.1
"""The rate of the regression on earlier errors, and its pull to no slope."""
MOST, LARGE, FAR = 30.0, 8.0, 3.0
"""Larger errors, in mean absolute errors, are taken as these: in all; in the mean and scales; in the regression."""
LONGEST = 288
"""The longest season that has scales, and the longest step whose bounds are shifted by earlier errors."""
LARGEST, WIDEST, LEAST, BOUND = 1e30, 69.0, -46.0, 5.0
"""The largest error; of logarithms: the largest spread, the least that the next error does not replace, the most of a
scale."""


class Steps(NamedTuple):
    """N steps, and where in the state of their tracks to look: as much as is known before any of them is computed."""

    error: Singles
    """(N,H): actual - what had been forecast for it, 0 where nothing was."""
    bounds: Singles
    """(N,B): the same, as the bounds see it."""
    seen: Singles
    """(N,H): 1 where there is an error, else 0."""
    moves: Singles
    """(N,B): how far the bounds move, 0 where there is no error."""
    errors: Singles
    """(N,1): how many errors there are, at least 1."""
    any: Singles
    """(N,1): 1 where there are errors, else 0."""
    ends: Singles
    """(N,3): 1 or 0 for an error of the first and of the last scored step; how many of the two there are, or 1."""
    fit: Singles
    """(N,1,P): the rate of the regression, 0 where there is no error."""
    scales: Ints
    """(N,3,1): the places of the step's scales in those of all tracks."""
    scales_ahead: Ints
    """(N,3,H): of the scales of the steps ahead."""
    kept: Ints
    """(N,2): the places of the step's errors among the `earlier` ones of all tracks."""
    earlier: Ints
    """(N,2,P): of the newest error when the step was forecast, and of the one whole seasons before it."""
    earlier_ahead: Ints
    """(N,2,P): of those that are the newest for the steps ahead."""
    season_ahead: Ints
    """(N,2,K): of the scales of the season at all steps ahead; (N,2,0) where all are scored."""

    def part(self, rows: slice) -> "Steps":
        """Some of the steps."""
        return Steps._make(each[rows] for each in self)


class Intervals:
    """Margins around forecasts. A bound moves out when an actual lay beyond it, and in when none did.

    It learns whether actuals lay beyond the margins that were issued, as that becomes known h steps late: so the
    coverage is right in the long run. Bounds are in units of the mean absolute error and of scales that are common to
    all steps: of the place in the season, of a season in seven, and of the last steps. What a step's error can be
    expected to be, by the newest error and the one a season before, shifts both bounds.
    """

    def __init__(self, steps: Sequence[int], coverage: float, season: int = 1) -> None:
        """For these steps ahead, ascending; `season` in steps, 1 for none."""
        H, f4 = len(steps), np.float32
        self._steps, self._season = np.array(steps), season if season <= LONGEST else 1
        self._seasons = SEASONS if self._season > 1 else 1
        self._scales = self._season + self._seasons + 1
        self._rates, self._returns = np.array([SEASONAL, WEEKLY, RECENT], f4).T
        self._miss = f4((1 - coverage) / 2)
        self._width = NormalDist().inv_cdf((1 + coverage) / 2) / 0.8
        self._gains = (GAIN * np.repeat(self._steps, 2) ** -SLOWER).astype(f4)
        near = self._steps[self._steps + self._season <= LONGEST + 1]
        lags = np.stack((near, -(-near // self._season) * self._season))
        self._near, self._turn = len(near), int(lags.max(initial=1))
        kept, self._rings = np.arange(self._turn)[:, None, None], np.array([0, self._turn])
        self._earlier = (kept - lags) % self._turn + self._rings[:, None]
        self._earlier_ahead = (kept + near - lags) % self._turn + self._rings[:, None]
        self._places = self._places_of(np.arange(self._season * self._seasons)[:, None])
        self._places_ahead = self._places_of(np.arange(self._season * self._seasons)[:, None] + self._steps)
        self._between, horizon = Between(self._steps), int(self._steps[-1])
        every = horizon if horizon > H else 0
        coming = self._places_of(np.arange(1, self._season * self._seasons + every)[None])[0, :2]
        self._season_ahead = np.lib.stride_tricks.sliding_window_view(coming, every, axis=1).swapaxes(0, 1)
        self.fields: Fields = {
            "bounds": Field("<f4", (2 * H,)),
            "spread": Field("<f4", (H,)),
            "scales": Field("<f4", (self._scales,)),
            "earlier": Field("<f4", (2, self._turn)),
            "moments": Field("<f4", (5, self._near)),
            "slopes": Field("<f4", (2, self._near)),
        }

    def _places_of(self, step: Ints) -> Ints:
        """Where in a track's `scales` those of steps (T,n) are, (T,3,n)."""
        seasons, place = np.divmod(step, self._season)
        recent = np.full_like(place, self._scales - 1)
        return np.stack((place, self._season + seasons % self._seasons, recent), axis=1)

    def begin(self, tracks: Tracks, margins: npt.NDArray[np.float64]) -> None:
        """The state of new tracks from initial margins (R,H,2); where they have no width, the first error gives it."""
        margins = np.nan_to_num(margins, posinf=LARGEST, neginf=-LARGEST).clip(-LARGEST, LARGEST)
        spread = margins.sum(axis=2) / (2 * self._width)
        wide = spread > np.exp(LEAST)
        tracks["spread"][:] = np.log(spread, out=np.full(spread.shape, -WIDEST), where=wide)
        bounds = np.full(margins.shape, self._width)
        np.divide(margins, spread[..., None], out=bounds, where=wide[..., None])
        tracks["bounds"][:] = bounds.clip(-MOST, MOST).reshape(len(bounds), -1)

    def steps(self, error: npt.NDArray[np.float64], known: Bools, step: Ints, track: Ints | None = None) -> Steps:
        """N steps from what their forecasts missed (N,H), actual - forecast, NaN for none.

        known: (N,H) whether margins had been issued. step: (N,) numbers. track: (N,) which of the R tracks each is a
        step of, 0 to N - 1 by default
        """
        seen = np.isfinite(error) & known
        e = _within(np.where(seen, error, 0), LARGEST).astype(np.float32)
        track = np.arange(len(step)) if track is None else track
        scales, earlier = (track * self._scales)[:, None, None], (track * 2 * self._turn)[:, None, None]
        place, kept = step % len(self._places), step % self._turn
        there = seen.astype(np.float32)
        count = there.sum(axis=1, keepdims=True)
        ends = np.stack((there[:, 0], there[:, -1], np.maximum(there[:, 0] + there[:, -1], 1)), axis=1)
        return Steps(
            e,
            _both(e),
            there,
            there.repeat(2, axis=1) * self._gains,
            np.maximum(count, 1),
            np.minimum(count, 1),
            ends,
            (there[:, : self._near] * np.float32(FIT))[:, None],
            self._places.take(place, axis=0) + scales,
            self._places_ahead.take(place, axis=0) + scales,
            kept[:, None] + earlier[:, 0] + self._rings,
            self._earlier.take(kept, axis=0) + earlier,
            self._earlier_ahead.take(kept, axis=0) + earlier,
            self._season_ahead[place] + scales,
        )

    def update(self, tracks: Tracks, steps: Steps, issued: Margins) -> None:
        """Learn from a step of each track; `issued` (R,H,2) are the margins that it had."""
        spread, e = tracks["spread"], steps.error
        if spread.min() < LEAST and (unknown := (spread < LEAST) & (e != 0)).any():
            spread[unknown] = np.log(np.abs(e[unknown]))
        x = _within(e / self._units(tracks, steps.scales), MOST)
        x = self._surprise(tracks, x, steps)
        more = np.minimum(np.abs(x), LARGE)
        more -= steps.seen
        spread += SPREAD * more
        np.minimum(np.maximum(spread, -WIDEST, out=spread), WIDEST, out=spread)
        self._rescale(tracks["scales"], steps, more)
        outcome = (steps.bounds > issued.reshape(len(e), -1)) - self._miss
        outcome *= steps.moves
        outcome += tracks["bounds"]
        tracks["bounds"][:] = _within(outcome, MOST)

    def margins(self, tracks: Tracks, steps: Steps) -> Margins:
        """The margins (R,H,2) of the forecasts made at these steps. Finite, and not negative."""
        expected = np.zeros((len(tracks["spread"]), len(self._steps)), np.float32)
        self._expect(tracks, tracks["earlier"].take(steps.earlier_ahead), expected)
        bounds = _both(expected)
        bounds += tracks["bounds"]
        unit = self._units(tracks, steps.scales_ahead)
        bounds[:, ::2] *= unit
        bounds[:, 1::2] *= unit
        return np.maximum(bounds, 0, out=bounds).reshape(len(bounds), -1, 2)

    def seasonal(self, tracks: Tracks, steps: Steps) -> Singles:
        """The scales of the season (R,2,K) at all steps ahead; (R,2,0) where all are scored."""
        return np.asarray(tracks["scales"].take(steps.season_ahead))

    def between(self, seasonal: Singles, margins: Margins) -> Singles:
        """The margins (N,H,2) at all steps ahead, lower and upper (N,2,K): those of the scored ones as they are, and
        between them interpolated in units of each step's place in the season.
        """
        scored = margins.swapaxes(1, 2)
        if not seasonal.shape[2]:
            return scored
        unit, at = np.exp(seasonal[:, 0] + seasonal[:, 1])[:, None], self._steps - 1
        every = self._between(np.minimum(scored, LARGEST / 10) / unit[..., at])
        every *= unit
        every[..., at] = scored
        return every

    def _units(self, tracks: Tracks, places: Ints) -> Singles:
        """The unit of bounds at these places (R,3,1) or (R,3,H): the mean absolute error there, (R,H)."""
        scale = tracks["scales"].take(places)
        unit = tracks["spread"] + scale[:, 0]
        unit += scale[:, 1]
        unit += scale[:, 2]
        np.exp(unit, out=unit)
        return unit

    def _rescale(self, scales: Singles, steps: Steps, more: Singles) -> None:
        """Learn the scales of steps' places from their errors, (R,H) in mean absolute errors more than one."""
        mean = np.add.accumulate(more, axis=1)[:, -1:] / steps.errors
        places = steps.scales[..., 0]
        logs = scales.take(places)
        logs += steps.any * (mean * self._rates - self._returns * logs)
        scales.put(places, _within(logs, BOUND))

    def _expect(self, tracks: Tracks, earlier: Singles, expected: Singles) -> None:
        """Put what earlier errors (R,2,P) let expect of steps into (R,H)."""
        parts = tracks["slopes"] * earlier
        np.add(parts[:, 0], parts[:, 1], out=expected[:, : self._near])

    def _surprise(self, tracks: Tracks, x: Singles, steps: Steps) -> Singles:
        """Errors x (R,H) less what was expected of them, 0 where none was seen; learns from them and keeps them."""
        near = self._near
        earlier = tracks["earlier"].take(steps.earlier)
        expected = np.zeros_like(x)
        self._expect(tracks, earlier, expected)
        surprise = x - expected
        surprise *= steps.seen
        x = _within(x, FAR)
        moments, slopes = tracks["moments"], tracks["slopes"]
        new = np.empty_like(moments)
        np.multiply(earlier, earlier, out=new[:, :2])
        np.multiply(earlier[:, 0], earlier[:, 1], out=new[:, 2])
        np.multiply(earlier, x[:, None, :near], out=new[:, 3:])
        new -= moments
        new *= steps.fit
        moments += new
        rest = moments[:, 3:] - moments[:, 2:3] * slopes[:, ::-1]  # one pass of Jacobi's method
        rest /= moments[:, :2] + RIDGE
        slopes[:] = _within(rest, 1)
        first, last, count = steps.ends.T
        kept = np.stack((x[:, 0], x[:, -1]), axis=1)
        kept[:, 0] = (kept[:, 0] * first + kept[:, 1] * last) / count
        tracks["earlier"].put(steps.kept, kept)
        return surprise


def _within(values: npt.NDArray[Any], most: float) -> npt.NDArray[Any]:
    """Values, at most so large."""
    return np.asarray(np.minimum(np.maximum(values, -most), most))


def _both(values: Singles) -> Singles:
    """Values of steps (R,H), as the bounds see them (R,B): what lies above the forecast is below the lower one."""
    both = np.empty((len(values), 2 * values.shape[1]), np.float32)
    np.negative(values, out=both[:, ::2])
    both[:, 1::2] = values
    return both
