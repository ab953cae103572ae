"""What a service's live scores say, and what the topics say: the same, to the bit.

N observed steps   R records   W versions   O targets   H scored steps   S sums
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.grading.rebuilt import Ints, Reals
from deploy.grading.recompute import NEVER, Regraded, added
from model.online.scores import COUNT, INTERVALS, NAIVE, SUMS
from pipeline.formats.scores import SeriesScores
from tidecast.times import format_time


@dataclass(slots=True)
class Comparison:
    """How many records were compared."""

    equal: int = 0
    differ: int = 0
    unknown: int = 0
    """Not compared, as some window in them can't be rebuilt."""
    missing: int = 0
    """Series whose graded forecasts are in no record, although later ones are."""
    first: str | None = None
    """The first difference."""

    @property
    def same(self) -> bool:
        """Whether all that was compared is equal."""
        return not self.differ and not self.missing

    def add(self, difference: str) -> None:
        """Count a record; empty if it is equal."""
        self.equal += not difference
        self.differ += bool(difference)
        self.first = self.first or difference or None


class Recomputed:
    """The records that a partition's forecasts should have led to, where its service wrote these."""

    def __init__(self, graded: Regraded, records: Sequence[SeriesScores]) -> None:
        self._graded, self._records = graded, records
        self._steps = sorted({step for record in records for step in record.steps})
        self._at = _assigned(graded, records)
        width, targets = len(graded.models), len(graded.targets)
        self._sums = np.zeros((len(records) * width, targets, len(self._steps), len(SUMS)))
        self._unscored = np.zeros((len(records), len(self._steps)), np.int64)
        self._loose = np.full(len(graded.lives.series), NEVER)
        """By life: when the first actual value came that was scored and is in no record."""
        share = np.array([np.nan if each.coverage is None else each.coverage for each in records])
        for number, ahead in enumerate(self._steps):
            points = graded.points(ahead)
            of = self._at[points.at]
            loose = np.concatenate([points.at[of < 0], points.missed[self._at[points.missed] < 0]])
            np.minimum.at(self._loose, graded.life[loose], graded.ts[loose])
            of, made, sums = of[of >= 0], points.made[of >= 0], points.sums[of >= 0]
            sums[share[of] != graded.coverage[made], :, INTERVALS:] = 0.0
            self._sums[:, :, number] = added(of * width + graded.by[made], sums, len(self._sums))
            missed = self._at[points.missed]
            self._unscored[:, number] = np.bincount(missed[missed >= 0], minlength=len(records))

    def compare(self, comparison: Comparison, chosen: Callable[[SeriesScores], bool]) -> None:
        """Compare the chosen records."""
        graded, records = self._graded, self._records
        assigned = self._at >= 0
        life, until = (np.full(len(records), -1) for _ in range(2))
        np.maximum.at(life, self._at[assigned], graded.life[assigned])
        np.maximum.at(until, self._at[assigned], graded.ts[assigned])
        total: dict[tuple[int, str], Reals] = {}
        last: dict[int, int] = {}
        for number, record in enumerate(records):
            unknown = record.start <= graded.unknown.get(record.series, -NEVER)
            own = int(life[number])
            last[own] = record.until
            found = self._found(number, record)
            scale = self._scale(total, own, record, found)
            if record.series in graded.unknown or (own >= 0 and self._loose[own] <= record.until):
                scale = record.scale
            if not chosen(record):
                continue
            if unknown:
                comparison.unknown += 1
            elif until[number] != record.until:
                comparison.add(f"{_place(record)}: until {record.until}, recomputed {int(until[number])}")
            else:
                comparison.add(_difference(record, found, self._unscored[number, self._of(record)].tolist(), scale))
        self._add_missing(comparison, last)

    def _add_missing(self, comparison: Comparison, last: dict[int, int]) -> None:
        """Count series with graded values that are in no record; `last` is until when those of each life are."""
        graded, first = self._graded, {each.series: each.start for each in reversed(self._records)}
        for life, (name, ts) in enumerate(zip(graded.lives.series, self._loose.tolist(), strict=True)):
            from_ = max(first.get(name, NEVER), graded.unknown.get(name, -NEVER) + 1)
            if from_ <= ts < last.get(life, -NEVER):
                comparison.missing += 1
                comparison.first = comparison.first or f"{name}, {format_time(ts)}: graded values are in no record"

    def _of(self, record: SeriesScores) -> list[int]:
        return [self._steps.index(step) for step in record.steps]

    def _found(self, number: int, record: SeriesScores) -> dict[tuple[str, str], Reals]:
        """The sums (H,S) of a record by target and version."""
        models = self._graded.models
        sums = self._sums[number * len(models) : (number + 1) * len(models), :, self._of(record)]
        return {
            (target, model): sums[version, place]
            for place, target in enumerate(self._graded.targets)
            for version, model in enumerate(models)
            if sums[version, place, :, COUNT].any()
        }

    def _scale(
        self, total: dict[tuple[int, str], Reals], life: int, record: SeriesScores, found: dict[tuple[str, str], Reals]
    ) -> dict[str, float | None]:
        """The series' scales after a record; `total` is that of its life so far, added version by version."""
        for scores in record.scores:
            if (sums := found.get((scores.target, scores.model))) is not None:
                place = life, scores.target
                total[place] = total.get(place, np.zeros(2)) + sums[0, [NAIVE, COUNT]]
        pairs = {target: total.get((life, target), np.zeros(2)).tolist() for target in self._graded.targets}
        return {target: error / count if count else None for target, (error, count) in pairs.items()}


