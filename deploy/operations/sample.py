"""A topic's newest records, for what they tell about all of them: keys, times, partitions, what is no event."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from pipeline.formats.decoding import Decode, decode_records
from pipeline.formats.events import Event
from pipeline.log import EventLog, Record
from pipeline.windows.grid import Grid

SIZE = 2_000
"""Records of each partition."""
ENOUGH = 10
"""Fewest spacings, or records, that a median or a rate is taken of."""
OVERHEAD = 20
"""Bytes that a record takes beside its key and value, about."""


@dataclass(slots=True)
class Sample:
    """What the newest records of each partition are. Tombstones are in `records` only."""

    records: int = 0
    tombstones: int = 0
    keyless: int = 0
    invalid: Counter[str] = field(default_factory=Counter)
    """Those that are no events, by their reason."""
    late: int = 0
    """Events of an earlier step than their series had reached in the partition."""
    duplicate: int = 0
    """Events of the step that their series was at."""
    lateness: int = 0
    """The most milliseconds that a late one lies behind its partition's newest: what it takes to wait for it."""
    partitions: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Where each series' events are."""
    spacing: float | None = None
    """The median time between two consecutive events of a series, milliseconds; None of too few."""
    rate: float | None = None
    """Bytes a millisecond in the busiest partition; None of too few."""

    @property
    def valid(self) -> int:
        """How many are events."""
        return self.records - self.tombstones - sum(self.invalid.values())

    @property
    def spread(self) -> list[str]:
        """The series that are in more than one partition."""
        return sorted(series for series, partitions in self.partitions.items() if len(partitions) > 1)


def sample(log: EventLog, topic: str, decode: Decode, grid: Grid | None = None, size: int = SIZE) -> Sample:
    """The newest `size` offsets of each partition, as a service would decode them; steps lie on `grid`.

    Raises UnknownTopic, LogUnavailable.
    """
    found, spacings, rates = Sample(), list[int](), list[float]()
    for partition, (start, end) in log.bounds(topic).items():
        batches = log.read(topic, partition, max(start, end - size), end)
        records = [record for batch in batches for record in batch]
        events = [event for event in _decoded(found, records, decode) if isinstance(event, Event)]
        times: defaultdict[str, set[int]] = defaultdict(set)
        for event in events:
            found.partitions[event.series].add(partition)
            times[event.series].add(event.ts)
        rates += _rate(records, [event.ts for event in events])
        _order(found, events, grid)
        for series in times.values():
            spacings += (later - earlier for earlier, later in pairwise(sorted(series)))
    found.spacing = median(spacings) if len(spacings) >= ENOUGH else None
    found.rate = max(rates, default=None)
    return found


def _rate(records: Sequence[Record], times: Sequence[int]) -> list[float]:
    """Bytes a millisecond, by the events' own times: records may have been written all at once."""
    times = times or [record.timestamp for record in records]
    if len(times) < ENOUGH or (took := max(times) - min(times)) <= 0:
        return []
    return [sum(len(record.key or b"") + len(record.value or b"") + OVERHEAD for record in records) / took]


def _decoded(found: Sample, records: Iterable[Record], decode: Decode) -> Iterator[object]:
    for record, events, error in decode_records(records, decode):
        found.records += 1
        found.keyless += record.key is None
        found.tombstones += record.value is None
        if error is not None:
            found.invalid[error.reason] += 1
        yield from events


def _order(found: Sample, events: Iterable[Event], grid: Grid | None) -> None:
    """Count which of a partition's events its windows would not use, in the order in which they came."""
    newest: dict[str, int] = {}
    stream_time = 0
    for series, ts, _ in events:
        step = ts if grid is None else grid.index(ts)
        ahead = step - newest.get(series, step - 1)
        found.late += ahead < 0
        found.duplicate += ahead == 0
        stream_time = max(stream_time, ts)
        if ahead < 0:
            found.lateness = max(found.lateness, stream_time - ts)
        else:
            newest[series] = step
