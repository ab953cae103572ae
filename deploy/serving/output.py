"""Producing what a service writes: each message to its input record's partition, with headers that say its origin."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from deploy.grading.batch import GradedBatch
from deploy.grading.records import Message
from deploy.grading.state import Grading
from deploy.models.predictor import CHUNK, Predictor
from deploy.models.updates import Complaint
from deploy.serving.forecast_batches import Faults
from deploy.serving.messages import MessageWriter, PartitionBatch
from deploy.serving.partition import DroppedRecords
from deploy.serving.shadow import Shadow
from deploy.serving.tasks import PendingBatch, Task
from deploy.serving.webhook import Webhook
from deploy.settings.serve import ServeConfig
from pipeline import failpoint
from pipeline.formats.columnar.points import is_columnar
from pipeline.formats.dead_letters import InvalidEvent, encode_dead_letter
from pipeline.formats.headers import INPUT, OFFSETS, OURS
from pipeline.log import Producer, Record, Refusal, Sent, StoredRecord
from tidecast.errors import LogError

logger = logging.getLogger(__name__)

CUT = 16
"""By what part a dead letter is shortened each time that it is refused."""
LATE = InvalidEvent("late", "it came after its series' step was taken or passed")


class Written(NamedTuple):
    """What became of a micro-batch: its windows or texts, and those without a usable output of the model."""

    pending: PendingBatch
    faults: Faults

    @property
    def predictions(self) -> int:
        """How many forecasts or labels were sent."""
        return len(self.pending) - len(self.faults.failed)

    def complaint(self, predictor: Predictor, reason: str) -> Complaint:
        """The complaint about the model, with input on which it had no usable output."""
        rows = sorted({*self.faults.failed, *self.faults.not_finite})[:CHUNK]
        inputs = self.pending.arrays(0, len(self.pending))
        return Complaint(predictor.sha256, reason, {name: array[rows] for name, array in inputs.items()})


class Output:
    """Predicts micro-batches and produces the results: forecasts or labels, a shadow's, dead letters, late records."""

    def __init__(
        self,
        producer: Producer,
        config: ServeConfig,
        shadow: Shadow | None = None,
        grading: Grading | None = None,
        webhook: Webhook | None = None,
    ) -> None:
        self._producer, self._config, self._shadow, self._grading = producer, config, shadow, grading
        self._webhook, self._alerts = webhook, list[bytes]()
        self._warned: set[str] = set()
        self.refused = Counter[str]()
        """Forecasts and labels that the log refused, so that dead letters stand for them: a counter by topic."""
        producer.on_refusal = self._replacement

    def write(
        self, batch: Sequence[PartitionBatch], predictor: Predictor, task: Task, *, slow: bool = False
    ) -> Written:
        """Predict all partitions' pending windows as one batch and produce the results.

        A record whose window has no output is added to those that its partition drops. If the model is `slow`, nothing
        is sent until all is predicted: the first record opens a transaction.
        """
        graded, faults = self._graded(batch), Faults()
        pending: PendingBatch
        if graded:
            pending, of = graded.pending
        else:
            pending = batch[0].pending.concat([part.pending for part in batch])
            of = [number for number, part in enumerate(batch) for _ in range(len(part.pending))]
        writer = MessageWriter(batch, pending, of, task)
        outputs = task.predict(pending, predictor, faults, graded.complete if graded else None)
        shadow, of_shadow = self._shadow, list[Any]()
        if slow:
            outputs = iter(list(outputs))
        if slow and shadow:
            of_shadow = shadow.predict(pending)
        self._send_predictions(self._config.output, writer, outputs, predictor, faults)
        if shadow and not slow:
            of_shadow = shadow.predict(pending)
        if shadow and shadow.predictor and of_shadow:
            self._send_predictions(self._config.shadow_topic, writer, iter(of_shadow), shadow.predictor, Faults())
        for part, found in zip(batch, graded.messages() if graded else [[]] * len(batch), strict=True):
            self._send_graded(part, found)
            self._send_dropped(part.partition, part.dropped)
        return Written(pending, faults)

    def _graded(self, batch: Sequence[PartitionBatch]) -> GradedBatch | None:
        parts = [part.graded for part in batch if part.graded is not None]
        return GradedBatch(self._grading, parts) if self._grading and parts else None

    def _send_graded(self, part: PartitionBatch, messages: Iterable[Message]) -> None:
        """Send scores and alerts."""
        by_offset = {record.offset: record for record in part.records} if messages else {}
        topics = {"scores": self._config.scores_topic, "alerts": self._config.alerts_topic}
        origin = (INPUT, f"{self._config.topic}/{part.partition}".encode())
        for message in messages:
            if topic := topics[message.kind]:
                headers = [origin, (OFFSETS, b"%d-%d" % (message.offset, message.offset))]
                self._send(topic, part.partition, message.key, message.value, by_offset[message.offset], headers)
                if message.kind == "alerts" and self._webhook:
                    self._alerts.append(message.value)

    def committed(self) -> None:
        """All that was written is committed: what is for others than the log may go out."""
        if self._webhook and self._alerts:
            self._webhook.post(self._alerts)
            self._alerts = []

    def _send_predictions(
        self, topic: str, writer: MessageWriter, outputs: Iterator[Any], predictor: Predictor, faults: Faults
    ) -> None:
        """Send a model's messages with a header that identifies the model and the input records."""
        write = writer.columnar if self._config.format == "arrow" else writer.each
        for message in write(outputs, predictor.provenance, self._config.topic, faults):
            self._send(topic, *message)
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
        destination = f"sent to {self._config.dead_letters}; others with this reason are not logged"
        self._say_once(error.reason, f"invalid record in {_place(record)}: {error}; {destination}")

    def _say_once(self, about: str, line: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            logger.warning(line)

    def _replacement(self, sent: Sent, refusal: Refusal) -> Sent:
        """What is written in place of a record that the log refuses: the same with the present time, if it is not too
        large; then a dead letter of the record that it came of; in place of a dead letter, a shorter one.

        Raises LogError if that is refused however short it is.
        """
        topic, cause, dead_letters = sent.topic, sent.cause, self._config.dead_letters
        assert cause is not None
        origin = f"what came of {_place(cause)}"
        if sent.timestamp is not None and not refusal.too_large:
            text = f"{topic} refuses the time {sent.timestamp} of {origin} ({refusal.why})"
            self._say_once(f"time {topic}", f"{text}: it has the present time there; others are not logged")
            return replace(sent, timestamp=None)
        if topic not in (dead_letters, self._config.late_topic):
            text = f"{topic}/{sent.partition} refuses its {len(sent.value or b''):,} bytes: {refusal.why}"
            if is_columnar(sent.value):  # it came of many records
                place = cause.topic, cause.partition, cause.offset, cause.timestamp
                cause = StoredRecord(*place, None, sent.value or b"", ())
            letter = encode_dead_letter(cause, error := InvalidEvent("refused", text))
            self._say_once(f"dead {topic}", f"{origin}: {error}; sent to {dead_letters}; others are not logged")
            self.refused[topic] += 1
            written = {"key": letter.key, "value": letter.value, "headers": letter.headers}
            return replace(sent, topic=dead_letters, cause=cause, **written)
        if not sent.value and not sent.key:
            raise LogError(f"{topic}/{sent.partition} refuses the dead letter of {_place(cause)}: {refusal.why}")
        self._say_once(f"cut {topic}", f"{topic} refuses {origin} for its size: it is cut there; others are not logged")
        headers = [(f"{OURS}headers", b"left out"), *(each for each in sent.headers if each[0].startswith(OURS))]
        key, value = ((part or b"")[: len(part or b"") // CUT] for part in (sent.key, sent.value))
        return replace(sent, key=key or None, value=value, headers=list(dict.fromkeys(headers)))

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
        self._producer.send(topic, partition, key, value, timestamp=timestamp, headers=headers, cause=cause)


def _place(record: Record) -> str:
    return f"{record.topic}/{record.partition} at offset {record.offset}"
