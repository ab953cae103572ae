"""From records to events, in one place for all readers of a topic: serving, training, check, explain.

A codec is a function that decodes one record into its events, one or several. Another envelope, or a columnar format,
needs another codec and nothing else. What was read from which fields, and what could not be read, is kept to be said.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeAlias

from pipeline.formats.columnar.points import Points
from pipeline.formats.dead_letters import InvalidEvent, one_line
from pipeline.formats.names import Fields, Found, plain, shown, step
from pipeline.formats.paths import KEY, Paths
from pipeline.formats.series import CERTAIN, FROM_KEY, KINDS, key_differs, may_be_part
from pipeline.formats.times import unused_times
from pipeline.formats.values import other_numbers, telling
from pipeline.log import Record

Decode: TypeAlias = Callable[[Record], Sequence[Any]]
"""Decodes a record's events, in order. Raises InvalidEvent. It is not called for tombstones."""

FROM_RECORD = "the record's timestamp"
DESCRIBED = 100
"""Records of each partition of which it is said from which fields they are read; of others only what is new."""
MAX_KEPT = 65_536
"""Most series whose kinds are remembered, and most events that are compared."""
MIN_NAMES = 20
"""Fewest events of which it is said that each has a series of its own."""
_GENERATED = re.compile(r"[0-9a-fA-F-]{16,}")
MAX_READINGS = 50
"""Most ways to read records that are told apart."""


Decoded: TypeAlias = tuple[Record, Sequence[Any], InvalidEvent | None]
"""A record with its events, or with its error if it is invalid; a tombstone has neither.

A columnar one is followed by each of its rows that is invalid, as a record of its own.
"""


def decode_records(records: Iterable[Record], decode: Decode) -> Iterator[Decoded]:
    """Decode records, in order. An invalid one does not raise: its error is in the result."""
    for record in records:
        try:
            events = () if record.value is None else decode(record)
        except InvalidEvent as error:
            yield record, (), error.with_traceback(None)  # a cycle, which would keep the whole batch in memory
        else:
            yield record, events, None
            if type(events) is Points:
                yield from ((row, (), refused) for row, refused in events.invalid)


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


