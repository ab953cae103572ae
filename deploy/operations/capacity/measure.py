"""Measuring what this machine can do: a real service on a log, of one process and of several at once."""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from deploy.models.predictor import CHUNK, Predictor
from deploy.models.synthetic import SyntheticInput
from deploy.serving.connections import Connections
from deploy.serving.workers.processes import Run, Worker
from deploy.serving.workers.said import Ended
from deploy.serving.workers.summary import together
from deploy.serving.workers.worker import Work
from deploy.settings.files import another_connection
from deploy.settings.serve import ServeConfig, window_config
from model.card import Card
from pipeline.formats.events import Event, encode
from pipeline.log import EventLog, Record
from tidecast.errors import LogUnavailable

SERIES, RECORDS = 500, 60_000
"""Series of a measurement, and records of a worker once their windows are full."""
PARTITIONS = 4
"""Of a worker."""
INFERENCE_S, SAMPLED, WITHIN_S = 1.0, 1_000, 600.0
STARTED = 1_700_000_000_000


class Measured(NamedTuple):
    """What a service did with a backlog, its windows being full."""

    rate: float
    """Records a second."""
    event: float
    """Bytes of an input record."""
    forecast: float
    """Bytes of an output record, with its key and headers."""


def inference(predictor: Predictor) -> float:
    """Windows a second of onnxruntime alone, in one thread, as many at a time as in a service."""
    batch = SyntheticInput(predictor.card, CHUNK)
    list(predictor.predict(batch))
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < INFERENCE_S:
        list(predictor.predict(batch))
        count += CHUNK
    return count / (time.perf_counter() - began)


@dataclass(frozen=True)
class Trial:
    """A service that is tried."""

    run: Run
    card: Card
    config: ServeConfig
    """All but its topic, group and instance."""
    connections: Connections
    kafka: bool
    """Whether it is tried on the Kafka of its connections, in topics that are deleted then; or on embedded logs."""

    def of(self, workers: int) -> Measured:
        """What so many workers do together."""
        with ExitStack() as stack:
            shares = [stack.enter_context(share) for share in self._shares(workers)]
            length = self.card.input.seq_len
            for share in shares:
                share.fill(range(length))
            self._served(shares)
            for share in shares:
                share.fill(range(length, length + -(-RECORDS // SERIES)))
            summary = together(self._served(shares), workers, 0)
            return Measured(summary["records"] / summary["seconds"], *shares[0].sizes())

    def _shares(self, workers: int) -> "list[AbstractContextManager[Share]]":
        """One log for all, or as an embedded one is for one process each."""
        if self.kafka:
            return [_share(self, self.connections.bootstrap, workers)]
        return [_share(self, "", 1) for _ in range(workers)]

    def _served(self, shares: "Sequence[Share]") -> list[Ended]:
        """What the workers of all shares did at once, until all is read."""
        workers = [(share, Worker(self.run, work)) for share in shares for work in share.works]
        try:
            deadline = time.monotonic() + WITHIN_S
            while not all(share.is_read() for share in shares):
                if time.monotonic() > deadline or any(worker.has_ended for _, worker in workers):
                    raise LogUnavailable("bench: a service did not read what it was to: its last line says why")
                time.sleep(0.05)
            for _, worker in workers:
                worker.stop()
            for _, worker in workers:
                worker.wait()
            exits = [worker.exit() for _, worker in workers]
        except BaseException:
            for _, worker in workers:
                worker.kill()
            raise
        return [each.ended for each in exits if each.ended]


@dataclass(frozen=True)
class Share:
    """A log, and the workers on it."""

    log: EventLog
    config: ServeConfig
    works: list[Work]
    card: Card

    def fill(self, steps: range) -> None:
        """Write so many steps of each series."""
        grid = window_config(self.card.input).grid
        features, partitions = self.card.input.features, PARTITIONS * len(self.works)
        series = SERIES * len(self.works)
        with closing(self.log.producer()) as producer:
            for step in steps:
                ts = STARTED + 60_000 * step if grid is None else int(grid.time(int(grid.index(STARTED)) + step))
                for number in range(series):
                    values = tuple(float((7 * step + number + place) % 100) for place in range(len(features)))
                    name = f"series-{number}"
                    event = encode(Event(name, ts, values), features)
                    producer.send(self.config.topic, number % partitions, name.encode(), event, timestamp=ts)
            producer.flush()

    def is_read(self) -> bool:
        """Whether the group has done all."""
        ends = {number: bounds.end for number, bounds in self.log.bounds(self.config.topic).items()}
        done = self.log.committed(self.config.group, self.config.topic)
        return all(number in done and done[number].offset >= end for number, end in ends.items())

    def sizes(self) -> tuple[float, float]:
        """Bytes of an input record, and of an output record."""
        return self._size(self.config.topic), self._size(f"{self.config.topic}-forecasts")

    def _size(self, topic: str) -> float:
        bounds = self.log.bounds(topic)[0]
        batches = self.log.read(topic, 0, max(bounds.start, bounds.end - SAMPLED), bounds.end)
        sizes = [_bytes(record) for batch in batches for record in batch]
        return sum(sizes) / max(1, len(sizes))


def _bytes(record: Record) -> int:
    headers = sum(len(name) + len(content or b"") for name, content in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


@contextmanager
def _share(trial: Trial, bootstrap: str, workers: int) -> Iterator[Share]:
    """Topics of its own, which are gone afterwards."""
    topic = f"tidecast-bench-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        if not bootstrap:
            bootstrap = f"sqlite:{Path(stack.enter_context(TemporaryDirectory(prefix='tidecast-bench-'))) / 'log.db'}"
        log = stack.enter_context(closing(another_connection(bootstrap)))
        log.create_topic(topic, PARTITIONS * workers, any_time=True)
        stack.callback(lambda: log.delete_topics(name for name in log.topics() if name.startswith(topic)))
        config = replace(trial.config, topic=topic, group=topic)
        connections = replace(trial.connections, bootstrap=bootstrap)
        works = [Work(number, replace(config, instance=f"bench-{number}"), connections) for number in range(workers)]
        yield Share(log, config, works, trial.card)
