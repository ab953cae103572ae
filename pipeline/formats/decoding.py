"""From records to events, in one place for all readers of a topic: serving, training, check, explain.

A codec is a function that decodes one record into its events, one or several. Another envelope, or a columnar format,
needs another codec and nothing else. What was read from which fields, and what could not be read, is kept to be said.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from pipeline.formats.dead_letters import InvalidEvent, one_line
from pipeline.formats.names import Fields, shown, step
from pipeline.formats.series import KINDS
from pipeline.log import Record

Decode: TypeAlias = Callable[[Record], Sequence[Any]]
"""Decodes a record's events, in order. Raises InvalidEvent. It is not called for tombstones."""

DESCRIBED = 100
"""Records of each partition of which it is said from which fields they are read; of others only what is new."""
MAX_KEPT = 65_536
"""Most series whose kinds are remembered."""
MAX_READINGS = 50
"""Most ways to read records that are told apart."""


Decoded: TypeAlias = tuple[Record, Sequence[Any], InvalidEvent | None]
"""A record with its events, or with its error if it is invalid; a tombstone has neither."""


def decode_records(records: Iterable[Record], decode: Decode) -> Iterator[Decoded]:
    """Decode records, in order. An invalid one does not raise: its error is in the result."""
    for record in records:
        try:
            events = () if record.value is None else decode(record)
        except InvalidEvent as error:
            yield record, (), error
        else:
            yield record, events, None


class Refusals(Counter[str]):
    """Counts of invalid records by reason, with the first of each."""

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, str] = {}

    def add(self, record: Record, error: InvalidEvent) -> None:
        """Count one."""
        self[error.reason] += 1
        if error.reason not in self._first:
            self._first[error.reason] = f"{error.detail} (partition {record.partition}, offset {record.offset})"

    def in_words(self) -> list[str]:
        """A line for each reason, the most frequent first."""
        return [f"{count:,} {reason}, such as: {self._first[reason]}" for reason, count in self.most_common()]


class Reading(NamedTuple):
    """What an event was read from, for people, and what may be wrong about that."""

    series: str
    time: str
    value: str
    unused: str = ""
    """The path of a field that looks like a time, where the time is the record's own."""
    questions: tuple[str, ...] = ()
    """What can be read in two ways."""

    def __str__(self) -> str:
        return f"series from {self.series}; time from {self.time}; value from {self.value}"


class Note(NamedTuple):
    """A line about how records are read: as said, with an alert, or in one of two ways."""

    kind: Literal["read", "alert", "question"]
    text: str


def nothing_to_tell(_: Iterable[Record]) -> list[Note]:
    """Of records that can be read in one way only."""
    return []


@dataclass(slots=True)
class Readings:
    """All the ways in which a decoder has read records, each told once."""

    _seen: set[Reading] = field(default_factory=set)
    _notes: dict[Note, bool] = field(default_factory=dict)
    """Whether each has been taken."""
    _guessed: dict[str, str] = field(default_factory=dict)
    _kinds: dict[tuple[str, str], str] = field(default_factory=dict)
    _several: set[str] = field(default_factory=set)

    def add(self, reading: Reading, series: str, guessed: str, kinds: Fields | None) -> None:
        """An event of this series. `guessed` is the name of a number that was taken as it is the only one.

        `kinds` are its fields, where the series' own field may be a part of its name only.
        """
        if reading not in self._seen and len(self._seen) < MAX_READINGS:
            self._seen.add(reading)
            self._note("read", str(reading))
            for question in reading.questions:
                self._note("question", question)
            if reading.unused:
                looks = f"`{reading.unused}` looks like a time and is not used"
                self._note("alert", f'{looks}: [decode] ts = "{reading.unused}" takes it')
        if guessed and guessed not in self._guessed:
            self._guessed[guessed] = reading.value
            if len(self._guessed) > 1:
                one, other = list(self._guessed.values())[:2]
                self._note("question", f"is the value {one} or {other}? --features or [decode] value says")
        if kinds is not None:
            self._add_kinds(reading.series, series, kinds)

    def _add_kinds(self, source: str, series: str, fields: Fields) -> None:
        for short in KINDS & fields.names.keys() - self._several:
            name = fields.names[short]
            kind = fields.given[name]
            if not isinstance(kind, str) or f"`{name}`" == source or len(self._kinds) >= MAX_KEPT:
                continue
            if (first := self._kinds.setdefault((series, short), kind)) != kind:
                self._several.add(short)
                several = (
                    f"is {source} {shown(series)} with `{name}` {shown(first)} and {shown(kind)} one series or two?"
                )
                one = step("$", source.strip("`"))
                self._note("question", f'{several} [decode] series = "{one}", or ["{one}", "{step("$", name)}"]')

    def _note(self, kind: Literal["read", "alert", "question"], text: str) -> None:
        self._notes.setdefault(Note(kind, one_line(text)), False)

    def take(self) -> list[Note]:
        """What has not been taken before."""
        new = [note for note, taken in self._notes.items() if not taken]
        self._notes.update(dict.fromkeys(new, True))
        return new
