"""What a service observed and forecast of a partition of its input, rebuilt from the topics.

N observed steps   M forecasts   K horizon steps   O targets
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from deploy.settings.serve import window_config
from model.card import Card
from model.evaluation.baselines import naive_of_windows
from pipeline.formats.columnar.forecasts import each_forecast
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import Refusals, decode_records
from pipeline.formats.events import Decoder
from pipeline.formats.forecasts import Forecast, as_array
from pipeline.formats.headers import INPUT, OFFSETS, PROVENANCE, VERSION, parse_origin, read_headers
from pipeline.formats.paths import Paths
from pipeline.log import EventLog, Record
from pipeline.windows.batch import Sections, Silence, Windows
from pipeline.windows.choices import SERIES_LIMIT
from pipeline.windows.expiry import Expired, numbered
from pipeline.windows.streaming import WindowStore

Reals = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Identity = tuple[int, str, int]
"""Of a window: the offset of the record that completed it, its series, and its ts."""
_decode = msgspec.json.Decoder(Forecast).decode


class Source(NamedTuple):
    """A partition of an input topic."""

    topic: str
    partition: int


class Made(NamedTuple):
    """A forecast as it was written."""

    model: str
    version: str
    """Of the model that served."""
    first: int
    """The offset of its window's first record."""
    until: int
    """The end of its horizon, epoch milliseconds."""
    coverage: float
    """NaN without intervals."""
    values: Reals
    """(3,K,O): forecast, lower and upper."""


def read_forecasts(log: EventLog, topic: str, partition: int, refused: Refusals) -> dict[Source, dict[Identity, Made]]:
    """The forecasts on a partition by where their input is; of two for one window the last."""
    found: dict[Source, dict[Identity, Made]] = {}
    for records in log.read(topic, partition, *log.bounds(topic)[partition]):
        for record in each_forecast(records):
            try:
                source, identity, made = _made(record)
            except InvalidEvent as error:
                refused.add(record, error)
            else:
                found.setdefault(source, {})[identity] = made
    return found


def _made(record: Record) -> tuple[Source, Identity, Made]:
    headers = read_headers(record.headers)
    origin = parse_origin(headers.get(INPUT, ""), headers.get(OFFSETS, ""))
    if origin is None or VERSION not in headers:
        raise InvalidEvent("schema", f"no header {PROVENANCE} with {INPUT}, {OFFSETS} and {VERSION}")
    try:
        forecast = _decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent("schema", str(error)) from None
    values = as_array(forecast.forecast)
    none = np.full_like(values, np.nan)
    bounds = [none if each is None else as_array(each) for each in (forecast.lower, forecast.upper)]
    made = Made(
        forecast.model,
        headers[VERSION],
        origin.first,
        forecast.start + len(values) * forecast.step,
        np.nan if forecast.coverage is None else forecast.coverage,
        np.stack([values, *bounds]),
    )
    return Source(origin.topic, origin.partition), (origin.last, forecast.series, forecast.ts), made


@dataclass(slots=True)
class Lives:
    """The series of a store, a number for each life: a series that expires and comes back has another one."""

    series: list[str] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    _current: dict[str, int] = field(default_factory=dict)
    _expired: Expired = field(default_factory=list)

    def sections(self, series: str) -> Sections:
        """None: there is no checkpoint."""
        return {}

    def restore(self, series: str, sections: Sections) -> Sections:
        """None are its own."""
        return sections

    def expired(self, series: str, place: int, offset: int) -> None:
        """The life ends after `place` windows."""
        self._expired.append((place, series, offset))

    def silent(self, silence: Silence) -> None:
        """Of no meaning here."""

    def of(self, windows: Windows) -> list[int]:
        """The life of each window's series, (B,)."""
        expired, self._expired = self._expired, []
        found, gone = numbered(windows.series, expired, self._current, self._begin)
        for _, life, _ in gone:
            self.ended[life] = True
        return found

    def _begin(self, series: str) -> int:
        self.series.append(series)
        self.ended.append(False)
        return len(self.series) - 1


