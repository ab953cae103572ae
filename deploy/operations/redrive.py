"""Repaired dead letters, back to where they came from: all of a file is checked before anything is sent."""

import hashlib
import logging
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from deploy.console import printable, progress
from deploy.settings.files import open_log
from pipeline.formats.dead_letters import DeadLetter, raw
from pipeline.formats.decoding import Decode
from pipeline.formats.errors import InvalidEvent
from pipeline.formats.events import Decoder
from pipeline.formats.headers import REDRIVEN
from pipeline.formats.texts import TextDecoder
from pipeline.log import EventLog, Record
from tidecast.errors import DataError

logger = logging.getLogger(__name__)

SHOWN = 10
"""Most lines that are named one by one."""

_decode = msgspec.json.Decoder(DeadLetter).decode


class RedriveRecord(NamedTuple):
    """A record as it will be sent; the offset is its letter's record's."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    letter: str


class Checked(NamedTuple):
    """A file's lines: what can be sent, by its offsets, and the numbers of the others with what is wrong."""

    ready: list[RedriveRecord]
    refused: list[tuple[int, str]]


def redrive(
    bootstrap: str,
    topic: str,
    file: str,
    features: tuple[str, ...],
    *,
    texts: bool = False,
    reason: str | None = None,
    again: bool = False,
    skip_invalid: bool = False,
) -> dict[str, object]:
    """`tidecast dead-letters --redrive`: send a file's letters of `topic` again; what was done.

    Raises DataError if some are still no events, before any is sent.
    """
    lines = _lines(file)
    with closing(open_log(bootstrap)) as log:
        decode = TextDecoder().decode if texts else Decoder(features).decode
        ready, refused = _check(log, topic, lines, decode, reason)
        for number, why in refused[:SHOWN]:
            logger.info(f"{file}: line {number}: {printable(why)}")
        if refused and not skip_invalid:
            lines_are = "1 line is" if len(refused) == 1 else f"{len(refused):,} lines are"
            raise DataError(f"{file}: {lines_are} no event, so nothing was sent; --skip-invalid sends the others")
        before = set() if again else _redriven(log, ready)
        sent = _send(log, ready, before)
    known = len(ready) - sent
    logger.info(
        f"{sent:,} records sent, {known:,} had been sent before, {len(refused):,} lines are no event and were not sent"
    )
    return {"topic": topic, "sent": sent, "sent_before": known, "invalid": len(refused)}


def _lines(file: str) -> list[tuple[int, bytes]]:
    """A file's lines that are not empty, with their numbers from 1. Raises DataError."""
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from None
    return [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]


def _check(
    log: EventLog,
    topic: str,
    lines: Iterable[tuple[int, bytes]],
    decode: Decode,
    reason: str | None,
) -> Checked:
    ready: list[RedriveRecord] = []
    refused = []
    partitions = cache(log.partitions)
    for number, line in lines:
        try:
            letter = _decode(line)
            if reason not in (None, letter.reason):
                continue
            record = _record(topic, letter)
            if not 0 <= record.partition < partitions(record.topic):
                raise DataError(f"{record.topic} has no partition {record.partition}")
            decode(record)
        except (InvalidEvent, DataError, msgspec.MsgspecError, RecursionError) as error:
            refused.append((number, str(error)))
        else:
            ready.append(record)
    return Checked(sorted(ready, key=lambda record: record[:3]), refused)


def _record(topic: str, letter: DeadLetter) -> RedriveRecord:
    """The record that a letter's line stands for. Raises DataError."""
    if letter.letter.rpartition("/")[0].rpartition("/")[0] != topic:
        raise DataError(f"it is no letter of {topic} but {letter.letter!r}")
    if letter.value is None:
        raise DataError("it has no value")
    if letter.timestamp < 0:
        raise DataError("its time is before 1970")
    value = raw(letter.value)
    if letter.cut and hashlib.sha256(value).hexdigest() == letter.cut:
        raise DataError(f"only the first {len(value):,} bytes of its value were kept: give it a whole one")
    return RedriveRecord(
        letter.topic,
        letter.partition,
        letter.offset,
        letter.timestamp,
        None if letter.key is None else raw(letter.key),
        value,
        [*((name, raw(own)) for name, own in letter.headers), (REDRIVEN, letter.letter.encode())],
        letter.letter,
    )


def _redriven(log: EventLog, ready: Sequence[RedriveRecord]) -> set[str]:
    """The letters that have been sent already: a record that was one has its time, so none lies before that."""
    ranges = {}
    for topic in {record.topic for record in ready}:
        records = [record for record in ready if record.topic == topic]
        starts = log.offsets_at(topic, min(record.timestamp for record in records))
        bounds = log.bounds(topic)
        for partition in {record.partition for record in records}:
            ranges[topic, partition] = (starts[partition], bounds[partition].end)
    marks, done = set[str](), 0
    total = sum(end - start for start, end in ranges.values())
    with progress("looking for letters that were sent before", total) as report:
        for where, (start, end) in ranges.items():
            for read in log.read(*where, start, end):
                marks.update(_marks(read))
                report(done + read[-1].offset + 1 - start)
            done += end - start
    return marks


def _marks(records: Iterable[Record]) -> Iterator[str]:
    for record in records:
        for name, letter in record.headers:
            if name == REDRIVEN:
                yield letter.decode(errors="replace")


def _send(log: EventLog, ready: Iterable[RedriveRecord], before: set[str]) -> int:
    sent: defaultdict[str, int] = defaultdict(int)
    with closing(log.producer()) as producer:
        for record in ready:
            if record.letter not in before:
                before.add(record.letter)  # a line may be there twice
                topic, partition, _, timestamp, key, value, headers, _ = record
                producer.send(topic, partition, key, value, timestamp=timestamp, headers=headers)
                sent[topic] += 1
        producer.flush()
    for topic, count in sent.items():
        logger.info(f"{count:,} to {topic}")
    return sum(sent.values())
