"""The input of a fault: events of many series, sent whatever happens to the brokers."""

import contextlib
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kafka import KafkaProducer, errors

from pipeline.formats.events import Event, encode

PARTITIONS, SERIES, RECORDS = 6, 200, 20_000
START, MINUTE = 1_700_000_040_000, 60_000


class Row(NamedTuple):
    """An input record."""

    partition: int
    key: bytes
    value: bytes


def row(series: int, step: int, value: float) -> Row:
    """An event of one series at one step."""
    name = f"s{series}"
    return Row(series % PARTITIONS, name.encode(), encode(Event(name, START + step * MINUTE, (value,))))


def rows(series: int = SERIES) -> Iterator[Row]:
    """Endless events of all series, step by step; of a hundred one is missing, one is a duplicate, one is late, and one
    is invalid."""
    chance, step = random.Random(0), 0
    while True:
        for number in range(series):
            kind = chance.random()
            if kind > 0.01:
                yield row(number, step, chance.gauss(number, 1))
            if kind > 0.99:
                yield row(number, step, 0.0)
            elif kind > 0.98:
                yield row(number, step - 2, 0.0)
            elif kind > 0.97:
                yield Row(number % PARTITIONS, b"s%d" % number, b'{"series": "s')
        step += 1


class Load:
    """Sends rows to a topic at a given rate, whatever happens to the brokers."""

    def __init__(self, bootstrap: str, topic: str, source: Iterable[Row]) -> None:
        self._topic, self._rows = topic, iter(source)
        self.sent = 0
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","),
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            batch_size=128 << 10,
            max_block_ms=600_000,
            delivery_timeout_ms=600_000,
        )

    def send(self, count: int) -> None:
        """Send the next `count` rows as fast as possible, and wait for their acknowledgements."""
        futures = [self._next() for _ in range(count)]
        self._producer.flush()
        for future in futures:
            future.get(0)

    def _next(self) -> Any:
        partition, key, value = next(self._rows)
        self.sent += 1
        return self._producer.send(self._topic, value, key, partition=partition)

    @contextlib.contextmanager
    def sending(self, rate: int, at_least: int, pace: float) -> Iterator[None]:
        """Send `rate` rows per second, in bursts every `pace` seconds, during the with block; then the rest of
        `at_least`."""
        over = threading.Event()

        def flow() -> None:
            began, sent = time.monotonic(), 0
            while not over.wait(pace):
                due = int((time.monotonic() - began) * rate) - sent
                for _ in range(due):
                    self._next()
                sent += due

        thread = threading.Thread(target=flow, name=f"load of {self._topic}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self.send(max(0, at_least - self.sent))

    def close(self) -> None:
        """Close without waiting for unsent rows."""
        with contextlib.suppress(errors.KafkaTimeoutError):
            self._producer.close(timeout=1)
