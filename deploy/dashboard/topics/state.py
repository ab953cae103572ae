"""All that the page knows: what is made of each topic's records. Filled by one thread, read by others, under a lock."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from deploy.dashboard.topics.alerts import OpenAlerts
from deploy.dashboard.topics.events import Values
from deploy.dashboard.topics.fleet import Fleet
from deploy.dashboard.topics.graded import Graded
from deploy.dashboard.topics.letters import Letters
from deploy.dashboard.topics.messages import Models, Output, blob, decode_output, of_target
from deploy.dashboard.topics.service import Service
from deploy.dashboard.topics.store import Store
from deploy.dashboard.topics.texts import Texts
from pipeline.formats.alerts import decode_alert
from pipeline.formats.columnar.forecasts import each_forecast
from pipeline.formats.dead_letters import InvalidEvent, read_dead_letter
from pipeline.formats.headers import MODEL, read_headers
from pipeline.formats.paths import Paths
from pipeline.formats.scores import decode_scores
from pipeline.formats.texts import TextDecoder
from pipeline.log import Record
from pipeline.state.records import PARTITION_KEY, decode_partition
from tidecast.errors import StateError

ROW_BYTES = 40
"""About what a row takes in the store besides blobs."""

StoredRow = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """A service's topics and group, and how its events are read."""

    input: str
    output: str
    group: str | None
    features: tuple[str, ...] | None = None
    paths: Paths = field(default_factory=Paths)

    @property
    def named(self) -> dict[str, str]:
        """All topics by what they hold; those that others are understood by come first."""
        names = {"scores": f"{self.output}-scores", "output": self.output, "input": self.input}
        names |= {kind: f"{self.output}-{kind}" for kind in ("alerts", "shadow")}
        if self.group:
            names |= {"dead_letters": f"{self.group}-dead-letters", "state": f"{self.group}-state"}
        return names


