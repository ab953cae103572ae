"""A micro-batch's windows, graded as their forecasts come.

B windows   O targets   K horizon steps   H scored steps
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.grading.records import Message, finding_message, scores_message, silence_message
from deploy.grading.state import GradedPart, Grading, Issued
from model.card import Card
from model.evaluation.baselines import naive_of_windows
from model.levels import Levels
from model.online.anomalies.findings import Finding
from model.online.batch import grade
from model.online.bounds import bounds
from model.online.live import Live
from model.online.scores import Bucket
from model.online.values import Observed, Tally
from model.residuals import LEVELS, Residuals, window_scale
from model.spikes import winsorised
from pipeline.formats.forecasts import ForecastBatch
from pipeline.windows.batch import Windows

SHORTEST = 8
"""Steps that a window needs for a scale of its own."""
GAUSSIAN = (-2.576, -2.326, -1.96, -1.645, -1.282, -0.842, -0.524, -0.253, 0.0)
"""Quantiles of the normal distribution for the first half of LEVELS, in standard deviations."""
MEAN_DEVIATION = 0.798
"""The mean absolute deviation of a normal distribution, in standard deviations."""

Reals = npt.NDArray[np.float64]
Places = slice | npt.NDArray[np.int64]
"""Of some windows in a batch."""


class GradedBatch:
    """The windows of a micro-batch, of several partitions; then what is to be written besides their forecasts."""

    def __init__(self, grading: Grading, parts: Sequence[GradedPart]) -> None:
        self._grading, self._live, self._parts = grading, grading.live, parts
        found = [part.grades.rows(part.windows) for part in parts]
        self._gone = [gone for _, gone in found]
        sizes = [len(part.windows) for part in parts]
        of = np.repeat(np.arange(len(parts)), sizes)
        order = np.lexsort((of, np.concatenate([np.arange(size) for size in sizes])))
        self._of, self._rows = of[order], np.concatenate([rows for rows, _ in found])[order]
        together = Windows.concat([part.windows for part in parts])
        self._windows = together if len(parts) == 1 else together.chosen(order)
        self._pending = np.flatnonzero(np.concatenate([part.pending for part in parts])[order])
        self._at = self._done = 0
        self._written: list[tuple[int, Message]] = []
        self._card = grading.card
        self._cards, self._version = [grading.card], np.zeros(0, np.int64)
        """Of the versions that the windows were forecast by, and the number of each window's, if there are several."""

    @property
    def pending(self) -> tuple[Windows, list[int]]:
        """The windows that are to be forecast, the parts taking turns, so that many series are graded at once; and the
        part of each.
        """
        of = self._of[self._pending].tolist()
        return (self._windows if len(of) == len(self._windows) else self._windows.chosen(self._pending)), of

    def complete(self, forecast: ForecastBatch, failed: Collection[int]) -> ForecastBatch:
        """Grade the windows up to the last of the next forecasts, and complete these.

        The pending windows whose numbers have `failed` have none.
        """
        first, self._done = self._done, self._done + len(forecast)
        rows = self._pending[first : self._done]
        stop = int(rows[-1]) + 1
        kept = rows - self._at
        values = np.full((stop - self._at, self._live.targets, len(self._live.steps)), np.nan)
        values[kept] = forecast.forecast[:, np.array(self._live.steps) - 1].transpose(0, 2, 1)
        values[kept[[each - first for each in failed if first <= each < self._done]]] = np.nan
        by = np.zeros(stop - self._at, np.uint32)
        numbers = {model: self._grading.identify(model) for model in set(forecast.model)}
        by[kept] = [numbers[model] for model in forecast.model]
        by[np.isnan(values).all(axis=(1, 2))] = 0
        margins, anomaly = self._grade(stop, values, by)
        return self._completed(forecast, margins[kept], anomaly[kept])

    def _completed(self, forecast: ForecastBatch, margins: npt.NDArray[np.float32], anomaly: Reals) -> ForecastBatch:
        """A batch of forecasts with their intervals and anomalies."""
        live, rest = self._live, dict[str, Any]()
        if live.intervals:
            below, above = margins.transpose(2, 0, 3, 1)
            lower, upper = bounds(forecast.forecast, below, above, live.clipped)
            rest |= {"coverage": live.coverage, "lower": lower, "upper": upper}
        if live.anomalies:
            rest |= {"anomaly": [None if score != score else score for score in np.round(anomaly, 3).tolist()]}
        return replace(forecast, **rest)

    def grade_issued(self, issued: Mapping[tuple[int, str, int], Issued]) -> None:
        """Grade all windows, with what was written of them, by (offset, series, ts)."""
        windows, live = self._windows, self._live
        values = np.full((len(windows), live.targets, len(live.steps)), np.nan)
        by = np.zeros(len(windows), np.uint32)
        version, versions = np.zeros(len(windows), np.int64), dict[str, int]()
        identities = zip(windows.offset.tolist(), windows.series, windows.ts.tolist(), strict=True)
        for place, identity in enumerate(identities):
            if (written := issued.get(identity)) is not None:
                values[place], by[place] = written.forecast, self._grading.identify(written.model)
                version[place] = versions.setdefault(written.version, len(versions))
        if versions:
            self._cards, self._version = [self._grading.card_of(each) for each in versions], version
        self._grade(len(windows), values, by)

    def _grade(self, stop: int, values: Reals, by: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.float32], Reals]:
        """Grade the windows up to `stop`: the margins of their forecasts, and how their values fitted."""
        first, self._at = self._at, stop
        part, live = self._windows.part(first, stop), self._live
        columns = self._card.target_columns
        graded = grade(
            live,
            Observed(
                row=self._rows[first:stop],
                step=part.step,
                ts=part.ts,
                value=part.x[:, -1, columns],
                forecast=values,
                naive=self._of_cards(slice(first, stop), self._naive),
                by=by,
            ),
            lambda places: self._of_cards(first + places, self._first_margins),
        )
        for place, bucket in graded.buckets:
            self._add_scores(first + place, bucket)
        for place, target, finding in graded.findings:
            self._add_finding(first + place, target, finding)
        return graded.margins, graded.anomaly

    def _of_cards(self, places: Places, compute: Callable[[Card, Places], Reals]) -> Reals:
        """What is computed of windows and the card of the version that each was forecast by."""
        if len(self._cards) == 1:
            return compute(self._cards[0], places)
        chosen = np.arange(len(self._windows))[places]
        version = self._version[chosen]
        numbers = np.unique(version).tolist()
        parts = np.concatenate([compute(self._cards[each], chosen[version == each]) for each in numbers])
        result = np.empty_like(parts)
        result[np.argsort(version, kind="stable")] = parts
        return result

    def _naive(self, card: Card, places: Places) -> Reals:
        """The seasonal naive's forecasts (N,O,H) for the scored steps."""
        x, length = self._windows.x[places], self._windows.length[places]
        ahead, lag = np.array(self._live.steps), card.input.scoring_lag
        naive = naive_of_windows(x, length, card.target_columns, ahead, lag)
        return np.asarray(naive.transpose(0, 2, 1), np.float64)

    def _first_margins(self, card: Card, places: Places) -> Reals:
        return first_margins(card, self._live, self._windows.x[places], self._windows.length[places])

    def _source(self, place: int) -> tuple[int, int]:
        """The part and the input offset of a window."""
        return int(self._of[place]), int(self._windows.offset[place])

    def _add_scores(self, place: int, bucket: Bucket) -> None:
        part, offset = self._source(place)
        self._written.append((part, self._scores(self._windows.series[place], bucket, offset)))

    def _scores(self, series: str, bucket: Bucket, offset: int) -> Message:
        live = self._live
        live.tally.add_bucket(bucket)
        return scores_message(series, bucket, self._card, live.steps, live.coverage, self._grading.models, offset)

    def _add_finding(self, place: int, target: int, finding: Finding) -> None:
        (part, offset), names = self._source(place), self._card.output.targets
        name = names[target] if len(names) > 1 else None
        self._live.tally.findings[finding.kind, finding.phase] += 1
        self._written.append((part, finding_message(self._windows.series[place], name, finding, offset)))

    def messages(self) -> list[list[Message]]:
        """All that is to be written besides forecasts, of each part in the order of the input."""
        if self._at < len(self._windows):
            rest = len(self._windows) - self._at
            values = np.full((rest, self._live.targets, len(self._live.steps)), np.nan)
            self._grade(len(self._windows), values, np.zeros(rest, np.uint32))
        for part, (given, gone) in enumerate(zip(self._parts, self._gone, strict=True)):
            for series, row, offset in gone:
                if bucket := self._live.finish(row):
                    self._written.append((part, self._scores(series, bucket, offset)))
            self._written += [(part, silence_message(each)) for each in given.silences]
            self._live.tally.findings.update(("gap", "end" if each.ended else "begin") for each in given.silences)
        parts: list[list[Message]] = [[] for _ in self._parts]
        for part, message in sorted(self._written, key=lambda each: (each[0], each[1].offset)):
            parts[part].append(message)
        return parts


