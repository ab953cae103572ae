"""Producing what a service writes: each message to its input record's partition, with headers that say its origin."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deploy.models.predictor import Predictor
from deploy.serving.partitions import DroppedRecords
from deploy.serving.shadow import Shadow
from deploy.serving.tasks import PendingBatch, Task
from deploy.settings.serve import ServeConfig
from pipeline import failpoint
from pipeline.formats.dead_letters import InvalidEvent, encode_dead_letter
from pipeline.formats.headers import INPUT, OFFSETS
from pipeline.log import Producer, Record

logger = logging.getLogger(__name__)

LATE = InvalidEvent("late", "it came after its series' step was taken or passed")


class PartitionBatch(NamedTuple):
    """One partition's part of a micro-batch: its records, the windows they completed, and those that were dropped."""

    partition: int
    records: Sequence[Record]
    pending: PendingBatch
    dropped: DroppedRecords


class Output:
    """Predicts micro-batches and produces the results: forecasts or labels, a shadow's, dead letters, late records."""

    def __init__(self, producer: Producer, config: ServeConfig, shadow: Shadow | None = None) -> None:
        self._producer, self._config, self._shadow = producer, config, shadow
        self._warned: set[str] = set()

    def write(self, batch: Sequence[PartitionBatch], predictor: Predictor, task: Task) -> int:
        """Predict all partitions' pending windows as one batch and produce the results; the number of predictions."""
        pending = batch[0].pending.concat([part.pending for part in batch])
        self._send_predictions(self._config.output, batch, task.predict(pending, predictor), predictor)
        if self._shadow and (messages := self._shadow.predict(pending)) and self._shadow.predictor:
            self._send_predictions(self._config.shadow_topic, batch, iter(messages), self._shadow.predictor)
        for part in batch:
            self._send_dropped(part.partition, part.dropped)
        return len(pending)

    def _send_predictions(
        self, topic: str, batch: Sequence[PartitionBatch], messages: Iterator[bytes], predictor: Predictor
    ) -> None:
        """Send a model's messages with headers that identify the model and the input records."""
        for partition, records, pending, _ in batch:
            by_offset = {record.offset: record for record in records}
            common = [*predictor.provenance, (INPUT, f"{self._config.topic}/{partition}".encode())]
            for key, first_offset, offset in zip(
                pending.keys, pending.first_offset.tolist(), pending.offset.tolist(), strict=True
            ):
                offsets = (OFFSETS, b"%d-%d" % (max(first_offset, 0), offset))
                self._send(topic, partition, key, next(messages), by_offset[offset], [*common, offsets])
            failpoint.reached("producing")

    def _send_dropped(self, partition: int, dropped: DroppedRecords) -> None:
        for record, error in dropped.invalid:
            self._send_dead_letter(self._config.dead_letters, partition, record, error)
            self._warn_once(record, error)
        for record in dropped.late if self._config.late_topic else ():
            self._send_dead_letter(self._config.late_topic, partition, record, LATE)

    def _send_dead_letter(self, topic: str, partition: int, record: Record, error: InvalidEvent) -> None:
        letter = encode_dead_letter(record, error)
        self._send(topic, partition, letter.key, letter.value, record, letter.headers)

    def _warn_once(self, record: Record, error: InvalidEvent) -> None:
        """Log the first invalid record of each reason."""
        if error.reason not in self._warned:
            self._warned.add(error.reason)
            position = f"{record.topic}/{record.partition} at offset {record.offset}"
            destination = f"sent to {self._config.dead_letters}; others with this reason are not logged"
            logger.warning(f"invalid record in {position}: {error}; {destination}")

    def _send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes,
        cause: Record,
        headers: Sequence[tuple[str, bytes]],
    ) -> None:
        """Send with the timestamp of the input record, so that a replay writes identical bytes."""
        timestamp = cause.timestamp if cause.timestamp >= 0 else None
        self._producer.send(topic, partition, key, value, timestamp=timestamp, headers=headers)
