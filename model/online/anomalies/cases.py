"""One track, looked at closely: what has been going on, and what it turns out to be."""

from collections.abc import Iterator
from math import isfinite

import numpy as np
import numpy.typing as npt

from model.online.anomalies.columns import DISTURBED, Case, Distance, Mean, Number, State
from model.online.anomalies.distances import LARGEST
from model.online.anomalies.event import Event
from model.online.anomalies.findings import Finding, Kind, Outcome, Phase
from model.online.anomalies.units import Unit, unit_between

SUSTAINED, SMALL = 2.0, 3.0
"""Multiples of its records at which the mean of the naive error over a few steps, and the value's smallness, begin a
case."""
SPIKE, SHIFT = 2.5, 2.0
"""What a spike must be in multiples of its records, and a shift in those of a jump times those of what followed."""
SPIKE_STEPS, SHIFT_STEPS = 2, 8
"""A case is a spike after so many steps back in a row, and a shift at so many steps."""
UNIT_STEPS = 4
"""Steps of a case after which a large ratio is judged."""
NEAR = 1.5
"""A value is back from so many times the records of the naive error."""
BACK_STEPS = 3
"""Steps in a row after which a level is back."""
SETTLED = 32
"""Steps after which a shift is the new normal, where there is no season."""
CALM = 8
"""Steps after something in which no case begins, and with a season, one of these more: then the naive forecast
is of what was wrong."""
UNKNOWN = 1e30
"""The size of what was not seen."""