class State:
    """What was read so far: of the past from the end backwards, then what comes."""

    def __init__(self, topics: Topics, store: Store | None = None) -> None:
        self.lock = threading.RLock()
        self.topics, self.store = topics, store or Store()
        self.fleet, self.graded, self.models, self.texts = Fleet(), Graded(self.store), Models(), Texts()
        self.service, self.values = Service(), Values(topics.features, topics.paths)
        self.is_text = topics.output.endswith("-labels")
        self.letters = Letters()
        self.open_alerts = OpenAlerts()
        self.newest_event: int | None = None
        """The newest event's time, epoch milliseconds."""
        self.checkpoints: dict[int, tuple[int, int]] = {}
        """By partition: the newest one's time and position."""
        self.unreadable = Counter[str]()
        """Records that are not what their topic should hold, by the topic's kind."""
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

    def take(self, kind: str, records: Sequence[Record], *, live: bool) -> None:
        """Take a topic's records: `live` ones were written while it was read, others are older than all before."""
        if not records:
            return
        if kind in ("output", "shadow"):
            records = list(each_forecast(records))
        with self.lock:
            if live:
                self.service.count(kind, records)
            else:
                self.service.count_past(kind, records)
            self._takers[kind](records if live else records[::-1], live)

    def skip(self, kind: str, later: int, lost: int) -> None:
        """Of what comes so many records are read later, or never."""
        with self.lock:
            self.service.count_skipped(kind, later, lost=False)
            self.service.count_skipped(kind, lost, lost=True)

    def forget(self, kind: str) -> None:
        """A topic was deleted or made anew: what is counted of it begins again."""
        with self.lock:
            if kind == "dead_letters":
                self.letters = Letters()
            elif kind == "state":
                self.checkpoints.clear()
            elif kind == "alerts":
                self.open_alerts.clear()
            elif kind == "scores":
                self.graded.clear(self.fleet)
            elif kind == "output":
                self.models.by_partition.clear()
                self.models.answers.clear()
                for track in self.fleet.tracks.values():
                    track.swaps.newest = track.swaps.oldest = None

    def _take_input(self, records: Sequence[Record], _: bool) -> None:
        if self.is_text:
            for record in records:
                with suppress(InvalidEvent):
                    if record.value is not None:
                        self.texts.add_text(record, self._texts.decode(record)[0].text)
            self._note_event(max(record.timestamp for record in records))
            return
        rows, read, track_of = list[tuple[int, int, float]](), self.values.read, self.fleet.track
        for record in records:
            for series, target, ts, value in read(record):
                if (track := track_of(series, target)) is not None:
                    rows.append((track.number, ts, value))
                    track.add_value(ts, value)
        if rows:
            self._note_event(max(ts for _, ts, _ in rows))
        self.store.values.add(rows, ROW_BYTES * len(rows))

    def _note_event(self, ts: int) -> None:
        self.newest_event = ts if self.newest_event is None else max(ts, self.newest_event)

    def _take_output(self, records: Sequence[Record], live: bool) -> None:
        if live:
            self.service.note_latency(records)
        rows = list[StoredRow]()
        for record, out in self._outputs(records, "output"):
            if out.label is not None:
                self.is_text = True
                self.texts.add_label(record, out, newest=live)
                self.models.note(record.partition, record.offset, record.timestamp, self._model(record, out))
            else:
                rows += self._forecast_rows(record, out)
        self.store.forecasts.add(rows, _size(rows))

    def _outputs(self, records: Sequence[Record], kind: str) -> Iterator[tuple[Record, Output]]:
        """Those that are forecasts or labels."""
        for record in records:
            try:
                out = decode_output(record.value or b"")
            except (msgspec.MsgspecError, UnicodeDecodeError):
                out = Output()
            if out.label is None and None in (out.series, out.ts, out.forecast):
                self.unreadable[kind] += 1
            else:
                yield record, out

    def _model(self, record: Record, out: Output) -> int:
        return self.models.number(out.model, read_headers(record.headers).get(MODEL, ""))

    def _forecast_rows(self, record: Record, out: Output, *, shadow: bool = False) -> list[StoredRow]:
        """A forecast by target; only of those that are no `shadow`'s the fleet is told."""
        series, ts, forecast = out.series, out.ts, out.forecast
        assert series is not None
        assert ts is not None
        model, rows = self._model(record, out), list[StoredRow]()
        swaps = not shadow and out.source != "naive"
        if swaps:
            self.models.note(record.partition, record.offset, ts, model)
        named = forecast if isinstance(forecast, dict) else {"": forecast or []}
        if len(named) > 1 and not self.values.targets:
            self.values.targets = tuple(named)
        about = ts, out.start, out.step, model, out.anomaly, out.coverage, out.source, record.partition, record.offset
        for target, values in named.items():
            lower, upper = of_target(out.lower, target), of_target(out.upper, target)
            if (track := self.fleet.track(series, target)) is None:
                continue
            track.partition = record.partition
            if not shadow and (track.made is None or ts >= track.made):
                track.set_forecast(out, ts, values, lower, upper)
            if swaps:
                track.swaps.note(record.offset, ts, model)
            rows.append((track.number, *about, blob(values), blob(lower), blob(upper)))
        return rows

    def _take_scores(self, records: Sequence[Record], live: bool) -> None:
        for record in records:
            try:
                scores = decode_scores(bytes(record.value or b""))
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.unreadable["scores"] += 1
                continue
            if scores.scale and not self.values.targets:
                self.values.targets = tuple(scores.scale)
            self.graded.add(record, scores, self.fleet, newest=live)

    def _take_alerts(self, records: Sequence[Record], _: bool) -> None:
        rows, size = list[StoredRow](), 0
        for record in records:
            value = bytes(record.value or b"")
            try:
                alert = decode_alert(value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.unreadable["alerts"] += 1
                continue
            rows.append((alert.series, alert.since, alert.kind, alert.phase, alert.target or "", alert.ts, value))
            size += len(value) + 3 * ROW_BYTES
            self.fleet.add_alert(alert)
            self.open_alerts.add(alert)
        self.store.alerts.add(rows, size)

    def _take_letters(self, records: Sequence[Record], live: bool) -> None:
        for record in records:
            if (letter := read_dead_letter(record)) is None:
                self.unreadable["dead_letters"] += 1
                continue
            reason = self.letters.add(letter, newest=live)
            self.service.refused.add(reason, 1, None if live else record.timestamp / 1000)

    def _take_state(self, records: Sequence[Record], _: bool) -> None:
        for record in records:
            if record.key == PARTITION_KEY and record.value is not None:
                with suppress(StateError):
                    found = record.timestamp, decode_partition(bytes(record.value)).position
                    self.checkpoints[record.partition] = max(found, self.checkpoints.get(record.partition, found))

    def _take_shadow(self, records: Sequence[Record], _: bool) -> None:
        rows = list[StoredRow]()
        for record, out in self._outputs(records, "shadow"):
            rows += self._forecast_rows(record, out, shadow=True) if out.label is None else []
        self.store.shadow.add(rows, _size(rows))


def _size(rows: Sequence[StoredRow]) -> int:
    """About how many bytes forecasts take in the store."""
    return sum(3 * ROW_BYTES + sum(len(each) for each in row[-3:] if isinstance(each, bytes)) for row in rows)
