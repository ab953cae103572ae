"""All forecasts of a partition graded again, with plain sums in the order of the steps; and what of it a service's live
scores say otherwise.

N observed steps   M forecasts   P graded points   K horizon steps   O targets   G groups   R records   S sums
"""

from collections.abc import Callable, Iterable
from itertools import product
from typing import NamedTuple

import numpy as np

from deploy.grading.rebuilt import Ints, Reals, Rebuilt
from deploy.grading.totals import Key, Totals
from model.online.scores import COUNT, NAIVE, SUMS

FAR = 1 << 40
"""More steps than any two of a series lie apart."""
NEVER = 1 << 62
"""A time after all others."""


class Points(NamedTuple):
    """What came of all forecasts of one step ahead, in the order of their actual values."""

    at: Ints
    """(P,): the observed step."""
    made: Ints
    """(P,): the forecast."""
    sums: Reals
    """(P,O,S)."""
    missed: Ints
    """For each forecast of a step that was never observed the observed step after it, or its life's last one."""


class Regraded:
    """A rebuilt partition as arrays, graded."""

    def __init__(self, rebuilt: Rebuilt, targets: tuple[str, ...]) -> None:
        self.targets, self.lives, self.unknown, self.lost = targets, rebuilt.lives, rebuilt.unknown, rebuilt.lost
        self.life, step, self.ts = (np.array(each, np.int64) for each in (rebuilt.life, rebuilt.step, rebuilt.ts))
        self._value = np.array(rebuilt.value, np.float64).reshape(-1, len(targets))
        order = np.argsort(np.array(rebuilt.at, np.int64), kind="stable")
        made = [rebuilt.made[each] for each in order.tolist()]
        self._at = np.array(rebuilt.at, np.int64)[order]
        self.horizon = rebuilt.horizon
        shape = self.horizon, len(targets)
        self._values = np.array([each.values for each in made]).reshape(len(made), 3, *shape)
        self._naive = np.array(rebuilt.naive).reshape(len(made), *shape)[order]
        self.coverage = np.array([each.coverage for each in made], np.float64)
        numbers: dict[str, int] = {}
        self.by = np.array([numbers.setdefault(each.model, len(numbers)) for each in made], np.int64)
        self.models = list(numbers)
        self._key = self.life * FAR + step
        self._by_key = np.argsort(self._key, kind="stable")

    def extents(self) -> Iterable[tuple[str, int, int]]:
        """Of each life the series, and the times of its first and its last step."""
        first, last = (np.full(len(self.lives.series), each) for each in (NEVER, -NEVER))
        np.minimum.at(first, self.life, self.ts)
        np.maximum.at(last, self.life, self.ts)
        return zip(self.lives.series, first.tolist(), last.tolist(), strict=True)

    def points(self, ahead: int) -> Points:
        """The points of the forecasts `ahead` steps ahead."""
        keys, at = self._key[self._by_key], self._at
        wanted = self._key[at] + ahead
        place = np.searchsorted(keys, wanted)
        after = self._by_key[np.minimum(place, len(keys) - 1)]
        hit = (place < len(keys)) & (self._key[after] == wanted)
        later = ~hit & (place < len(keys)) & (self.life[after] == self.life[at])
        ended = ~hit & ~later & np.array(self.lives.ended, np.bool_)[self.life[at]]
        last = self._by_key[place[ended] - 1]
        made = np.flatnonzero(hit)
        made = made[np.argsort(after[made], kind="stable")]
        return Points(after[made], made, self._sums(after[made], made, ahead), np.concatenate([after[later], last]))

    def _sums(self, at: Ints, made: Ints, ahead: int) -> Reals:
        """What each point adds: (P,O,S)."""
        value, (forecast, lower, upper) = self._value[at], self._values[made, :, ahead - 1].transpose(1, 0, 2)
        error, naive_error = value - forecast, value - self._naive[made, ahead - 1]
        bounded = ~np.isnan(lower)
        outside = np.maximum(value - upper, 0.0) + np.maximum(lower - value, 0.0)
        width, weight = upper - lower, 2 / (1 - self.coverage[made, None])
        columns = {
            "count": np.ones_like(error),
            "squared_error": error * error,
            "absolute_error": np.abs(error),
            "naive_squared_error": naive_error * naive_error,
            "naive_absolute_error": np.abs(naive_error),
            "intervals": bounded,
            "inside": bounded & (outside == 0),
            "width": np.where(bounded, width, 0.0),
            "winkler": np.where(bounded, width + weight * outside, 0.0),
        }
        return np.stack([np.asarray(columns[name], np.float64) for name in SUMS], axis=2)


def added(group: Ints, values: Reals, groups: int) -> Reals:
    """The sums (G,...) of values (P,...) by their groups (P,), added one after another."""
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    sums = [np.bincount(group, flat[:, column], groups) for column in range(flat.shape[1])]
    return np.stack(sums, axis=1).astype(np.float64).reshape(groups, *values.shape[1:])


def add_totals(
    graded: Regraded, totals: Totals, chosen: Callable[[str], bool], since: int | None, until: int | None
) -> None:
    """Add all steps of the horizon: of the chosen series, and of actual values from `since` until before `until`."""
    names, width = graded.lives.series, len(graded.models)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    series = np.array([numbers[name] for name in names], np.int64)[graded.life]
    kept = np.array([chosen(name) for name in names], np.bool_)[graded.life]
    kept &= (graded.ts >= (-NEVER if since is None else since)) & (graded.ts < (NEVER if until is None else until))
    groups, steps = len(numbers) * width, tuple(range(1, graded.horizon + 1))
    sums = np.zeros((groups, len(graded.targets), graded.horizon, len(SUMS)))
    missed = np.zeros((len(numbers), graded.horizon), np.int64)
    first, last = np.full(groups, NEVER), np.full(groups, -NEVER)
    scale = np.zeros((len(numbers), len(graded.targets), 2))
    for ahead in steps:
        points = graded.points(ahead)
        inside = kept[points.at]
        group = (series[points.at] * width + graded.by[points.made])[inside]
        sums[:, :, ahead - 1] = added(group, points.sums[inside], groups)
        np.minimum.at(first, group, graded.ts[points.at[inside]])
        np.maximum.at(last, group, graded.ts[points.at[inside]])
        missed[:, ahead - 1] = np.bincount(series[points.missed[kept[points.missed]]], minlength=len(numbers))
        if ahead == 1:
            scale = added(series[points.at], points.sums[:, :, [NAIVE, COUNT]], len(numbers))
    totals.coverage |= {share for share in np.unique(graded.coverage).tolist() if share == share}
    shown = {name: number for name, number in numbers.items() if chosen(name)}
    totals.seen |= dict.fromkeys(shown)
    for (name, number), (place, target) in product(shown.items(), enumerate(graded.targets)):
        error, count = scale[number, place].tolist()
        totals.scale[name, target] = error / count if count else None
        for ahead in steps:
            totals.add_unscored(name, target, ahead, int(missed[number, ahead - 1]))
        for at, model in enumerate(graded.models, number * width):
            if sums[at, place, :, COUNT].any():
                totals.add_sums(Key(name, target, model, steps), sums[at, place], int(first[at]), int(last[at]))
