"""Redriving repaired dead letters to their input topics: a whole file is checked before anything is sent."""

import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from deploy.console import printable, progress
from deploy.settings.files import decode_paths, open_log
from pipeline.formats.dead_letters import DeadLetter, InvalidEvent, raw
from pipeline.formats.decoding import Decode
from pipeline.formats.events import Decoder
from pipeline.formats.headers import REDRIVEN
from pipeline.formats.texts import TextDecoder
from pipeline.log import EventLog, Record, StoredRecord
from tidecast.errors import DataError, unusable

logger = logging.getLogger(__name__)

MAX_LOGGED = 10
"""Most invalid lines that are logged one by one."""

_decode_line = msgspec.json.Decoder(DeadLetter).decode


class RedriveRecord(StoredRecord, frozen=True, gc=False):
    """A record to send; `offset` is the one that the invalid record had, `letter` identifies its dead letter."""

    letter: str


class CheckedFile(NamedTuple):
    """A file's valid lines as records, by offset, and the numbers of its invalid lines with what is wrong."""

    records: list[RedriveRecord]
    invalid: list[tuple[int, str]]


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
    """`tidecast dead-letters --redrive`: send a file of repaired dead letters of `topic`; what was sent.

    `again` sends those too that were redriven before. Raises DataError if any line is still invalid, before anything
    is sent, unless `skip_invalid` is set.
    """
    lines = _read_lines(file)
    with closing(open_log(bootstrap)) as log:
        decode = TextDecoder().decode if texts else Decoder(features, paths=decode_paths(bootstrap)).decode
        records, invalid = _check(log, topic, lines, decode, reason)
        for number, error in invalid[:MAX_LOGGED]:
            logger.warning(f"{file}: line {number}: {printable(error)}")
        if invalid and not skip_invalid:
            count = "1 line is" if len(invalid) == 1 else f"{len(invalid):,} lines are"
            raise DataError(f"{file}: {count} invalid, so nothing was sent; --skip-invalid sends the others")
        redriven = set() if again else _redriven_letters(log, records)
        sent = _send(log, records, redriven)
    sent_before = len(records) - sent
    logger.info(f"{sent:,} records sent, {sent_before:,} already sent before, {len(invalid):,} invalid lines not sent")
    return {"topic": topic, "sent": sent, "sent_before": sent_before, "invalid": len(invalid)}


def _read_lines(file: str) -> list[tuple[int, bytes]]:
    """A file's non-empty lines with their numbers, from 1. Raises DataError."""
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise unusable(file, error, DataError) from None
    return [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]


def _check(
    log: EventLog,
    topic: str,
    lines: Iterable[tuple[int, bytes]],
    decode: Decode,
    reason: str | None,
) -> CheckedFile:
    records: list[RedriveRecord] = []
    invalid = []
    partitions = cache(log.partitions)
    for number, line in lines:
        try:
            letter = _decode_line(line)
            if reason not in (None, letter.reason):
                continue
            record = _repaired_record(topic, letter)
            if not 0 <= record.partition < partitions(record.topic):
                raise DataError(f"{record.topic} has no partition {record.partition}")
            decode(record)
        except (InvalidEvent, DataError, msgspec.MsgspecError, RecursionError) as error:
            invalid.append((number, str(error)))
        else:
            records.append(record)
    return CheckedFile(sorted(records, key=attrgetter("topic", "partition", "offset")), invalid)


def _repaired_record(topic: str, letter: DeadLetter) -> RedriveRecord:
    """The record to send for a line of the file. Raises DataError."""
    if letter.letter.rpartition("/")[0].rpartition("/")[0] != topic:
        raise DataError(f"not a dead letter of {topic} but {letter.letter!r}")
    if letter.value is None:
        raise DataError("it has no value")
    if letter.timestamp < 0:
        raise DataError("its timestamp is before 1970")
    value = raw(letter.value)
    if letter.cut and hashlib.sha256(value).hexdigest() == letter.cut:
        raise DataError(f"only the first {len(value):,} bytes of its value were kept: replace it with the whole value")
    return RedriveRecord(
        letter.topic,
        letter.partition,
        letter.offset,
        letter.timestamp,
        None if letter.key is None else raw(letter.key),
        value,
        [*((name, raw(content)) for name, content in letter.headers), (REDRIVEN, letter.letter.encode())],
        letter.letter,
    )


def _redriven_letters(log: EventLog, records: Sequence[RedriveRecord]) -> set[str]:
    """The dead letters that have been redriven already.

    A redriven record keeps its timestamp, so the topics are searched from the oldest one of these records on.
    """
    ranges = {}
    for topic in {record.topic for record in records}:
        of_topic = [record for record in records if record.topic == topic]
        starts = log.offsets_at(topic, min(record.timestamp for record in of_topic))
        bounds = log.bounds(topic)
        for partition in {record.partition for record in of_topic}:
            ranges[topic, partition] = (starts[partition], bounds[partition].end)
    letters, done = set[str](), 0
    total = sum(end - start for start, end in ranges.values())
    with progress("looking for dead letters that were redriven before", total) as report:
        for (topic, partition), (start, end) in ranges.items():
            for batch in log.read(topic, partition, start, end):
                letters.update(_redriven_headers(batch))
                report(done + batch[-1].offset + 1 - start)
            done += end - start
    return letters


def _redriven_headers(records: Iterable[Record]) -> Iterator[str]:
    for record in records:
        for name, letter in record.headers:
            if name == REDRIVEN:
                yield letter.decode(errors="replace")


def _send(log: EventLog, records: Iterable[RedriveRecord], redriven: set[str]) -> int:
    """Send the records whose dead letters have not been redriven; how many."""
    sent: Counter[str] = Counter()
    with closing(log.producer()) as producer:
        for record in records:
            if record.letter not in redriven:
                redriven.add(record.letter)  # the file may contain a line twice
                destination = record.topic, record.partition, record.key, record.value
                producer.send(*destination, timestamp=record.timestamp, headers=record.headers)
                sent[record.topic] += 1
        producer.flush()
    for topic, count in sent.items():
        logger.info(f"{count:,} records sent to {topic}")
    return sent.total()
