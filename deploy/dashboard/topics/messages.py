"""Forecasts and labels of any version, and which models made them."""

from array import array
from dataclasses import dataclass, field

import msgspec

Rows = list[float] | dict[str, list[float]]
LARGEST = 3.4028234e38
MOST_MODELS = 1000
MOST_SWAPS = 50


class Output(msgspec.Struct, gc=False):
    """A forecast or a label; those of earlier versions lack some fields."""

    series: str | None = None
    ts: int | None = None
    start: int | None = None
    step: int | None = None
    forecast: Rows | None = None
    source: str = "model"
    model: str = ""
    coverage: float | None = None
    lower: Rows | None = None
    upper: Rows | None = None
    anomaly: float | None = None
    id: str | int | None = None
    label: str | None = None
    probability: float | None = None


decode_output = msgspec.json.Decoder(Output).decode
"""Raises msgspec.MsgspecError, UnicodeDecodeError."""


def of_target(rows: Rows | None, target: str) -> list[float] | None:
    """One target's values."""
    return rows.get(target) if isinstance(rows, dict) else rows


def blob(values: list[float] | None) -> bytes | None:
    """Values as float32."""
    if values is None:
        return None
    try:
        return array("f", values).tobytes()
    except OverflowError:
        return array("f", [max(-LARGEST, min(LARGEST, value)) for value in values]).tobytes()


def floats(raw: bytes | None) -> list[float] | None:
    """The reverse: each as the decimals that a float32 is sure to hold."""
    if raw is None:
        return None
    values = array("f")
    values.frombytes(raw)
    return [float(f"{value:.7g}") for value in values]


@dataclass(slots=True)
class Answers:
    """How much a model has answered, and its first and last time."""

    count: int
    since: int
    until: int


@dataclass(slots=True)
class Swaps:
    """When another model took over, of forecasts that are read from any position on, forwards or backwards."""

    newest: tuple[int, int, int] | None = None
    """The newest forecast's offset, time, and model."""
    oldest: tuple[int, int, int] | None = None
    found: list[tuple[int, int, int]] = field(default_factory=list)
    """Time, and the models before and since; ascending."""

    def note(self, offset: int, ts: int, model: int) -> None:
        """A forecast."""
        newest, oldest = self.newest, self.oldest
        if newest is None or oldest is None:
            self.newest = self.oldest = offset, ts, model
        elif offset > newest[0]:
            if model != newest[2]:
                self.found.append((ts, newest[2], model))
                del self.found[:-MOST_SWAPS]
            self.newest = offset, ts, model
        elif offset < oldest[0]:
            if model != oldest[2] and len(self.found) < MOST_SWAPS:
                self.found.insert(0, (oldest[1], model, oldest[2]))
            self.oldest = offset, ts, model


class Models:
    """The models that forecast, by number, and when each took over."""

    def __init__(self) -> None:
        self.known: list[tuple[str, str]] = []
        """Label and sha256 of each."""
        self._numbers: dict[tuple[str, str], int] = {}
        self._of_label: dict[str, int] = {}
        self.answers: dict[int, Answers] = {}
        """By number, the naive fallback's left out."""
        self.by_partition: dict[int, Swaps] = {}

    def number(self, label: str, sha256: str) -> int:
        """The number of a model's file; of too many different ones, that of the first."""
        if (found := self._numbers.get((label, sha256))) is None:
            if len(self.known) >= MOST_MODELS:
                return 0
            found = self._numbers[label, sha256] = len(self.known)
            self.known.append((label, sha256))
            self._of_label.setdefault(label, found)
        return found

    def label(self, number: int) -> str:
        """A model's label."""
        return self.known[number][0]

    def note(self, partition: int, offset: int, ts: int, model: int) -> None:
        """A model forecast, at `ts`."""
        if (swaps := self.by_partition.get(partition)) is None:
            swaps = self.by_partition[partition] = Swaps()
        swaps.note(offset, ts, model)
        if (answers := self.answers.get(model)) is None:
            answers = self.answers[model] = Answers(0, ts, ts)
        answers.count += 1
        answers.since, answers.until = min(answers.since, ts), max(answers.until, ts)

    @property
    def labels(self) -> list[str]:
        """The labels, the one that forecast last at the end."""
        return list(dict.fromkeys(map(self.label, sorted(self.answers, key=lambda each: self.answers[each].until))))

    @property
    def name(self) -> str | None:
        """What the model that forecast last is called in the registry."""
        return self.labels[-1].rpartition("/")[0] if self.answers else None

    @property
    def answered(self) -> list[dict[str, object]]:
        """What each has answered, the one that answered first at the beginning; files of one label as one."""
        found: dict[str, Answers] = {}
        for number, own in self.answers.items():
            label = self.label(number)
            all_of = found.setdefault(label, Answers(0, own.since, own.until))
            all_of.count += own.count
            all_of.since, all_of.until = min(all_of.since, own.since), max(all_of.until, own.until)
        ordered = sorted(found.items(), key=lambda each: each[1].since)
        return [{"model": label, "count": one.count, "since": one.since, "until": one.until} for label, one in ordered]

    @property
    def swaps(self) -> list[dict[str, object]]:
        """All swaps; those that partitions made one after another count once."""
        shown = list[dict[str, object]]()
        for ts, before, since in sorted(each for swaps in self.by_partition.values() for each in swaps.found):
            one, other = self.label(before), self.label(since)
            if one != other and (not shown or (shown[-1]["from"], shown[-1]["to"]) != (one, other)):
                shown.append({"ts": ts, "from": one, "to": other})
        return shown

    def named(self, swaps: Swaps) -> list[dict[str, object]]:
        """The swaps of a series."""
        found = [(ts, self.label(before), self.label(since)) for ts, before, since in swaps.found]
        return [{"ts": ts, "from": one, "to": other} for ts, one, other in found if one != other]