@dataclass(slots=True)
class Rebuilt:
    """What was observed of a partition, and forecast."""

    horizon: int = 0
    """K."""
    lives: Lives = field(default_factory=Lives)
    life: list[int] = field(default_factory=list)
    """(N,)."""
    step: list[int] = field(default_factory=list)
    """(N,): by life ascending."""
    ts: list[int] = field(default_factory=list)
    """(N,)."""
    value: list[Reals] = field(default_factory=list)
    """(N,O)."""
    made: list[Made] = field(default_factory=list)
    """(M,)."""
    at: list[int] = field(default_factory=list)
    """(M,): the observed step that each was made from."""
    naive: list[Reals] = field(default_factory=list)
    """(M,K,O): the seasonal naive's."""
    unknown: dict[str, int] = field(default_factory=dict)
    """By series: the time until which some forecast's window can't be rebuilt, epoch milliseconds."""
    lost: int = 0
    """How many those are."""

    def miss(self, series: str, made: Made) -> None:
        """Note a forecast whose window is not the one that it was made from."""
        self.unknown[series] = max(made.until, self.unknown.get(series, made.until))
        self.lost += 1


def rebuild(
    log: EventLog,
    source: Source,
    made: Mapping[Identity, Made],
    card_of: Callable[[str], Card],
    *,
    lateness: int | None = None,
    idle: int | None = None,
    paths: Paths | None = None,
    limit: int = SERIES_LIMIT,
) -> Rebuilt:
    """Read an input partition as a service does, and find each forecast's window.

    `lateness`, `idle`, `paths` and the `limit` of series are the service's; all versions take the same windows.
    """
    some, left = next(iter(made.values())), dict(made)
    card, rebuilt = card_of(some.version), Rebuilt(some.values.shape[1])
    store = WindowStore(window_config(card.input, lateness), idle, limit, short=True, companion=rebuilt.lives)
    decode = Decoder(card.input.features, paths=paths or Paths()).decode
    bounds = log.bounds(source.topic)[source.partition]
    for records in log.read(source.topic, source.partition, *bounds):
        for record, events, _ in decode_records(records, decode):
            for event in events:
                with suppress(InvalidEvent):  # as serving did
                    store.push(event, record.offset)
        _add(rebuilt, store.take(), left, card.target_columns, card_of)
    for (_, series, _), each in left.items():
        rebuilt.miss(series, each)
    if bounds.start:  # a series' first values may be of a bucket that began with what is gone
        firsts: dict[str, int] = {}
        for life, ts in zip(rebuilt.life, rebuilt.ts, strict=True):
            firsts.setdefault(rebuilt.lives.series[life], ts)
        rebuilt.unknown |= {series: max(ts, rebuilt.unknown.get(series, ts)) for series, ts in firsts.items()}
    return rebuilt


def _add(
    rebuilt: Rebuilt,
    windows: Windows,
    left: dict[Identity, Made],
    columns: list[int],
    card_of: Callable[[str], Card],
) -> None:
    """Add observed steps, and those of the forecasts that were made from them: they are no longer `left`."""
    first, found = len(rebuilt.life), list[tuple[int, Made]]()
    identities = zip(windows.offset.tolist(), windows.series, windows.ts.tolist(), strict=True)
    starts = windows.first_offset.tolist()
    for row, identity in enumerate(identities):
        if (made := left.pop(identity, None)) is not None:
            if made.first == max(starts[row], 0):
                found.append((row, made))
            else:
                rebuilt.miss(identity[1], made)
    rebuilt.life += rebuilt.lives.of(windows)
    rebuilt.step += windows.step.tolist()
    rebuilt.ts += windows.ts.tolist()
    rebuilt.value += list(windows.x[:, -1, columns])
    for version in {made.version for _, made in found}:
        rows, of_version = zip(*(each for each in found if each[1].version == version), strict=True)
        rebuilt.made += of_version
        rebuilt.at += [first + row for row in rows]
        card, chosen = card_of(version), windows.chosen(np.array(rows, np.int64))
        horizon, lag = card.output.horizon, card.input.scoring_lag
        rebuilt.naive += list(naive_of_windows(chosen.x, chosen.length, card.target_columns, horizon, lag))
