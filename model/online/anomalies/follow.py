"""Tracks in which something may be, step by step."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.online.anomalies.cases import SMALL, SUSTAINED, Track
from model.online.anomalies.columns import Distance, Mean, Number, State
from model.online.anomalies.distances import Distances, Inputs
from model.online.anomalies.drift import Worse, is_recovered, is_worse
from model.online.anomalies.event import Event
from model.online.anomalies.findings import Finding
from model.online.anomalies.places import Places
from model.online.anomalies.runs import Runs, is_stuck
from model.online.tracks import Ints

JUMP, AWAY = 1.2, 0.5
"""A case begins at so many times the records of the forecast's error, if the value is away from the one a season
before, too, by so much of that error; or where cases.py has it."""

Bools = npt.NDArray[np.bool_]


class Steps(NamedTuple):
    """What is known of the N steps of a batch, in rounds."""

    places: Places
    distances: Distances
    runs: Runs
    worse: Worse
    inputs: Inputs


class Follower:
    """Follows tracks of a batch, each on its own."""

    def __init__(self, steps: Steps, closer: Bools, missing: Ints, enough: int, long: int) -> None:
        """closer: (N,) what is to be looked at; missing: (N,) steps before. enough, long: steps before a track's first
        finding, and of a drift.
        """
        self._steps, self._closer, self._missing = steps, closer, missing
        self._enough, self._long = enough, long

    def follow(self, number: int, track: Track, first: int) -> list[Finding]:
        """The findings of a track from its `first` step to be looked at on.

        What is learnt by all tracks together is right for this one until something is going on; then it learns on its
        own, to the end.
        """
        steps, found = self._steps, list[Finding]()
        places, distances = steps.places, steps.distances
        own = [number, *(start + number for start in places.starts[: int(places.turn[places.last[number]])])]
        for at in range(int(places.turn[first]), len(own)):
            before, place = own[at - 1], own[at]
            step = place - places.tracks
            if track.is_own:
                distances.judge(at - 1, number, disturbed=track.is_disturbed)
            elif not (self._closer[step] or track.numbers[Number.STATE]):
                continue
            means = distances.means[:, place].tolist()
            track.means, track.records = [*means], distances.records[at][..., number]
            drifting = track.has(State.DRIFT)
            self._count(track, number, step)
            found += track.examine(self._event(track, before, step))
            if track.means != means or track.has(State.DRIFT) != drifting:
                distances.means[:, place] = track.means
                distances.relearn(own[at:], drifting=track.has(State.DRIFT))
                track.is_own = True
            track.is_own |= track.is_disturbed
        return found

    def _count(self, track: Track, number: int, step: int) -> None:
        """Bring a track's counts up to a step."""
        runs, worse, numbers = self._steps.runs, self._steps.worse, track.numbers
        if track.is_own:
            naive, error, usual = track.means[Mean.NAIVE :]
            track.count(int(runs.run[step]), int(self._steps.inputs.ts[step]), worse=is_worse(error, usual, naive))
        else:
            numbers[Number.RUN], numbers[Number.LONGEST_RUN] = int(runs.run[step]), int(runs.longest[step])
            numbers[Number.RUN_TS], numbers[Number.WORSE] = int(runs.since(step, number)), int(worse.steps[step])
            if not track.has(State.DRIFT):
                numbers[Number.WORSE_TS] = int(worse.since(step, number))

    def _event(self, track: Track, before: int, step: int) -> Event:
        """What there is to be known of a track's step, the place of whose step before is given."""
        steps, inputs, numbers = self._steps, self._steps.inputs, track.numbers
        first = steps.places.tracks
        (values, errors, _), repeats = steps.distances.counts[:, step].tolist(), int(steps.runs.repeats[step])
        enough, graded = values > self._enough, errors > self._enough
        naive, error, usual = track.means[Mean.NAIVE :]
        novelty = steps.distances.novelty[:, first + step].tolist()
        away = abs(float(inputs.naive[step])) > AWAY * abs(float(inputs.error[step]))
        jumped = (novelty[Distance.ERROR] > JUMP and away) or novelty[Distance.OFFSET] > SUSTAINED
        return Event(
            row=step,
            value=float(inputs.value[first + step]),
            last=float(inputs.value[before]),
            level=float(steps.distances.means[Mean.LEVEL, before]),
            error=float(inputs.error[step]),
            naive=float(inputs.naive[step]),
            novelty=novelty,
            step=int(inputs.step[step]),
            ts=int(inputs.ts[step]),
            missing=int(self._missing[step]),
            enough=enough,
            jumped=graded and (jumped or novelty[Distance.SMALL] > SMALL),
            stuck=enough and is_stuck(numbers[Number.RUN], numbers[Number.LONGEST_RUN], values, repeats),
            drifts=graded and numbers[Number.WORSE] >= self._long,
            recovered=is_recovered(error, usual, naive),
            another=graded and bool(steps.worse.another[step]),
        )