def replay(grading: Grading, part: GradedPart, issued: Mapping[tuple[int, str, int], Issued]) -> None:
    """Bring the state up to date by windows that were forecast before, and by what was written of them.

    `issued` are by the window's offset, series and ts.
    """
    tally, grading.live.tally = grading.live.tally, Tally()
    graded = GradedBatch(grading, [part])
    graded.grade_issued(issued)
    graded.messages()
    grading.live.tally = tally


def first_margins(card: Card, live: Live, x: Reals, length: npt.NDArray[np.int64]) -> Reals:
    """The margins (N,O,H,2) with which series begin: the model's errors in validation, by the scale of each window.

    `x` (N,S,F) are the windows of their first forecasts, `length` (N,) how many steps of each are the series' own.
    """
    residuals = card.residuals or unknown_residuals(card, live.steps)
    targets = winsorised(x, Levels.of(card).spans)[:, :, card.target_columns]
    scale = np.stack([window_scale(targets[..., target]) for target in range(live.targets)], axis=1)
    if card.residuals:
        scale[length < SHORTEST] = np.nan
    margins = residuals.margins(live.coverage or 0.0, scale.reshape(-1))
    return margins.reshape(len(x), live.targets, len(live.steps), 2)


def unknown_residuals(card: Card, steps: tuple[int, ...]) -> Residuals:
    """Of a model without any in its card: as if it forecast the mean of the window, with normal errors."""
    deviations = np.array([*GAUSSIAN, *(-level for level in reversed(GAUSSIAN[:-1]))]) / MEAN_DEVIATION
    quantiles = (tuple(deviations.tolist()),) * len(steps)
    targets = card.output.targets
    return Residuals(
        levels=LEVELS, steps=steps, quantiles=dict.fromkeys(targets, quantiles), typical=dict.fromkeys(targets, 0.0)
    )
