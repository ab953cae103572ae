"""Statistics of a topic's newest records: keys, times, partitions, invalid records, event order and spacing."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np

from pipeline.formats.columnar.points import is_columnar
from pipeline.formats.decoding import Decode, Note, Refusals, decode_records, nothing_to_tell
from pipeline.formats.events import Event
from pipeline.log import EventLog, Record
from pipeline.windows.steps import Grid, Ints

SAMPLE_SIZE = 2_000
"""Offsets per partition."""
MIN_VALUES = 10
"""Fewest intervals for a median spacing, and fewest records for a rate."""
PHASE = 0.5
"""How much the times within a step must agree, from 0 to 1, the length of the mean of their directions on a circle."""
RECORD_OVERHEAD = 20
"""Approximate bytes of a record besides its key and value."""


@dataclass(slots=True)
class Sample:
    """Statistics of the newest records of each partition. Tombstones count in `records` only."""

    records: int = 0
    tombstones: int = 0
    keyless: int = 0
    invalid: Refusals = field(default_factory=Refusals)
    """Invalid records, by reason."""
    notes: list[Note] = field(default_factory=list)
    """From which fields events are read."""
    late: int = 0
    """Events of an earlier step than the latest of their series in the partition."""
    duplicate: int = 0
    """Events of the same step as the latest of their series in the partition."""
    lateness: int = 0
    """Most milliseconds that a late event is behind its partition's stream time: the --lateness for all."""
    partitions: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """The partitions with events of each series."""
    values: dict[str, list[tuple[float, ...]]] = field(default_factory=lambda: defaultdict(list))
    """The values of each series' events, as they came."""
    spacing: float | None = None
    """Median time between two consecutive events of a series, in milliseconds; None if there are too few."""
    rate: float | None = None
    """Bytes per millisecond in the busiest partition; None if there are too few records."""
    moved: int = 0
    """Events that the grid puts another number of steps after the one before than steps of the events' own phase do."""
    intervals: int = 0
    """Intervals between two events of a series that has a phase: events of which may be moved."""
    step_rate: float | None = None
    """Steps per millisecond in the busiest partition, those of all series together; None if there are too few."""

    @property
    def valid(self) -> int:
        """How many records are valid events."""
        return self.records - self.tombstones - sum(self.invalid.values())

    @property
    def spread(self) -> list[str]:
        """The series that are in more than one partition."""
        return sorted(series for series, partitions in self.partitions.items() if len(partitions) > 1)


def read_sample(
    log: EventLog,
    topic: str,
    decode: Decode,
    grid: Grid | None = None,
    size: int = SAMPLE_SIZE,
    *,
    describe: Callable[[Iterable[Record]], list[Note]] = nothing_to_tell,
) -> Sample:
    """Read the newest `size` offsets of each partition, decoded as a service would; `grid` defines the steps.

    `describe` tells how records are read.

    Raises UnknownTopic, LogUnavailable.
    """
    sample, intervals, rates, step_rates = Sample(), list[int](), list[float](), list[float]()
    for partition, (start, end) in log.bounds(topic).items():
        batches = log.read(topic, partition, max(start, end - size), end)
        records = [record for batch in batches for record in batch]
        sample.notes += describe(records)
        events = [event for event in _decode(sample, records, decode) if isinstance(event, Event)]
        times: defaultdict[str, set[int]] = defaultdict(set)
        for event in events:
            sample.partitions[event.series].add(partition)
            times[event.series].add(event.ts)
            sample.values[event.series].append(event.values)
        rates += _rate(records, [event.ts for event in events])
        _count_late(sample, events, grid)
        step_rates += _step_rate(times, grid)
        for of_series in times.values():
            intervals += (later - earlier for earlier, later in pairwise(sorted(of_series)))
            if grid is not None:
                _count_moved(sample, np.array(sorted(of_series)), grid)
    sample.spacing = median(intervals) if len(intervals) >= MIN_VALUES else None
    sample.rate = max(rates, default=None)
    sample.step_rate = max(step_rates, default=None)
    return sample


def _rate(records: Sequence[Record], times: Sequence[int]) -> list[float]:
    """Bytes per millisecond of event time, as the records may have been written all at once; empty if unknown."""
    times = times or [record.timestamp for record in records]
    if len(times) < MIN_VALUES or (duration := max(times) - min(times)) <= 0:
        return []
    size = sum(len(record.key or b"") + len(record.value or b"") + RECORD_OVERHEAD for record in records)
    return [size / duration]


def _step_rate(times: Mapping[str, set[int]], grid: Grid | None) -> list[float]:
    """Steps per millisecond of event time; empty if unknown."""
    every = [ts for of_series in times.values() for ts in of_series]
    if len(every) < MIN_VALUES or (duration := max(every) - min(every)) <= 0:
        return []
    steps = (set(times[series]) if grid is None else set(map(grid.index, times[series])) for series in times)
    return [sum(map(len, steps)) / duration]


def _count_moved(sample: Sample, ts: Ints, grid: Grid) -> None:
    """Compare a series' steps with those that it has when its times, as they usually are, are moved away from borders.

    A series whose times are anywhere within the steps has no phase, and is left out.
    """
    length = grid.milliseconds or grid.mean_step
    within = (ts - grid.time(grid.index(ts))) / length % 1
    centre = np.exp(2j * np.pi * within).mean()
    if abs(centre) < PHASE:
        return
    phase = float(np.angle(centre)) / (2 * np.pi)
    if phase < 0 and np.median(within) > 0.5:
        phase += 1
    begins = grid.index(grid.time(1) - round(length / 4)) != 1
    own = grid.index(ts + round((begins / 2 - phase) * length))
    sample.intervals += len(ts) - 1
    sample.moved += int((np.diff(own) != np.diff(grid.index(ts))).sum())


def _decode(sample: Sample, records: Iterable[Record], decode: Decode) -> Iterator[object]:
    """The records' events; counts the records in the sample."""
    for record, events, error in decode_records(records, decode):
        sample.records += 1
        sample.keyless += record.key is None and not is_columnar(record.value)
        sample.tombstones += record.value is None
        if error is not None:
            sample.invalid.add(record, error)
        yield from events


def _count_late(sample: Sample, events: Iterable[Event], grid: Grid | None) -> None:
    """Count a partition's late and duplicate events, in the order of their offsets."""
    latest: dict[str, int] = {}
    stream_time = 0
    for event in events:
        series, ts = event.series, event.ts
        step = ts if grid is None else grid.index(ts)
        ahead = step - latest.get(series, step - 1)
        sample.late += ahead < 0
        sample.duplicate += ahead == 0
        stream_time = max(stream_time, ts)
        if ahead < 0:
            sample.lateness = max(sample.lateness, stream_time - ts)
        else:
            latest[series] = step
