"""The computation of one batch of observed steps, round by round.

B observed steps, in order of arrival   O targets   H scored steps   N = B * O tracks' steps
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from model.online.anomalies.anomalies import Anomalies
from model.online.anomalies.findings import Finding
from model.online.bounds import bounds
from model.online.intervals import Intervals
from model.online.live import Live
from model.online.memory import Remembered
from model.online.rounds import Rounds
from model.online.scores import COUNT, INTERVALS, SUMS, Bucket, Scores, point_sums
from model.online.tracks import Ints, Tracks
from model.online.values import FirstMargins, Graded, Observed

Reals = npt.NDArray[np.float64]


def grade(live: Live, observed: Observed, first_margins: FirstMargins) -> Graded:
    """Score what was forecast for the steps of a batch, and remember what is forecast from them."""
    if not len(observed.row):
        return Graded(np.empty((0, live.targets, 2, live.horizon), np.float32), np.empty(0))
    return _Batch(live, observed, first_margins).graded()


class _Batch:
    """Arrays in the order of the batch's rounds, with O rows (tracks) for each step."""

    def __init__(self, live: Live, observed: Observed, first_margins: FirstMargins) -> None:
        self._live, self._first_margins = live, first_margins
        self._rounds = Rounds.of(observed.row)
        self._width, self._scored = live.targets, len(live.steps)
        order = self._rounds.order
        self._step, self._ts = observed.step[order], observed.ts[order]
        self._steps = self._across(self._step)
        self._rows = self._tracks_of(self._rounds.rows)
        self._row = self._tracks_of(observed.row[order])
        self._tracks = live.store.gather(self._rows, live.sequential)
        self._value = observed.value[order].reshape(-1, 1)
        self._by = self._across(observed.by[order])
        self._forecast, self._naive = (
            each[order].reshape(-1, self._scored) for each in (observed.forecast, observed.naive)
        )
        self._past, self._issued_at, self._margins = self._recall()
        every = live.horizon if live.intervals else 0
        self._every = np.empty((len(self._row), 2, every), np.float32)
        self._anomaly = np.full(len(self._row), np.nan)
        self._buckets: list[tuple[int, Bucket]] = []
        self._findings: list[tuple[int, int, Finding]] = []

    def _across(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """From one value (B,) of each step to one of each track (N,)."""
        return values if self._width == 1 else np.repeat(values, self._width, axis=0)

    def _tracks_of(self, rows: Ints) -> Ints:
        """The rows of all tracks of series, from each one's first."""
        return rows if self._width == 1 else (rows[:, None] + np.arange(self._width)).ravel()

    def _recall(self) -> tuple[Remembered, Ints, npt.NDArray[np.float32]]:
        """What was forecast for each step, in this batch or before; where its margins are in an array of all margins,
        those from before and those of the batch, which come to be round by round.
        """
        live, number = self._live, np.arange(self._scored)
        held = live.memory.recall(live.store, self._row, self._steps)
        in_batch, origin = (self._across(each) for each in self._rounds.origins(self._step, np.array(live.steps)))
        if self._width > 1:
            origin = origin * self._width + np.tile(np.arange(self._width), len(self._step))[:, None]
        forecast = np.where(in_batch, self._forecast[origin, number], np.where(held.known, held.forecast, np.nan))
        naive = np.where(in_batch, self._naive[origin, number], held.naive)
        by = np.where(in_batch, self._by[origin], held.by)
        size = held.forecast.size
        places = np.where(in_batch, size + origin * self._scored + number, np.arange(size).reshape(-1, self._scored))
        margins = np.full((2 * size, 2), np.nan, np.float32)
        margins[:size] = held.margins.reshape(-1, 2)
        self._has_margins = in_batch | np.isfinite(held.margins[..., 0] + held.margins[..., 1])
        known = ~np.isnan(forecast)
        naive[~known] = np.nan  # what lies in a slot besides is of another step
        return Remembered(known, forecast, naive, held.margins, by), places, margins

    def graded(self) -> Graded:
        """Compute it, and store the new state."""
        live, size = self._live, self._forecast.size
        if live.intervals:
            self._follow(live.intervals)
        if live.anomalies:
            self._look_at(live.anomalies)
        if live.scores:
            self._score(live.scores)
        margins = self._margins[size:].reshape(-1, self._scored, 2)
        known, by = ~np.isnan(self._forecast), np.repeat(self._by[:, None], self._scored, axis=1)
        live.memory.remember(
            live.store, self._row, self._steps, Remembered(known, self._forecast, self._naive, margins, by)
        )
        live.store.scatter(self._rows, self._tracks)
        arrived = np.empty_like(self._rounds.order)
        arrived[self._rounds.order] = np.arange(len(arrived))
        anomaly = np.fmax.reduce(self._anomaly.reshape(-1, self._width), axis=1)
        live.tally.anomalies += int(np.count_nonzero(anomaly > 1))
        every = self._every.reshape(len(arrived), self._width, 2, self._every.shape[2])
        return Graded(
            every[arrived], anomaly[arrived], sorted(self._buckets, key=_place), sorted(self._findings, key=_place)
        )

    def _views(self, names: Iterable[str], tracks: int) -> Tracks:
        """These fields of a round's tracks, which are the first ones."""
        return {name: self._tracks[name][:tracks] for name in names}

    def _follow(self, intervals: Intervals) -> None:
        """Round by round: the intervals that the actual values lead to, and the margins of new forecasts."""
        size, beginners = self._forecast.size, self._beginners()
        track = np.concatenate([np.arange((part.stop - part.start) * self._width) for part in self._rounds.parts])
        steps = intervals.steps(self._value - self._past.forecast, self._has_margins, self._steps, track)
        seasonal = np.empty(steps.season_ahead.shape, np.float32)
        for number, part in enumerate(self._rounds.parts):
            rows = slice(part.start * self._width, part.stop * self._width)
            tracks, here = self._views(intervals.fields, rows.stop - rows.start), steps.part(rows)
            intervals.update(tracks, here, self._margins.take(self._issued_at[rows], axis=0))
            if number in beginners:
                self._begin(intervals, beginners[number], part.start)
            start, stop = (size + at * self._scored for at in (rows.start, rows.stop))
            self._margins[start:stop] = intervals.margins(tracks, here).reshape(-1, 2)
            seasonal[rows] = intervals.seasonal(tracks, here)
        self._every = intervals.between(seasonal, self._margins[size:].reshape(-1, self._scored, 2))

    def _look_at(self, anomalies: Anomalies) -> None:
        """How unusual the actual values are, and what is found of them."""
        value, past, order = self._value[:, 0], self._past, self._rounds.order
        self._anomaly, found = anomalies.update(
            {name: self._tracks[name] for name in anomalies.fields},
            [(part.stop - part.start) * self._width for part in self._rounds.parts],
            value,
            value - past.forecast[:, 0],
            value - past.naive[:, 0],
            self._margins.take(self._issued_at[:, 0], axis=0),
            self._steps,
            self._across(self._ts),
            np.where(past.known[:, 0], past.by[:, 0], 0).astype(np.int64),
        )
        for each in found:
            step, target = divmod(each.row, self._width)
            self._findings.append((int(order[step]), target, each))

    def _beginners(self) -> dict[int, list[int]]:
        """The series that have their first forecast in each round, by their places among the batch's series."""
        begun, found = self._tracks["begun"][:: self._width], dict[int, list[int]]()
        if begun.all():
            return found
        known = ~np.isnan(self._forecast[:: self._width, 0])
        for series in np.flatnonzero(begun == 0).tolist():
            for number, part in enumerate(self._rounds.parts):
                if series < part.stop - part.start and known[part.start + series]:
                    found.setdefault(number, []).append(series)
                    break
        return found

    def _begin(self, intervals: Intervals, series: list[int], first: int) -> None:
        """Give the intervals of some series their first margins."""
        margins = self._first_margins(self._rounds.order[first + np.array(series)])
        places = self._tracks_of(np.array(series) * self._width)
        tracks = {name: self._tracks[name][places] for name in intervals.fields}
        intervals.begin(tracks, margins.reshape(-1, self._scored, 2))
        for name, values in tracks.items():
            self._tracks[name][places] = values
        self._tracks["begun"][places] = 1

    def _score(self, scores: Scores) -> None:
        """Round by round: add up what the actual values say of the forecasts, in the bucket of each."""
        live, past, tracks = self._live, self._past, self._tracks
        issued = self._margins.take(self._issued_at, axis=0)
        clipped = np.tile(live.clipped, len(self._step))[:, None]
        lower, upper = bounds(past.forecast, issued[..., 0], issued[..., 1], clipped)
        sums = point_sums(self._value, past.forecast, past.naive, lower, upper, live.coverage or 0.0)
        starts, before, gaps = self._turns(scores)
        newest = past.by[past.known]
        mixed = len(newest) > 0 and bool(((newest != newest[0]).any()) or (tracks["sums_by"] != newest[0]).any())
        for part in self._rounds.parts:
            rows = slice(part.start * self._width, part.stop * self._width)
            views = self._views(scores.fields, rows.stop - rows.start)
            for series in np.flatnonzero(starts[part] != before[part]).tolist():
                self._close(scores, series, int(self._rounds.order[part.start + series]))
            for series in np.flatnonzero(gaps[part]).tolist():
                self._miss(series, part.start + series)
            if mixed:
                scores.add(views, self._rows, sums[rows], np.where(past.known[rows], past.by[rows], 0))
            else:
                views["sums"] += sums[rows]
            views["bucket"][:] = self._across(starts[part])
            views["until"][:] = self._across(self._ts[part])
            views["observed"][:] = self._steps[rows]
        tracks["seen"][:] = 1
        self._count(sums)

    def _turns(self, scores: Scores) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
        """For each step (B,): its bucket's start, that of its series' step before, and whether steps are missing
        between the two. A series' first step is in the bucket before too.
        """
        starts, size = scores.start(self._ts), len(self._rounds.rows)
        sizes = [part.stop - part.start for part in self._rounds.parts]
        earlier = np.arange(len(starts)) - np.repeat([0, *sizes[:-1]], sizes)
        before, step = starts[earlier], self._step[earlier]
        seen, bucket, observed = (self._tracks[name][:: self._width] for name in ("seen", "bucket", "observed"))
        before[:size] = np.where(seen, bucket, starts[:size])
        step[:size] = np.where(seen, observed, self._step[:size] - 1)
        return starts, before, self._step - step > 1

    def _close(self, scores: Scores, series: int, place: int) -> None:
        tracks = slice(series * self._width, (series + 1) * self._width)
        if bucket := scores.close(self._tracks, self._rows, tracks):
            self._buckets.append((place, bucket))

    def _miss(self, series: int, place: int) -> None:
        """Count what was forecast for steps that were never observed, before the step at this place in the batch."""
        parts = (part.start + series for part in self._rounds.parts)
        earlier = {int(self._step[at]): at for at in parts if at < place}
        live, step = self._live, int(self._step[place])
        for track in range(series * self._width, (series + 1) * self._width):
            last = int(self._tracks["observed"][track])
            for number, ahead in enumerate(live.steps):
                missed = np.arange(last + 1, min(step, last + ahead + 1))
                inside = [earlier[origin] for origin in (missed - ahead).tolist() if origin in earlier]
                first = min(earlier, default=step)
                held = live.memory.holds(live.store, int(self._rows[track]), number, missed[missed - ahead < first])
                forecast = self._forecast[np.array(inside, np.int64) * self._width + track % self._width, number]
                self._tracks["unscored"][track, number] += held.sum() + (~np.isnan(forecast)).sum()

    def _count(self, sums: Reals) -> None:
        """Add to the tally of all series."""
        tally = self._live.tally
        total = np.ones(len(sums) * self._scored) @ sums.reshape(-1, len(SUMS))
        tally.graded += int(total[COUNT])
        tally.intervals += int(total[INTERVALS])
        tally.inside += int(total[SUMS.index("inside")])


def _place(found: tuple[Any, ...]) -> int:
    return int(found[0])
