"""All that the page knows: what is made of each topic's records. Filled by one thread, read by others, under a lock."""

import logging
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from deploy.dashboard.events import Values
from deploy.dashboard.fleet import Fleet, Track
from deploy.dashboard.graded import Graded
from deploy.dashboard.service import Service
from deploy.dashboard.store import Store
from deploy.dashboard.texts import Texts
from pipeline.formats.alerts import decode_alert
from pipeline.formats.dead_letters import DeadLetter, InvalidEvent, read_dead_letter
from pipeline.formats.headers import MODEL
from pipeline.formats.paths import Paths
from pipeline.formats.scores import decode_scores
from pipeline.formats.texts import TextDecoder
from pipeline.log import Record
from pipeline.state.records import PARTITION_KEY, decode_partition
from tidecast.errors import StateError

logger = logging.getLogger(__name__)

LETTERS = 200
"""Newest dead letters that are kept, of each reason."""
ROW_BYTES = 40
MOST_MODELS = 1000
FEATURES = 1000
"""Most models whose labels are kept apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """A service's topics and group; of texts or of measurements."""

    input: str
    output: str
    group: str | None
    features: tuple[str, ...] | None = None
    paths: Paths = field(default_factory=Paths)

    @property
    def named(self) -> dict[str, str]:
        """All topics by what they hold."""
        names = {"input": self.input, "output": self.output}
        names |= {kind: f"{self.output}-{kind}" for kind in ("scores", "alerts", "shadow")}
        if self.group:
            names |= {"dead_letters": f"{self.group}-dead-letters", "state": f"{self.group}-state"}
        return names


class _Output(msgspec.Struct, gc=False):
    """A forecast or a label of any version."""

    series: str | None = None
    ts: int | None = None
    start: int | None = None
    step: int | None = None
    forecast: list[float] | dict[str, list[float]] | None = None
    source: str = "model"
    model: str = ""
    coverage: float | None = None
    lower: list[float] | dict[str, list[float]] | None = None
    upper: list[float] | dict[str, list[float]] | None = None
    anomaly: float | None = None
    id: str | int | None = None
    label: str | None = None
    probability: float | None = None


_decode_output = msgspec.json.Decoder(_Output).decode


class Models:
    """The models that forecast: numbers for the store, and when each began."""

    def __init__(self) -> None:
        self.labels: list[tuple[str, str]] = []
        """Label and sha256 by number."""
        self.numbers: dict[tuple[str, str], int] = {}
        self.newest: dict[str, int] = {}
        """Labels with the newest time that each forecast at."""
        self.swaps: deque[dict[str, object]] = deque(maxlen=200)
        self._current: dict[int, tuple[str, int]] = {}

    def number(self, label: str, sha256: str) -> int:
        """The number of a model."""
        if (found := self.numbers.get((label, sha256))) is None:
            if len(self.labels) >= MOST_MODELS:
                return 0
            found = self.numbers[label, sha256] = len(self.labels)
            self.labels.append((label, sha256))
        return found

    def note(self, partition: int, label: str, ts: int) -> None:
        """A model forecast at `ts`: perhaps it is another one than before."""
        self.newest[label] = max(ts, self.newest.get(label, ts))
        before = self._current.get(partition)
        if before is not None and before[0] != label:
            last = self.swaps[-1] if self.swaps else {}
            if (last.get("from"), last.get("to")) != (before[0], label):
                self.swaps.append({"ts": ts, "from": before[0], "to": label})
        self._current[partition] = label, ts


