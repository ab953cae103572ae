"""A client of librdkafka that writes, from its start until it is dropped. It tells of failures only."""

import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaException, Producer

from pipeline.log.kafka.rdkafka.config import CLOSE_S, bounded
from pipeline.log.kafka.rdkafka.refusals import Lost
from pipeline.log.settings import KafkaSettings


class Connection:
    """What the client could not write is in `lost`; `fatal` is why it can go on no more, which it says only once."""

    def __init__(self, settings: Mapping[str, Any], kafka: KafkaSettings) -> None:
        self.lost: list[Lost] = []
        self.fatal: KafkaException | None = None
        self._settings, self._kafka = settings, kafka
        self._written: set[tuple[str, int]] = set()
        self._last: list[Producer] = []
        """The last one to refer to the client, which ends it."""

    def connect(self, topics: Iterable[str]) -> None:
        """Connect for these topics. Raises KafkaException."""
        try:
            self.client = Producer(dict(self._settings))
            self._last.append(self.client)
            for topic in topics:
                self.find(topic)
            if "transactional.id" in self._settings:
                self.client.init_transactions(self._kafka.stall_s)
        except KafkaException:
            self.drop()
            raise

    def find(self, topic: str) -> None:
        """Connect for it now: by itself the client looks twice a second whether it is connected."""
        self.client.list_topics(topic, self._kafka.request_s)

    def is_first(self, topic: str, partition: int) -> bool:
        """Whether nothing else was given to the client for that partition."""
        where = topic, partition
        if where in self._written:
            return False
        self._written.add(where)
        return True

    def serve(self, seconds: float) -> None:
        """Wait for so long to hear what became of records."""
        try:
            self.client.poll(seconds)
        except KafkaException as error:
            self.fatal = error

    def make_room(self) -> int:
        """Wait until the client has taken some of its records to the broker; how many it has if that takes too long."""
        before, deadline = len(self.client), time.monotonic() + self._kafka.stall_s
        while len(self.client) >= before:
            self.serve(0.05)
            if time.monotonic() > deadline:
                return before
        return 0

    def settle(self) -> int:
        """Wait until it is known what became of all records; of how many it is not known in time."""
        deadline = time.monotonic() + self._kafka.delivery_s + 1
        while True:
            try:
                left: int = self.client.flush(0.1)
            except KafkaException as error:
                self.fatal = error
                continue
            if not left or time.monotonic() > deadline:
                return left
            if self.lost or self.fatal:  # those behind a refused record would be kept until their time is over
                self.client.purge(in_flight=False)

    def drop(self) -> None:
        """Give up what is not written, and end."""
        last, self._last = self._last, []
        if not last:
            return
        self.client.purge()
        for _ in range(2):  # it may say first that it can go on no more
            with contextlib.suppress(KafkaException):
                self.client.flush(0.1)
        del self.client
        bounded(last.clear, CLOSE_S)  # its own close() would wait for all, and warn of what is known
