"""Grading: each forecast is scored once its actual values are observed, and says how sure it is and how they fitted.

The state is in the checkpoints of the windows, in sections of each series' and partition's record. After a restart it
is brought up to date by the input and by the forecasts that were made of it, as the output topic has them.

B windows   O targets   K horizon steps   H scored steps
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple, Self
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt

from deploy.models.predictor import Predictor
from deploy.settings.serve import ServeConfig, window_config
from model.card import Card
from model.online.live import Live
from model.online.scores import Parked
from pipeline.windows.batch import Section, Sections, Silence, Windows
from pipeline.windows.expiry import Expired, numbered
from pipeline.windows.grid import Bools

logger = logging.getLogger(__name__)

VERSION = 1
PARTITION = "grading"
"""The section of a partition's record with the models' names."""
PARKED = "parked-scores"
FORECASTS, SCORES, INTERVALS, ANOMALIES = "forecasts", "scores", "intervals", "anomalies"
SECTIONS = (FORECASTS, SCORES, INTERVALS, ANOMALIES, PARKED)
"""The sections of a series."""
READABLE = {PARTITION: VERSION, **dict.fromkeys(SECTIONS, VERSION)}
"""The latest versions of sections that can be read."""
HOUR = 3_600_000
BUCKET_STEPS = 10
Reals = npt.NDArray[np.float64]


class _Partition(msgspec.Struct, frozen=True):
    """What a partition's section holds."""

    models: dict[int, str]
    output_id: str
    position: int
    """The end of the output's partition when the checkpoint was written."""
    version: str = ""
    """Which one served then; empty in earlier states."""
    card: Card | None = None
    """Its card: of what is forecast until the next checkpoint, another version may have to find where intervals
    began."""


class Issued(NamedTuple):
    """A forecast as it was written."""

    model: str
    """Its version, or the naive forecast."""
    version: str
    """Of the model that served."""
    forecast: Reals
    """(O,H): what it said for the scored steps."""


class GradedPart(NamedTuple):
    """One partition's part of a micro-batch."""

    grades: "PartitionGrades"
    windows: Windows
    """All that were completed; those of series that are too short for a forecast too."""
    pending: Bools
    """(B,): those that are to be forecast."""
    silences: list[Silence]


class PartitionGrades:
    """The grading of one partition's series: a Companion of its WindowStore."""

    def __init__(self, grading: "Grading") -> None:
        self._grading = grading
        self._rows: dict[str, int] = {}
        self._expired: Expired = []
        self._silences: list[Silence] = []

    def rows(self, windows: Windows) -> tuple[npt.NDArray[np.int64], list[tuple[str, int, int]]]:
        """The row (B,) of each window's series; and the series, row and offset of those that have expired."""
        known, allocate = self._rows, self._grading.live.store.allocate
        if not self._expired:
            rows = [known[name] if name in known else known.setdefault(name, allocate()) for name in windows.series]
            return np.array(rows, np.int64), []
        expired, self._expired = self._expired, []
        rows, gone = numbered(windows.series, expired, known, lambda _: allocate())
        return np.array(rows, np.int64), gone

    def take(self, windows: Windows) -> tuple[Windows, GradedPart]:
        """The windows of a partition that are to be forecast, and all of them to be graded."""
        full = windows.length >= windows.x.shape[1]
        pending = np.ones(len(windows), np.bool_) if self._grading.forecasts_short else full
        chosen = windows if pending.all() else windows.chosen(np.flatnonzero(pending))
        silences, self._silences = self._silences, []
        return chosen, GradedPart(self, windows, pending, silences)

    def release(self) -> None:
        """Forget all series."""
        for row in self._rows.values():
            self._grading.live.release(row)

    def sections(self, series: str) -> Sections:
        """A series' state, a section for each component."""
        row = self._rows.get(series)
        return {} if row is None else self._grading.sections(row)

    def restore(self, series: str, sections: Sections) -> Sections:
        """Set a series' state from its checkpoint; the other sections. What was kept by other settings begins anew."""
        if not sections.keys().isdisjoint(SECTIONS):
            row = self._rows.get(series)
            if row is None:
                row = self._rows[series] = self._grading.live.store.allocate()
            self._grading.restore(row, sections)
        return {name: section for name, section in sections.items() if name not in SECTIONS}

    def expired(self, series: str, place: int, offset: int) -> None:
        """Remember to forget a series, once its windows until then have been graded."""
        self._expired.append((place, series, offset))

    def silent(self, silence: Silence) -> None:
        """Remember to tell of a silence, or of its end."""
        if self._grading.live.anomalies:
            self._silences.append(silence)


