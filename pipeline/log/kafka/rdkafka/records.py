"""Messages of librdkafka as records."""

import gc
from collections.abc import Sequence
from itertools import repeat

from confluent_kafka import Consumer, KafkaError, Message

from pipeline.log import StoredRecord, Undecodable
from pipeline.log.kafka.rdkafka.config import log_error
from pipeline.log.limits import MAX_VALUE_BYTES, within_limits
from tidecast.errors import LogError

UNREADABLE = (KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG)
"""Errors of a batch that the client can't read, and does not get past: of damaged ones, and of those too large."""


class Fetched:
    """What one call of the client brought: records by partition, where the partitions end, and the first error."""

    def __init__(self, messages: Sequence[Message], topic: str, *, whole: bool = False) -> None:
        self.records: dict[int, list[StoredRecord]] = {}
        self.ends: dict[int, int] = {}
        self.failure: Message | None = None
        """The first error, which comes in a record's place; the records before it count."""
        if any(map(Message.error, messages)):
            messages = self._without_events(messages)
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            by_partition.setdefault(message.partition(), []).append(message)
        for partition, own in by_partition.items():
            self.records[partition] = _records(own, topic, partition, whole=whole)

    def _without_events(self, messages: Sequence[Message]) -> list[Message]:
        found = []
        for message in messages:
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self.ends[message.partition()] = message.offset()
            elif self.failure is None:
                self.failure = message
        return found


def is_unreadable(failure: Message | None) -> bool:
    """Whether it is about a batch that another client may read."""
    return failure is not None and failure.error().code() in UNREADABLE


def fetch_error(failure: Message, topic: str, doing: str) -> LogError:
    """What a record's place says went wrong."""
    offset = failure.offset()
    where = f", {topic}/{failure.partition()} at offset {offset}" if offset is not None and offset >= 0 else ""
    return log_error(failure.error(), f"{doing}{where}")


def fetch(consumer: Consumer, timeout: float, most: int) -> list[Message]:
    """Up to so many messages: as many as there are, or the first one that comes within `timeout` seconds.

    Asked for several, the client waits until it has them all, or its time is over.
    """
    found: list[Message] = consumer.consume(most, 0)
    if not found and timeout > 0 and (found := consumer.consume(1, timeout)) and most > 1:
        found += consumer.consume(most - 1, 0)
    return found


def _records(messages: list[Message], topic: str, partition: int, *, whole: bool) -> list[StoredRecord]:
    keys, values = [*map(Message.key, messages)], [*map(Message.value, messages)]
    if not whole:
        _truncate(keys)
        _truncate(values)
    offsets, times = map(Message.offset, messages), [each[1] for each in map(Message.timestamp, messages)]
    columns = (repeat(topic), repeat(partition), offsets, times, keys, values, _headers(messages))
    return [*map(StoredRecord, *columns)]


def _truncate(contents: list[bytes | None]) -> None:
    if max(map(len, filter(None, contents)), default=0) > MAX_VALUE_BYTES:
        contents[:] = [None if content is None else within_limits(content) for content in contents]


def _headers(messages: list[Message]) -> list[Sequence[tuple[str, bytes]]]:
    try:
        return [message.headers() or () for message in messages]
    except SystemError:  # a key is not UTF-8: the client leaves it out of its pair, and says so only the first time
        return [_readable(message) for message in messages]


def _readable(message: Message) -> Sequence[tuple[str, bytes]]:
    try:
        headers = message.headers() or ()
    except SystemError:
        headers = message.headers()
    # To look at a key that is not there would end the process; the pair's referents are what is there.
    known = [len(gc.get_referents(pair)) == 2 for pair in headers]
    if all(known):
        return headers
    mended = [pair if whole else ("?", pair[1]) for pair, whole in zip(headers, known, strict=True)]
    return Undecodable(mended, "a header key is not UTF-8")
