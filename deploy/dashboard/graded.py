"""Live scores as the page needs them: of the fleet in memory, of each series' buckets in the store."""

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from deploy.dashboard.fleet import Fleet
from deploy.dashboard.store import Store
from deploy.grading.totals import POWERS, Key, Totals
from model.online.scores import SUMS
from pipeline.formats.headers import OFFSETS
from pipeline.formats.scores import SeriesScores, decode_scores
from pipeline.log import Record

Reals = npt.NDArray[np.float64]
BUCKETS = 2000
"""Most buckets of time whose scores by model are kept."""


class Graded:
    """Scores in sums."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.totals = Totals()
        """Of all that was read, whether its records are still kept or not."""
        self.over_time: OrderedDict[tuple[int, str], Reals] = OrderedDict()
        """(M,), relative to the series' scales: by bucket's start and model."""
        self.version = 0
        self.bucket: int | None = None
        """The shortest time between two buckets of a series so far, milliseconds."""
        self._sums: dict[int, tuple[int, dict[int, Reals]]] = {}

    def clear(self, fleet: Fleet) -> None:
        """Forget all sums."""
        self.totals = Totals()
        self.over_time.clear()
        for track in fleet.tracks.values():
            track.sums = None
        self.version += 1

    def add(self, record: Record, scores: SeriesScores, fleet: Fleet) -> None:
        """Add a bucket; one that was written twice counts once, and the last counts."""
        origin = dict(record.headers).get(OFFSETS, b"")
        value = bytes(record.value or b"")
        identity = scores.series, scores.start, scores.until, record.partition, origin
        held = self._store.scores.select(
            "value", "series = ? AND start = ? AND until = ? AND partition = ? AND origin = ?", identity
        )
        if held and held[-1][0] == value:
            return
        if held:
            self._add(decode_scores(held[-1][0]), fleet, -1)
        self._add(scores, fleet, 1)
        self._store.scores.add([(*identity, value)], len(value) + 100)
        self.version += 1

    def _add(self, scores: SeriesScores, fleet: Fleet, sign: int) -> None:
        single = len(scores.scale) == 1
        totals = self.totals
        totals.seen[scores.series] = None
        if scores.coverage is not None:
            totals.coverage.add(scores.coverage)
        for target, scale in scores.scale.items():
            totals.scale[scores.series, target] = scale
            for step, count in zip(scores.steps, scores.unscored[target], strict=True):
                totals.add_unscored(scores.series, target, step, sign * count)
            if (track := fleet.track(scores.series, "" if single else target)) is not None:
                track.scale = scale
        for each in scores.scores:
            sums = sign * np.array([getattr(each, name) for name in SUMS], np.float64).T
            key = Key(scores.series, each.target, each.model, tuple(scores.steps))
            whole = sums.sum(axis=0)
            totals.add_sums(key, sums, scores.start, scores.until)
            if (track := fleet.track(scores.series, "" if single else each.target)) is not None:
                track.sums = whole.copy() if track.sums is None else track.sums + whole
            if scale := scores.scale.get(each.target):
                self._add_over_time(scores.start, each.model, whole / scale**POWERS)

    def _add_over_time(self, start: int, model: str, sums: Reals) -> None:
        place = start, model
        if place in self.over_time:
            self.over_time[place] += sums
            return
        self.over_time[place] = sums
        if len(self.over_time) > BUCKETS:
            del self.over_time[min(self.over_time)]

    def since(self, since: int, fleet: Fleet) -> dict[int, Reals]:
        """Sums (M,) by track, of the buckets that begin at `since` or later."""
        if (kept := self._sums.get(since)) and kept[0] == self.version:
            return kept[1]
        found: dict[int, Reals] = {}
        for (value,) in self._store.scores.select("value", "start >= ?", (since,)):
            scores = decode_scores(value)
            for each in scores.scores:
                target = "" if len(scores.scale) == 1 else each.target
                if (track := fleet.tracks.get((scores.series, target))) is None:
                    continue
                sums = np.array([sum(getattr(each, name)) for name in SUMS], np.float64)
                found[track.number] = found[track.number] + sums if track.number in found else sums
        if len(self._sums) > 20:
            self._sums.clear()
        self._sums[since] = self.version, found
        return found

    def of_series(self, series: str, target: str | None) -> Totals:
        """The scores of one series, of its buckets that are kept; `target` None is of all targets."""
        totals = Totals()
        rows = self._store.scores.select("start, until, value", "series = ?", (series,), "ORDER BY start, until")
        for _, _, value in rows:
            totals.add(decode_scores(value))
        if target is not None:
            totals.parts = {key: part for key, part in totals.parts.items() if key.target == target}
            totals.unscored = {key: count for key, count in totals.unscored.items() if key[1] == target}
        return totals