class Grading:
    """The grading of a service's forecasts, of all its partitions together."""

    def __init__(self, card: Card, config: ServeConfig) -> None:
        spec, targets = card.input, card.output.targets
        self.card = card
        self.forecasts_short = config.short_series == "naive"
        self.live = Live(
            card.output.horizon,
            len(targets),
            spec.scoring_lag,
            config.coverage,
            (config.score_every or default_bucket(card)) if config.scores else None,
            anomalies=config.alerts,
            clipped=card.output.clipped,
        )
        self.models: dict[int, str] = {}
        self._version, self._cards = "", dict[str, Card]()
        self._kept = self._components()

    @classmethod
    def of(cls, predictor: Predictor, config: ServeConfig) -> Self | None:
        """Of a model's forecasts; None of labels, or if nothing is made of actual values."""
        if not isinstance(predictor.card, Card) or not config.grades:
            return None
        grading = cls(predictor.card, config)
        grading.serve(predictor.label, predictor.card)
        return grading

    def _components(self) -> dict[str, tuple[list[str], bytes]]:
        """The fields of each component's section, and four bytes that differ between settings of different state."""
        live, card = self.live, self.card
        of_all, season = (live.steps, card.output.targets), card.input.scoring_lag
        fields: dict[str, tuple[Iterable[str], object]] = {FORECASTS: (live.memory.fields, of_all)}
        if live.scores:
            fields[SCORES] = live.scores.fields, of_all
        if live.intervals:
            fields[INTERVALS] = ("begun", *live.intervals.fields), (of_all, live.coverage, season)
        if live.anomalies:
            fields[ANOMALIES] = live.anomalies.fields, (of_all, season)
        return {
            name: ([*names], crc32(msgspec.json.encode(settings)).to_bytes(4, "big"))
            for name, (names, settings) in fields.items()
        }

    def sections(self, row: int) -> Sections:
        """The sections of the series at this row."""
        store = self.live.store
        kept = {name: Section(VERSION, mark + store.to_bytes(row, names)) for name, (names, mark) in self._kept.items()}
        if parked := self._parked(row):
            kept[PARKED] = Section(VERSION, msgspec.json.encode(parked))
        return kept

    def _parked(self, row: int) -> list[tuple[int, int, int, list[float]]]:
        scores = self.live.scores
        return [
            (target, number, by, sums.tolist())
            for target in range(self.live.targets)
            for (number, by), sums in sorted((scores.parked.get(row + target, {}) if scores else {}).items())
        ]

    def restore(self, row: int, sections: Sections) -> None:
        """Set the state of the series at this row."""
        store, scores, found = self.live.store, self.live.scores, set[str]()
        for name, (names, mark) in self._kept.items():
            section = sections.get(name)
            if section is not None and section.version == VERSION and section.data[:4] == mark:
                found |= {name} if store.from_bytes(row, names, section.data[4:]) else set()
        if found and INTERVALS not in found:  # what was issued was for another coverage
            self.live.forget_intervals(row)
        if scores and (section := sections.get(PARKED)) and section.version == VERSION:
            for target, number, by, sums in msgspec.json.decode(
                section.data, type=list[tuple[int, int, int, list[float]]]
            ):
                parked: Parked = scores.parked.setdefault(row + target, {})
                parked[number, by] = np.array(sums)

    def partition_section(self, output_id: str, position: int) -> Sections:
        """The section of a partition's record, with where its output ends."""
        kept = _Partition(self.models, output_id, position, self._version, self.card)
        return {PARTITION: Section(VERSION, msgspec.json.encode(kept))}

    def read_partition(self, sections: Sections, output_id: str) -> int | None:
        """Where the forecasts after a checkpoint begin in the output's partition; None if that is not known."""
        section = sections.get(PARTITION)
        if section is None or section.version != VERSION:
            return None
        kept = msgspec.json.decode(section.data, type=_Partition)
        self.models.update(kept.models)
        if kept.card:
            self._cards.setdefault(kept.version, kept.card)
        return kept.position if kept.output_id == output_id else None

    def serve(self, version: str, card: Card) -> None:
        """What is forecast from now on is by this version."""
        self._version, self.card = version, card
        self._cards[version] = card
        self.identify(version)

    def card_of(self, version: str) -> Card:
        """The card of a version that served before; that of the one that serves now where it isn't known."""
        if version not in self._cards:
            self._cards[version] = self.card
            logger.warning(
                f"{version} served after the last checkpoint, and its card is unknown: the intervals of series that "
                f"began then begin as those of {self._version}"
            )
        return self._cards[version]

    def identify(self, model: str) -> int:
        """The number by which a version is known."""
        number = crc32(model.encode()) or 1
        self.models[number] = model
        return number


def default_bucket(card: Card) -> int:
    """The length of a bucket of scores, milliseconds: an hour, or ten steps."""
    grid = window_config(card.input).grid
    return HOUR if grid is None else max(HOUR, BUCKET_STEPS * grid.longest_step)