class Track:
    """The state of one track, by column, and its means and records (3,S) after a step: all changed in place."""

    def __init__(self, numbers: list[int], case: list[float], season: int) -> None:
        self.numbers, self.case, self.season = numbers, case, season
        self.means: list[float] = []
        self.records: npt.NDArray[np.float32]
        self.is_own = self.is_disturbed
        """Whether it has learnt anything else than all tracks together do."""
        self._run_before = 0

    @property
    def is_disturbed(self) -> bool:
        """Whether nothing is to be learnt of the next step."""
        return self.has(DISTURBED)

    def count(self, run: int, ts: int, *, worse: bool) -> None:
        """Count a step, the run-th in a row of its value. worse: whether errors are worse than usual."""
        numbers = self.numbers
        if run == 1:
            if not self.has(State.STUCK):
                numbers[Number.LONGEST_RUN] = max(numbers[Number.LONGEST_RUN], numbers[Number.RUN], 1)
            self._run_before, numbers[Number.RUN_TS] = numbers[Number.RUN_TS], ts
        numbers[Number.RUN] = run
        numbers[Number.WORSE] = numbers[Number.WORSE] + 1 if worse and not self.is_disturbed else 0
        if numbers[Number.WORSE] <= 1 and not self.has(State.DRIFT):
            numbers[Number.WORSE_TS] = ts * numbers[Number.WORSE]

    def examine(self, event: Event) -> Iterator[Finding]:
        """Findings of this step."""
        self.case[Case.LAST] = event.last
        self._resume(event)
        yield from self._stuck(event)
        yield from self._drift(event)
        state, run = self.numbers[Number.STATE], self.numbers[Number.RUN]
        if state & State.STUCK or (run > SPIKE_STEPS and run > self.numbers[Number.LONGEST_RUN]):
            return  # it may be stuck: nothing else is judged
        if state & State.CASE:
            yield from self._follow(event)
        elif state & (State.SHIFT | State.UNIT):
            yield from self._settle(event)
        elif event.jumped:
            self._open(event)

    def _resume(self, event: Event) -> None:
        """Learn how many steps are ever missing; after far more, nothing is as it was the day before."""
        longest = self.numbers[Number.MISSING]
        most = 2 * longest + 3
        self.numbers[Number.MISSING] = max(longest, min(event.missing, most) if event.enough else event.missing)
        if event.enough and event.missing > most:
            self._calm(event, self.season, UNKNOWN)

    def _stuck(self, event: Event) -> Iterator[Finding]:
        since, longest = self.numbers[Number.RUN_TS], self.numbers[Number.LONGEST_RUN]
        if not self.has(State.STUCK):
            if event.stuck:
                self._set(State.STUCK, True)
                self._set(State.CASE | State.SUSTAINED, False)
                yield _finding(event, "stuck", "begin", since, event.value, event.value, longest)
        elif self.numbers[Number.RUN] == 1:
            self._set(State.STUCK, False)
            self.numbers[Number.LONGEST_RUN] = 2 * longest + SPIKE_STEPS
            self._calm(event, self.season, UNKNOWN)
            yield _finding(event, "stuck", "end", self._run_before, event.last, event.last, longest, "back")

    def _drift(self, event: Event) -> Iterator[Finding]:
        error, usual, since = self.means[Mean.ERROR], self.means[Mean.USUAL], self.numbers[Number.WORSE_TS]
        if event.another and (self.has(State.DRIFT) or self.numbers[Number.WORSE]):  # it is judged by its own errors
            self.means[Mean.ERROR], self.numbers[Number.WORSE] = min(error, usual), 0
        if not self.has(State.DRIFT):
            if event.drifts and not event.another:
                self._set(State.DRIFT, True)
                yield _finding(event, "drift", "begin", since, error, error, usual)
        elif event.recovered or event.another:
            self._set(State.DRIFT, False)
            outcome: Outcome = "replaced" if event.another else "back"
            yield _finding(event, "drift", "end", since, error, error, usual, outcome)

    def _open(self, event: Event) -> None:
        """Begin a case, unless it may be the echo of the last one."""
        case, novelty = self.case, event.novelty
        jump = (novelty[Distance.ERROR] * novelty[Distance.NAIVE]) ** 0.5
        sustained = jump < max(novelty[Distance.OFFSET] / SUSTAINED, novelty[Distance.SMALL] / SMALL)
        anchored = not sustained and self.records[0, Distance.ERROR] < self.records[0, Distance.NAIVE] / 2
        before = case[Case.SIZE]
        case[Case.BASE] = self.means[Mean.DAYS] if sustained else event.value - event.error
        case[Case.ANCHOR] = event.naive - event.error if anchored else 0.0
        size = self._away(event)
        if sustained and self.season > 1 and novelty[Distance.OFFSET] > SUSTAINED:
            size = self.means[Mean.OFFSET]
        if event.step < self.numbers[Number.QUIET] and abs(size) <= 2 * abs(before):
            return
        self._set(State.CASE, True)
        self._set(State.SUSTAINED, sustained)
        self.numbers[Number.SINCE], self.numbers[Number.SINCE_TS] = event.step, event.ts
        self.numbers[Number.AGE] = self.numbers[Number.BACK] = 0
        case[Case.SIZE], case[Case.JUMP] = size, jump
        case[Case.ERROR] = 1.2 if sustained else novelty[Distance.ERROR]
        case[Case.NOW : Case.OFFSET + 1] = [0.0] * (Case.OFFSET + 1 - Case.NOW)
        forecast = event.value - event.error if isfinite(event.error) else event.value
        case[Case.LEVEL :] = [event.level, 0.0, 0.0, event.value, forecast]
        case[Case.USUAL_SIZE], case[Case.USUAL_MOVE] = self.means[Mean.SIZE], self.means[Mean.MOVE]
        self._add(event)

    def _seasonal(self, event: Event) -> bool:
        return self.season > 1 and isfinite(event.naive)

    def _away(self, event: Event) -> float:
        """How far the value is from where it was before the case, at the same time of the season."""
        case = self.case
        return float(event.naive - case[Case.ANCHOR] if self._seasonal(event) else event.value - case[Case.BASE])

    def _add(self, event: Event) -> None:
        """Count a step in, beside what it would have been before."""
        case, away = self.case, self._away(event)
        old = event.value - away if self._seasonal(event) else case[Case.USUAL_SIZE]
        case[Case.NOW] += abs(event.value)
        case[Case.OLD] += abs(old)
        case[Case.OFFSET] += away
        case[Case.TOTAL] += event.value
        case[Case.BEFORE] += event.value - event.naive if self._seasonal(event) else case[Case.LEVEL]
        if self.numbers[Number.AGE] > 0:
            case[Case.MOVES] += abs(event.value - case[Case.LAST])
            case[Case.OLD_MOVES] += abs(old - case[Case.LAST_OLD]) if self._seasonal(event) else case[Case.USUAL_MOVE]
        case[Case.LAST_OLD] = old
        self.numbers[Number.AGE] += 1

    def _follow(self, event: Event) -> Iterator[Finding]:
        """Another step of a case: is the value back, or away for good?"""
        self._add(event)
        case, age = self.case, self.numbers[Number.AGE]
        size, since = case[Case.SIZE], self.numbers[Number.SINCE_TS]
        if self._is_back(event, size) and age < SHIFT_STEPS:
            if self.numbers[Number.BACK] >= SPIKE_STEPS:
                self._set(State.CASE | State.SUSTAINED, False)
                if case[Case.JUMP] > SPIKE:
                    self._calm(event, self.season)
                    value, usual = case[Case.VALUE :]
                    yield _finding(event, "spike", "begin", since, value - usual, value, usual)
                    yield _finding(event, "spike", "end", since, value - usual, value, usual, "back")
            return
        if age < UNIT_STEPS:
            return
        now, old, moves, old_moves = case[Case.NOW : Case.OLD_MOVES + 1]
        unit = unit_between(now / age, old / age, moves, old_moves)
        offset = case[Case.OFFSET] / age
        if unit and (age >= SHIFT_STEPS or unit.is_large):
            yield self._change_unit(event, unit, offset, since)
        elif age >= SHIFT_STEPS:
            self._set(State.CASE | State.SUSTAINED, False)
            if case[Case.ERROR] * event.novelty[Distance.OFFSET] > SHIFT:
                yield self._shift(event, offset, since)

    def _change_unit(self, event: Event, unit: Unit, offset: float, since: int) -> Finding:
        case = self.case
        self._set(State.CASE | State.SUSTAINED, False)
        self._set(State.UNIT, True)
        value, usual = self._change(offset)
        case[Case.NOW], case[Case.OLD] = unit
        self._convert(unit)
        return _finding(event, "unit_change", "begin", since, unit.factor, value, usual)

    def _shift(self, event: Event, offset: float, since: int) -> Finding:
        self._set(State.SHIFT, True)
        value, usual = self._change(offset)
        self.means[Mean.LONG] += offset
        self.means[Mean.DAYS] += offset
        return _finding(event, "level_shift", "begin", since, value - usual, value, usual)

    def _change(self, offset: float) -> list[float]:
        """Note a change of the level by so much; the means of the values since it, and of those before."""
        case, age = self.case, self.numbers[Number.AGE]
        case[Case.OFFSET], self.numbers[Number.BACK] = offset, 0
        case[Case.VALUE :] = case[Case.TOTAL] / age, case[Case.BEFORE] / age
        return case[Case.VALUE :]

    def _settle(self, event: Event) -> Iterator[Finding]:
        """A shift that was found: is it the new normal, or has the value gone back?"""
        unit = self.has(State.UNIT)
        offset = self.case[Case.OFFSET]
        settled = event.step - self.numbers[Number.SINCE] >= (self.season if self.season > 1 else SETTLED)
        back = self._is_back(event, offset) and self.numbers[Number.BACK] >= BACK_STEPS
        if not (settled or back):
            return
        self._set(State.SHIFT | State.UNIT, False)
        changed = Unit(*self.case[Case.NOW : Case.OLD + 1])
        if back and unit:
            self._convert(changed.inverse)
        elif back:
            self.means[Mean.LONG] -= offset
            self.means[Mean.DAYS] -= offset
        self._calm(event, self.season if back else 0)
        kind: Kind = "unit_change" if unit else "level_shift"
        value, usual = self.case[Case.VALUE :]
        size = changed.factor if unit else value - usual
        outcome: Outcome = "back" if back else "settled"
        yield _finding(event, kind, "end", self.numbers[Number.SINCE_TS], size, value, usual, outcome)

    def _is_back(self, event: Event, size: float) -> bool:
        """Whether the value is near where it was, and how often in a row."""
        away = self._away(event)
        if self.has(State.SUSTAINED) and self.season > 1:
            away = self.means[Mean.OFFSET]
            back = abs(away) < abs(size) / 2
        else:
            factor = self.case[Case.NOW] if self.has(State.UNIT) else 1.0
            back = abs(away) < abs(size) / 2 and event.novelty[Distance.NAIVE] * factor < NEAR
        self.numbers[Number.BACK] = self.numbers[Number.BACK] + 1 if back else 0
        return back

    def _convert(self, unit: Unit) -> None:
        """All that was learnt, to another unit."""
        means, case = self.means, self.case
        for mean in (Mean.LONG, Mean.DAYS):
            means[mean] = unit.factor * means[mean] + unit.zero
        for mean in (Mean.NAIVE, Mean.ERROR, Mean.USUAL):
            means[mean] *= unit.factor
        case[Case.USUAL_SIZE] = unit.factor * case[Case.USUAL_SIZE] + abs(unit.zero)
        case[Case.USUAL_MOVE] *= unit.factor
        means[Mean.SIZE], means[Mean.MOVE] = case[Case.USUAL_SIZE], case[Case.USUAL_MOVE]
        np.minimum(self.records * np.float32(unit.factor), np.float32(4 * LARGEST), out=self.records)

    def _calm(self, event: Event, echo: int, size: float | None = None) -> None:
        """Let no case of up to twice this size begin for a while, nor the errors of meanwhile be a drift."""
        if size is not None:
            self.case[Case.SIZE] = size
        self.numbers[Number.QUIET] = event.step + CALM + (echo if echo > 1 else 0)
        if not self.has(State.DRIFT):
            self.means[Mean.ERROR] = min(self.means[Mean.ERROR], self.means[Mean.USUAL])

    def has(self, state: int) -> bool:
        """Whether any of these bits is set."""
        return bool(self.numbers[Number.STATE] & state)

    def _set(self, state: int, on: bool) -> None:
        now = self.numbers[Number.STATE]
        self.numbers[Number.STATE] = now | state if on else now & ~state


def _finding(
    event: Event,
    kind: Kind,
    phase: Phase,
    since: int,
    size: float,
    value: float,
    usual: float,
    outcome: Outcome | None = None,
) -> Finding:
    return Finding(event.row, kind, phase, event.ts, since, float(size), float(value), float(usual), outcome)