class Sources(NamedTuple):
    """From which fields of a record an event was read."""

    fields: Fields
    series: Found
    time: Found
    form: str
    """How the time was written."""
    values: list[Found]
    paths: Paths

    def __str__(self) -> str:
        text = ", decimal text" if any(isinstance(value.value, str) for value in self.values) else ""
        form = f", {self.form}" if self.form else ""
        values = ", ".join(value.name for value in self.values)
        return f"series from {self.series.name}; time from {self.time.name}{form}; value from {values}{text}"

    def alerts(self, key: str | None) -> Iterator[str]:
        """What may be elsewhere; `key` is the series that the record's key names."""
        if self.time.name == FROM_RECORD and self.paths.ts is None:
            for path in islice(unused_times(self.fields.given), 1):
                yield f'`{path}` looks like a time and is not used: [decode] ts = "{path}" takes it'
        if not self.paths.series and self.series.name != FROM_KEY and key_differs(self.series, key):
            yield f'series from {self.series.name}, and the key is another: [decode] series = "{KEY}" takes it'

    def questions(self) -> Iterator[str]:
        """What can be read in two ways."""
        value = self.values[0]
        yield from filter(None, (self.series.question, self.time.question))
        if value.question:
            for path in islice(other_numbers(self.fields, self.series.name, value.name), 1):
                yield f'is the value {value.name} or `{path}`? [decode] value = "{path}", or the path of the other'


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

    _seen: set[str] = field(default_factory=set)
    _notes: dict[Note, bool] = field(default_factory=dict)
    """Whether each has been taken."""
    _guessed: dict[str, str] = field(default_factory=dict)
    _kinds: dict[tuple[str, str], str] = field(default_factory=dict)
    _several: set[str] = field(default_factory=set)
    _comparing: bool = False
    _names: list[tuple[str, str]] = field(default_factory=list)
    _at: dict[tuple[str, int], tuple[Mapping[str, Any], tuple[float, ...]]] = field(default_factory=dict)

    @contextmanager
    def compared(self) -> Iterator[None]:
        """Events that are added meanwhile are compared with others of their series and time, and said to differ."""
        self._comparing = True
        self._names.clear()
        yield
        self._comparing = False
        source, names = (self._names[0][0], {name for _, name in self._names}) if self._names else ("", set())
        of_messages = source == "`id`" or (source == FROM_KEY and all(map(_GENERATED.fullmatch, names)))
        if of_messages and len(names) == len(self._names) >= MIN_NAMES:
            each = f"each of {len(names)} events is of a series of its own by {source}, which may be a message's"
            self._note("alert", f'{each}: [decode] series = "$..." says which field names it')

    def add(self, sources: Sources, event: Any, key: str | None) -> None:
        """An event, and the series that its record's key names."""
        read, named = str(sources), sources.series
        if read not in self._seen and len(self._seen) < MAX_READINGS:
            self._seen.add(read)
            self._note("read", read)
            self._check(sources, key)
        if (guessed := sources.values[0].question) and guessed not in self._guessed:
            self._guessed[guessed] = sources.values[0].name
            if len(self._guessed) > 1:
                one, other = list(self._guessed.values())[:2]
                self._note("question", f"is the value {one} or {other}? --features or [decode] value says")
        if sources.paths.series:
            return
        if may_be_part(named):
            self._add_kinds(named.name, event.series, sources.fields)
        if self._comparing:
            self._names.append((named.name, event.series))
            self._check(sources, key)
            self._compare(sources, event)

    def _check(self, sources: Sources, key: str | None) -> None:
        for alert in sources.alerts(key):
            self._note("alert", alert)
        for question in sources.questions():
            self._note("question", question)

    def _add_kinds(self, source: str, series: str, fields: Fields) -> None:
        for short in KINDS & fields.names.keys() - self._several:
            name = fields.names[short]
            kind = fields.given[name]
            kind = str(kind) if isinstance(kind, dict) or type(kind) is int else kind
            if not isinstance(kind, str) or f"`{name}`" == source or len(self._kinds) >= MAX_KEPT:
                continue
            if (first := self._kinds.setdefault((series, short), kind)) != kind:
                self._several.add(short)
                several = (
                    f"is {source} {shown(series)} with `{name}` {shown(first)} and {shown(kind)} one series or two?"
                )
                one = step("$", source.strip("`"))
                self._note("question", f'{several} [decode] series = "{one}", or ["{one}", "{step("$", name)}"]')

    def _compare(self, sources: Sources, event: Any) -> None:
        """A question where two events of a series at one time have other values, and another field that differs.

        Our own names are meant: where they are used, it is an alert.
        """
        source, value, given = sources.series.name, sources.values[0].name, sources.fields.given
        first, values = self._at.setdefault((event.series, event.ts), (given, event.values))
        if first is given or values == event.values or " and " in source or len(self._at) > MAX_KEPT:
            return
        path = KEY if source == FROM_KEY else step("$", source.strip("`"))
        kind: Literal["alert", "question"] = "alert" if plain(source) in CERTAIN else "question"
        for name in telling(first, given):
            if f"`{name}`" in (source, value) or name in self._several:
                continue
            self._several.add(name)
            differ = f"`{name}` {shown(first[name])} and {shown(given[name])}"
            one = f"is {source} {shown(event.series)} at the same time with {differ} one series or two?"
            self._note(kind, f'{one} [decode] series = "{path}", or ["{path}", "{step("$", name)}"]')

    def _note(self, kind: Literal["read", "alert", "question"], text: str) -> None:
        self._notes.setdefault(Note(kind, one_line(text)), False)

    def take(self) -> list[Note]:
        """What has not been taken before."""
        new = [note for note, taken in self._notes.items() if not taken]
        self._notes.update(dict.fromkeys(new, True))
        return new
