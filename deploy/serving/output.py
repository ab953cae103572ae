"""What a service writes: messages into their records' partitions, each with headers that tell what it is made of."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deploy.serving.partitions import UnusedRecords
from deploy.serving.predictor import Predictor
from deploy.serving.shadow import Shadow
from deploy.serving.tasks import PendingBatch, Task
from deploy.settings.serve import ServeConfig
from pipeline import failpoint
from pipeline.formats.dead_letters import encode_dead_letter
from pipeline.formats.errors import InvalidEvent
from pipeline.formats.headers import INPUT, OFFSETS
from pipeline.log import Producer, Record

logger = logging.getLogger(__name__)

LATE = InvalidEvent("late", "it came after its series' step was taken or passed")


class Extended(NamedTuple):
    """What a partition's polled records came to; `pending` is tagged by the offset of the record that completed it."""

    partition: int
    records: Sequence[Record]
    pending: PendingBatch
    unused: UnusedRecords


class Output:
    """Sends what comes of a micro-batch: forecasts or labels, a shadow's beside them, dead letters, late records."""

    def __init__(self, producer: Producer, config: ServeConfig, shadow: Shadow | None = None) -> None:
        self._producer, self._config, self._shadow = producer, config, shadow
        self._reasons: set[str] = set()

    def write(self, batch: Sequence[Extended], predictor: Predictor, task: Task) -> int:
        """Predict what all partitions have pending together, and send what comes of the batch; how many there were."""
        together = batch[0].pending.concat([extended.pending for extended in batch])
        self._send_messages(self._config.output, batch, task.messages(together, predictor), predictor)
        if self._shadow and (messages := self._shadow.answers(together)) and self._shadow.predictor:
            self._send_messages(self._config.shadow_topic, batch, iter(messages), self._shadow.predictor)
        for partition, _, _, unused in batch:
            for record, error in unused.invalid:
                self._send_unused(self._config.dead_letters, partition, record, error)
                self._warn(record, error)
            for record in unused.late if self._config.late_topic else ():
                self._send_unused(self._config.late_topic, partition, record, LATE)
        return len(together)

    def _send_messages(self, topic: str, batch: Sequence[Extended], messages: Iterator[bytes], by: Predictor) -> None:
        """Send a model's messages, each with headers by which it tells what made it and what of."""
        for partition, records, pending, _ in batch:
            causes = {record.offset: record for record in records}
            facts = [*by.provenance, (INPUT, f"{self._config.topic}/{partition}".encode())]
            for key, first_offset, offset in zip(
                pending.keys, pending.first_offset.tolist(), pending.offset.tolist(), strict=True
            ):
                made_of = (OFFSETS, b"%d-%d" % (max(first_offset, 0), offset))
                self._send(topic, partition, key, next(messages), causes[offset], [*facts, made_of])
            failpoint.reached("producing")

    def _send_unused(self, topic: str, partition: int, record: Record, error: InvalidEvent) -> None:
        letter = encode_dead_letter(record, error)
        self._send(topic, partition, letter.key, letter.value, record, letter.headers)

    def _warn(self, record: Record, error: InvalidEvent) -> None:
        """The first of each kind of dead letter is worth a line."""
        if error.reason not in self._reasons:
            self._reasons.add(error.reason)
            where = f"{record.topic}/{record.partition} at offset {record.offset}"
            kept = f"it goes to {self._config.dead_letters}, as all with this reason will"
            logger.warning(f"{where} is an invalid record: {error}; {kept}")

    def _send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes,
        cause: Record,
        headers: Sequence[tuple[str, bytes]],
    ) -> None:
        """An output carries the time of the record that caused it, so that doing it again writes the same bytes."""
        timestamp = cause.timestamp if cause.timestamp >= 0 else None
        self._producer.send(topic, partition, key, value, timestamp=timestamp, headers=headers)
