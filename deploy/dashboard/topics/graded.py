"""Live scores as the page needs them: of the fleet in memory, of each series' buckets in the store."""

from collections import OrderedDict

import numpy as np

from deploy.dashboard.topics.fleet import COUNT, ERROR, INSIDE, INTERVALS, NAIVE, Fleet, Reals
from deploy.dashboard.topics.store import Store
from deploy.grading.totals import POWERS, Key, Totals
from model.online.scores import SUMS
from pipeline.formats.headers import OFFSETS
from pipeline.formats.scores import SeriesScores, decode_scores
from pipeline.log import Record

BUCKETS = 5000
"""Most buckets of time, by model, whose scores are kept."""
SHOWN_SUMS = [COUNT, ERROR, NAIVE, INTERVALS, INSIDE]
"""Those that the fleet is sorted by."""
KEPT = 20
"""Periods whose scores by series are kept until there are new ones."""


class Graded:
    """Scores in sums. Of two records about the same bucket the newest counts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.totals = Totals()
        """Of all that was read, over all steps: they are of the only step 0."""
        self.over_time: OrderedDict[tuple[int, str], Reals] = OrderedDict()
        """(M,), relative to the series' scales: by bucket's start and model."""
        self.last_step = 0
        """The furthest step that is scored."""
        self.version = 0
        """Counts records."""
        self._since: dict[int, tuple[int, dict[int, Reals]]] = {}

    def clear(self, fleet: Fleet) -> None:
        """Forget all sums."""
        self.totals = Totals()
        self.over_time.clear()
        for track in fleet.tracks.values():
            track.sums = track.scored_at = None
        self.version += 1

    def add(self, record: Record, scores: SeriesScores, fleet: Fleet, *, newest: bool) -> None:
        """Add a bucket: written after all others, or (not `newest`) before them."""
        origin, value = dict(record.headers).get(OFFSETS, b""), bytes(record.value or b"")
        identity = scores.series, scores.start, scores.until, record.partition, origin
        held = self._store.scores.select(
            "value", "series = ? AND start = ? AND until = ? AND partition = ? AND origin = ?", identity
        )
        if held and (held[-1][0] == value or not newest):
            return
        if held:
            self._add(decode_scores(held[-1][0]), fleet, -1)
        self._add(scores, fleet, 1)
        self._store.scores.add([(*identity, value)], len(value) + 100)
        self._store.sums.add(rows := self._rows(scores, record, origin, fleet), 80 * len(rows))
        self.version += 1

    def _rows(self, scores: SeriesScores, record: Record, origin: bytes, fleet: Fleet) -> list[tuple[object, ...]]:
        """The sums of all steps, by target and version."""
        sums: dict[tuple[int, str], Reals] = {}
        for each in scores.scores:
            if (track := fleet.track(scores.series, "" if len(scores.scale) == 1 else each.target)) is not None:
                whole = np.array([sum(getattr(each, SUMS[at])) for at in SHOWN_SUMS], np.float64)
                sums[track.number, each.model] = whole
        return [
            (number, scores.start, scores.until, record.partition, origin, model, *whole.tolist())
            for (number, model), whole in sums.items()
        ]

    def _add(self, scores: SeriesScores, fleet: Fleet, sign: int) -> None:
        """Add sums, or take them away again."""
        single, totals = len(scores.scale) == 1, self.totals
        totals.seen[scores.series] = None
        self.last_step = max([self.last_step, *scores.steps])
        if scores.coverage is not None:
            totals.coverage.add(scores.coverage)
        for target, scale in scores.scale.items():
            totals.add_unscored(scores.series, target, 0, sign * sum(scores.unscored[target]))
            track = fleet.track(scores.series, "" if single else target)
            if track is not None and (track.scored_at is None or scores.until >= track.scored_at):
                track.scale, track.scored_at, track.naive_lag = scale, scores.until, scores.naive
                totals.scale[scores.series, target] = scale
        for each in scores.scores:
            whole = sign * np.array([sum(getattr(each, name)) for name in SUMS], np.float64)
            totals.add_sums(
                Key(scores.series, each.target, each.model, (0,)), whole[None].copy(), scores.start, scores.until
            )
            if (track := fleet.track(scores.series, "" if single else each.target)) is not None:
                track.sums = whole.copy() if track.sums is None else track.sums + whole
            if scale := scores.scale.get(each.target):
                self._add_over_time(scores.start, each.model, whole / scale**POWERS)

    def _add_over_time(self, start: int, model: str, sums: Reals) -> None:
        place = start, model
        if place in self.over_time:
            self.over_time[place] += sums
        else:
            self.over_time[place] = sums
            if len(self.over_time) > BUCKETS:
                del self.over_time[min(self.over_time)]

    def since(self, since: int) -> dict[int, Reals]:
        """Sums (M,) by track's number, of the buckets that begin at `since` or later."""
        if (kept := self._since.get(since)) and kept[0] == self.version:
            return kept[1]
        names = "count", "error", "naive", "intervals", "inside"
        totals = ", ".join(f"sum({name})" for name in names)
        found: dict[int, Reals] = {}
        for number, *sums in self._store.sums.select(f"track, {totals}", "start >= ? GROUP BY track", (since,)):
            whole = found.setdefault(number, np.zeros(len(SUMS)))
            whole[SHOWN_SUMS] += sums
        if len(self._since) >= KEPT:
            self._since.clear()
        self._since[since] = self.version, found
        return found

    def of_series(self, series: str, target: str | None, since: int | None) -> Totals:
        """The scores of one series, of its buckets that are kept and begin at `since` or later; `target` None is of
        all targets.
        """
        totals = Totals()
        span = series, -(2**62) if since is None else since
        rows = self._store.scores.select(
            "start, until, value", "series = ? AND start >= ?", span, "ORDER BY start, until"
        )
        for _, _, value in rows:
            totals.add(decode_scores(value))
        if target is not None:
            totals.parts = {key: part for key, part in totals.parts.items() if key.target == target}
            totals.unscored = {key: count for key, count in totals.unscored.items() if key[1] == target}
        return totals