def _assigned(graded: Regraded, records: Sequence[SeriesScores]) -> Ints:
    """The record (N,) that holds each observed step; -1 where there is none.

    A record's last step has the time `until`. In a series' next life times may go back: records are in their order.
    """
    names, places = graded.lives.series, dict[tuple[str, int], list[int]]()
    own: dict[int, list[int]] = {}
    for row, (life, ts) in enumerate(zip(graded.life.tolist(), graded.ts.tolist(), strict=True)):
        places.setdefault((names[life], ts), []).append(row)
        own.setdefault(life, []).append(row)
    found, newest = np.full(len(graded.ts), -1), dict[str, int]()
    for number, record in enumerate(records):
        rows = places.get((record.series, record.until), [])
        last = next((row for row in rows if row > newest.get(record.series, -1)), None)
        if last is None:
            continue
        newest[record.series] = last
        of_life = own[int(graded.life[last])]
        for row in reversed(of_life[: bisect_left(of_life, last) + 1]):
            if graded.ts[row] < record.start:
                break
            found[row] = number
    return found


def _place(record: SeriesScores) -> str:
    return f"{record.series}, {format_time(record.start)}"


def _difference(
    record: SeriesScores, found: dict[tuple[str, str], Reals], unscored: list[int], scale: dict[str, float | None]
) -> str:
    """The first difference of a record from what was recomputed; empty if there is none."""
    for what, written, ours in _pairs(record, found, unscored, scale):
        if written != ours:
            return f"{_place(record)}: {what} {written}, recomputed {ours}"
    return ""


def _pairs(
    record: SeriesScores, found: dict[tuple[str, str], Reals], unscored: list[int], scale: dict[str, float | None]
) -> Iterator[tuple[str, object, object]]:
    written = {(each.target, each.model): each for each in record.scores}
    yield "versions", sorted(written), sorted(found)
    for (target, model), scores in written.items():
        for number, name in enumerate(SUMS):
            for step, theirs, ours in zip(
                record.steps, getattr(scores, name), found[target, model][:, number].tolist(), strict=True
            ):
                yield f"{target} by {model}, step {step}: {name}", theirs, ours
    for target in record.scale:
        yield f"{target}: unscored", record.unscored[target], unscored
        yield f"{target}: scale", record.scale[target], scale.get(target)
