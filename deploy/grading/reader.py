"""The live scores on a topic, read in their order; of those written twice the last counts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from deploy.console import printable
from deploy.grading.totals import Totals
from pipeline.formats.dead_letters import InvalidEvent, Reason
from pipeline.formats.decoding import Refusals
from pipeline.formats.headers import OFFSETS
from pipeline.formats.scores import SeriesScores, decode_scores
from pipeline.log import EventLog, Record
from tidecast.times import format_time

Identity = tuple[int, str, int, int, bytes]
"""Of a record: partition, series, start, until, and the input's offset by which it was written: a series that expired
and came back may have another record of the same times."""


NAMED = 5
"""Most series that a message names."""


class Selection(NamedTuple):
    """Which scores are wanted. Times are epoch milliseconds."""

    since: int | None = None
    """Buckets that begin then or later."""
    until: int | None = None
    """Buckets that begin earlier."""
    series: frozenset[str] = frozenset()
    """Empty: all."""

    def chosen(self, series: str) -> bool:
        """Whether a series is among them."""
        return not self.series or series in self.series

    def takes(self, record: SeriesScores) -> bool:
        """Whether a record is among them."""
        since, until = self.since, self.until
        return (
            self.chosen(record.series)
            and (since is None or record.start >= since)
            and (until is None or record.start < until)
        )


@dataclass(slots=True)
class Extent:
    """Which series and times there are, whether wanted or not."""

    selection: Selection
    series: dict[str, None] = field(default_factory=dict)
    first: int | None = None
    """The earliest time of a chosen series, epoch milliseconds."""
    last: int | None = None

    def add(self, series: str, first: int, last: int) -> None:
        """A series has something from `first` to `last`."""
        self.series[series] = None
        if self.selection.chosen(series):
            self.first = first if self.first is None else min(self.first, first)
            self.last = last if self.last is None else max(self.last, last)

    @property
    def unknown(self) -> str:
        """Which of the wanted series are not there, and which are; empty if all are."""
        missing = sorted(self.selection.series - self.series.keys())
        return f"no series {_listed(missing)}; there are: {_listed(sorted(self.series))}" if missing else ""

    @property
    def why_none(self) -> str:
        """Why none of it is wanted; empty if that is not because of the selection."""
        if self.first is None or self.last is None:
            return self.unknown
        since, until = self.selection.since, self.selection.until
        period = [f"from {format_time(since)} on"] if since is not None else []
        period += [f"before {format_time(until)}"] if until is not None else []
        if not period:
            return ""
        there = f"the first are of {format_time(self.first)}, the last of {format_time(self.last)}"
        return f"no scores {' and '.join(period)}: {there}"


def _listed(names: Sequence[str]) -> str:
    more = [f"{len(names) - NAMED:,} more"] if len(names) > NAMED else []
    return ", ".join([*map(printable, names[:NAMED]), *more])


@dataclass(slots=True)
class ScoreReader:
    """The records of a topic of scores. Of two about the same series and bucket the last one counts."""

    log: EventLog
    topic: str
    selection: Selection
    records: dict[Identity, bytes] = field(default_factory=dict)
    refused: Refusals = field(default_factory=Refusals)
    positions: dict[int, int] = field(default_factory=dict)
    total: int = 0
    """Records so far, of other series and times too."""

    totals: Totals = field(default_factory=Totals)
    """Of all records, added up in their order."""
    extent: Extent = field(init=False)

    def __post_init__(self) -> None:
        self.extent = Extent(self.selection)

    def read(self) -> bool:
        """Read what is new; whether anything was."""
        before, again = self.total, False
        for partition, (start, end) in self.log.bounds(self.topic).items():
            for records in self.log.read(self.topic, partition, max(start, self.positions.get(partition, start)), end):
                for record in records:
                    again |= self._add(record)
            self.positions[partition] = end
        if again:
            self.totals = Totals()
            for value in self.records.values():
                self.totals.add(decode_scores(value))
        return self.total > before

    def _add(self, record: Record) -> bool:
        """Add a record; whether it takes the place of another."""
        self.total += 1
        value = bytes(record.value or b"")
        try:
            scores = decode_scores(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            reason: Reason = "schema" if isinstance(error, msgspec.ValidationError) else "malformed_json"
            self.refused.add(record, InvalidEvent(reason, str(error)))
            return False
        self.extent.add(scores.series, scores.start, scores.start)
        if not self.selection.takes(scores):
            return False
        origin = dict(record.headers).get(OFFSETS, b"")
        identity = record.partition, scores.series, scores.start, scores.until, origin
        before = self.records.setdefault(identity, value)
        self.records[identity] = value
        if before is value:
            self.totals.add(scores)
        return before != value
