"""Live scores added up over time: by series, by model version and by step.

H scored steps   M sums of model.online.scores
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from deploy.settings.values import ScoreView
from model.online.scores import SUMS
from pipeline.formats.scores import SeriesScores

Reals = npt.NDArray[np.float64]
POWERS = np.array([0, 2, 1, 2, 1, 0, 0, 1, 1])
"""(M,): of which power of a series' unit each sum is."""


class Key(NamedTuple):
    """What sums are of."""

    series: str
    target: str
    model: str
    steps: tuple[int, ...]


@dataclass(slots=True)
class Part:
    """Sums over a time. Times are epoch milliseconds."""

    sums: Reals
    """(H,M)."""
    since: int
    until: int


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Mean scores of the forecasts of one series, version or step, or of all; None where there are none.

    Errors, widths and Winkler scores of a series are in its own units, others relative to each series' scale: the
    seasonal naive's mean absolute error one step ahead.
    """

    series: str | None = None
    target: str | None = None
    model: str | None = None
    step: int | None = None
    count: int
    mae: float | None
    mse: float | None
    scaled_mae: float | None
    """The mean absolute error relative to the series' scale."""
    naive_mae: float | None
    naive_mse: float | None
    skill: float | None
    """1 - mean absolute error / the naive's."""
    mse_skill: float | None
    """The same of squared errors."""
    coverage: float | None
    """The share of actual values inside their intervals."""
    width: float | None
    winkler: float | None
    unscored: int | None = None
    """Forecasts for steps that were never observed; None by version, of which it is not known."""
    since: int
    until: int


@dataclass(slots=True)
class Totals:
    """Sums by series, target, version and step."""

    parts: dict[Key, Part] = field(default_factory=dict)
    unscored: dict[tuple[str, str, int], int] = field(default_factory=dict)
    """By series, target and step."""
    scale: dict[tuple[str, str], float | None] = field(default_factory=dict)
    """By series and target, the newest."""
    seen: dict[str, None] = field(default_factory=dict)
    """All series, those too that nothing was scored of."""
    coverage: set[float] = field(default_factory=set)
    """Of the intervals."""

    def add(self, record: SeriesScores) -> None:
        """Add a bucket of a series."""
        self.seen[record.series] = None
        if record.coverage is not None:
            self.coverage.add(record.coverage)
        for target, scale in record.scale.items():
            self.scale[record.series, target] = scale
            for step, count in zip(record.steps, record.unscored[target], strict=True):
                self.add_unscored(record.series, target, step, count)
        for scores in record.scores:
            sums = np.array([getattr(scores, name) for name in SUMS], np.float64).T
            key = Key(record.series, scores.target, scores.model, tuple(record.steps))
            self.add_sums(key, sums, record.start, record.until)

    def add_sums(self, key: Key, sums: Reals, since: int, until: int) -> None:
        """Add sums (H,M)."""
        if (part := self.parts.get(key)) is None:
            self.parts[key] = Part(sums, since, until)
        else:
            part.sums += sums
            part.since, part.until = min(part.since, since), max(part.until, until)

    def add_unscored(self, series: str, target: str, step: int, count: int) -> None:
        """Count forecasts whose step was never observed."""
        place = series, target, step
        self.unscored[place] = self.unscored.get(place, 0) + count

    @property
    def without_scores(self) -> int:
        """Series of whose forecasts none was scored."""
        return len(self.seen.keys() - {key.series for key in self.parts})

    @property
    def without_scale(self) -> int:
        """Series, by target, that are left out of what is relative to scales: there is none yet, or it is zero."""
        return len({key[:2] for key in self.parts if not self.scale.get(key[:2])})

    @property
    def targets(self) -> set[str]:
        """All targets."""
        return {key.target for key in self.parts}

    def rows(self, by: ScoreView) -> list[Row]:
        """The scores by series, the worst against the naive first; by version, the oldest first; by step, ascending."""
        order = {"series": _badness, "model": lambda row: row.since, "step": lambda row: row.step}[by]
        return sorted(self._rows(by), key=order)

    def overall(self) -> Row | None:
        """The scores of all; None if none is relative to a scale."""
        return next(self._rows(None), None)

    def _rows(self, by: ScoreView | None) -> Iterator[Row]:
        unscored = Counter[tuple[Hashable, ...]]()
        for (series, target, step), count in self.unscored.items():
            unscored[{"series": (series, target), "step": (step,)}.get(by or "", ())] += count
        for group in _grouped(self._pieces(by), by):
            yield _row(group, None if by == "model" else unscored[tuple(group.identity.values())])

    def _pieces(self, by: ScoreView | None) -> Iterator["_Piece"]:
        """Sums (M,) of each step, in units or relative to the series' scale, in an order that is always the same."""
        for key, part in sorted(self.parts.items()):
            scale = self.scale.get(key[:2]) or None
            if by == "series":
                yield from (
                    _Piece(key, step, sums, scale, part) for step, sums in zip(key.steps, part.sums, strict=True)
                )
            elif scale:
                sums = part.sums / scale**POWERS
                yield from (_Piece(key, step, each, 1.0, part) for step, each in zip(key.steps, sums, strict=True))


class _Piece(NamedTuple):
    key: Key
    step: int
    sums: Reals
    scale: float | None
    part: Part


@dataclass(slots=True)
class _Group:
    identity: dict[str, Any]
    scale: float | None
    since: int
    until: int
    sums: Reals = field(default_factory=lambda: np.zeros(len(SUMS)))


def _grouped(pieces: Iterable[_Piece], by: ScoreView | None) -> Iterable[_Group]:
    groups: dict[Hashable, _Group] = {}
    for key, step, sums, scale, part in pieces:
        if not sums[0]:
            continue
        named: dict[str, Any] = {"series": key.series, "target": key.target, "model": key.model, "step": step}
        names = ("series", "target") if by == "series" else filter(None, (by,))
        identity = {str(name): named[name] for name in names}
        place = tuple(identity.values())
        group = groups.setdefault(place, _Group(identity, scale, part.since, part.until))
        group.sums += sums
        group.since, group.until = min(group.since, part.since), max(group.until, part.until)
    return groups.values()


def _row(group: _Group, unscored: int | None) -> Row:
    sums = dict(zip(SUMS, group.sums.tolist(), strict=True))
    count, intervals = sums["count"], sums["intervals"]
    mae = sums["absolute_error"] / count
    return Row(
        **group.identity,
        count=int(count),
        mae=mae,
        mse=sums["squared_error"] / count,
        scaled_mae=mae / group.scale if group.scale else None,
        naive_mae=sums["naive_absolute_error"] / count,
        naive_mse=sums["naive_squared_error"] / count,
        skill=_skill(sums["absolute_error"], sums["naive_absolute_error"]),
        mse_skill=_skill(sums["squared_error"], sums["naive_squared_error"]),
        coverage=sums["inside"] / intervals if intervals else None,
        width=sums["width"] / intervals if intervals else None,
        winkler=sums["winkler"] / intervals if intervals else None,
        unscored=unscored,
        since=group.since,
        until=group.until,
    )


def _skill(error: float, naive: float) -> float | None:
    return 1 - error / naive if naive else None


def _badness(row: Row) -> tuple[float, float, str, str]:
    """A sort key: what is worse than the naive comes first; where that one has no error, any error is the worst."""
    skill = row.skill if row.skill is not None else -np.inf if row.mae else np.inf
    return skill, -(row.scaled_mae or 0.0), row.series or "", row.target or ""