class State:
    """What was read so far."""

    def __init__(self, topics: Topics, store: Store | None = None) -> None:
        self.lock = threading.RLock()
        self.topics, self.store = topics, store or Store()
        self.fleet, self.graded, self.models, self.texts = Fleet(), Graded(self.store), Models(), Texts()
        self.service = Service()
        self.values = Values(topics.features, topics.paths)
        self.is_text = topics.output.endswith("-labels")
        self.letters: dict[str, deque[tuple[int, DeadLetter, str]]] = {}
        self.reasons = Counter[str]()
        self.checkpoints: dict[int, tuple[int, int]] = {}
        """By partition: the newest one's time and position."""
        self.unreadable = Counter[str]()
        self.version = 0
        """Counts batches of records."""
        self._texts = TextDecoder()
        self._takers: dict[str, Callable[[Sequence[Record], bool], None]] = {
            "input": self._take_input,
            "output": self._take_output,
            "scores": self._take_scores,
            "alerts": self._take_alerts,
            "dead_letters": self._take_letters,
            "state": self._take_state,
            "shadow": self._take_shadow,
        }

    def take(self, kind: str, records: Sequence[Record], live: bool) -> None:
        """Take records of a topic; `live` ones have been written while it was read."""
        with self.lock:
            self._takers[kind](records, live)
            self.version += 1

    def forget(self, kind: str) -> None:
        """A topic was deleted or made anew: what is counted of it begins again."""
        with self.lock:
            if kind == "dead_letters":
                self.letters.clear()
                self.reasons.clear()
            elif kind == "state":
                self.checkpoints.clear()
            elif kind == "scores":
                self.graded.clear(self.fleet)

    def _take_input(self, records: Sequence[Record], live: bool) -> None:
        self.service.count("records", records, live)
        if self.is_text:
            for record in records:
                with suppress(InvalidEvent):
                    if record.value is not None:
                        self.texts.add_text(record, self._texts.decode(record)[0].text)
            return
        rows, read, track_of = list[tuple[int, int, float]](), self.values.read, self.fleet.track
        for record in records:
            for series, target, ts, value in read(record):
                if (track := track_of(series, target)) is None:
                    continue
                rows.append((track.number, ts, value))
                if track.ts is None or ts > track.ts:
                    track.ts, track.value = ts, value
                    track.spark.append(value)
        self.store.values.add(rows, ROW_BYTES * len(rows))

    def _take_output(self, records: Sequence[Record], live: bool) -> None:
        self.service.count("forecasts", records, live)
        if live:
            self.service.note_latency(records)
        rows, size = list[tuple[object, ...]](), 0
        for record in records:
            try:
                out = _decode_output(record.value or b"")
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self.unreadable["output"] += 1
                continue
            if out.label is not None:
                self.is_text = True
                self.texts.add_label(record, out.id, out.label, out.probability or 0.0, out.model)
                self.models.note(record.partition, out.model, record.timestamp)
            elif out.series is not None and out.ts is not None and out.forecast is not None:
                rows += self._forecast_rows(record, out)
            else:
                self.unreadable["output"] += 1
        size = sum(100 + len(row[10]) * 3 for row in rows)  # type: ignore[arg-type]
        self.store.forecasts.add(rows, size)

    def _forecast_rows(self, record: Record, out: _Output) -> list[tuple[object, ...]]:
        assert out.series is not None
        assert out.ts is not None
        assert out.forecast is not None
        sha256 = next((value for name, value in record.headers if name == MODEL), b"")
        model = self.models.number(out.model, (sha256 or b"").decode(errors="replace"))
        if out.source != "naive":
            self.models.note(record.partition, out.model, out.ts)
        named = out.forecast if isinstance(out.forecast, dict) else {"": out.forecast}
        if len(named) > 1 and not self.values.targets:
            self.values.targets = tuple(named)
        rows = list[tuple[object, ...]]()
        for target, forecast in named.items():
            lower = out.lower.get(target) if isinstance(out.lower, dict) else out.lower
            upper = out.upper.get(target) if isinstance(out.upper, dict) else out.upper
            if (track := self.fleet.track(out.series, target)) is None:
                continue
            if track.made is None or out.ts >= track.made:
                _note_forecast(track, out, len(forecast), lower, upper)
            rows.append(
                (
                    *(track.number, out.ts, out.start, out.step, model, out.anomaly, out.coverage, out.source),
                    *(record.partition, record.offset, _blob(forecast), _blob(lower), _blob(upper)),
                )
            )
        return rows

    def _take_scores(self, records: Sequence[Record], _: bool) -> None:
        for record in records:
            try:
                scores = decode_scores(bytes(record.value or b""))
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.unreadable["scores"] += 1
                continue
            if scores.scale and not self.values.targets:
                self.values.targets = tuple(scores.scale)
            self.graded.add(record, scores, self.fleet)

    def _take_alerts(self, records: Sequence[Record], _: bool) -> None:
        rows, size = list[tuple[object, ...]](), 0
        for record in records:
            try:
                alert = decode_alert(record.value or b"")
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.unreadable["alerts"] += 1
                continue
            value = bytes(record.value or b"")
            rows.append((alert.series, alert.since, alert.kind, alert.phase, alert.target or "", alert.ts, value))
            size += len(value) + 100
            for track in self.fleet.of_series(alert.series) or ():
                if alert.target in (None, track.target) and (track.alert is None or alert.ts >= track.alert.ts):
                    track.alert = alert
                    if alert.kind == "gap":
                        track.silent = alert.phase == "begin"
            self.fleet.version += 1
        self.store.alerts.add(rows, size)

    def _take_letters(self, records: Sequence[Record], _: bool) -> None:
        for record in records:
            if (letter := read_dead_letter(record)) is None:
                self.unreadable["dead_letters"] += 1
                continue
            self.reasons[letter.reason] += 1
            if len(self.letters) < 100 or letter.reason in self.letters:
                self.letters.setdefault(letter.reason, deque(maxlen=LETTERS)).append(
                    (record.timestamp, letter, f"{record.topic}/{record.partition}/{record.offset}")
                )

    def _take_state(self, records: Sequence[Record], _: bool) -> None:
        for record in records:
            if record.key == PARTITION_KEY and record.value is not None:
                with suppress(StateError):
                    position = decode_partition(bytes(record.value)).position
                    self.checkpoints[record.partition] = record.timestamp, position

    def _take_shadow(self, records: Sequence[Record], live: bool) -> None:
        self.service.count("shadow", records, live)


def _note_forecast(
    track: Track, out: _Output, horizon: int, lower: list[float] | None, upper: list[float] | None
) -> None:
    track.made, track.step, track.horizon = out.ts, out.step, horizon
    track.model, track.source, track.coverage = out.model, out.source, out.coverage
    track.width = (sum(upper) - sum(lower)) / horizon if lower and upper and horizon else None


def _blob(values: list[float] | None) -> bytes | None:
    """Values as float32."""
    if values is None:
        return None
    try:
        return array("f", values).tobytes()
    except OverflowError:
        return array("f", [max(-3.4e38, min(3.4e38, value)) for value in values]).tobytes()


def now_ms() -> int:
    """The clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000
