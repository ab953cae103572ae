"""The consumer service. The order of its steps is what keeps every forecast:

1. poll
2. decode; a record that is no event becomes a dead letter
3. extend the windows
4. predict the micro-batch, in one call
5. produce forecasts and dead letters, each into its record's partition
6. flush, and look at every acknowledgement
7. commit the offsets X, with R, the position of the last checkpoint, in their metadata
8. when one is due, a checkpoint pass: changed windows, their position and the offsets, as one transaction
9. only then poll again

Killed anywhere, a restart takes the windows of the last pass, replays [R, X) emitting nothing, and goes on at X: what
was not committed is read, and forecast, again.
"""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from threading import Event as Flag
from typing import NamedTuple

from deploy.config import Device, ServeConfig, open_log, window_config
from deploy.console import say
from deploy.forecasts import dead_letter, encode_forecasts
from deploy.predictor import Predictor, fetch
from pipeline import checkpoint
from pipeline.events import Decoder, InvalidEvent
from pipeline.log import Commit, EventLog, Record
from pipeline.windows import Counts, Windows, WindowStore

POLL_S = 0.2
REPORT_S = 10.0


@dataclass(slots=True)
class Totals:
    """What a service has done since it started; `seconds` from its first record to its last commit."""

    records: int = 0
    forecasts: int = 0
    dead_letters: int = 0
    late: int = 0
    duplicate: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Partition:
    """An input partition that this member owns."""

    store: WindowStore
    checkpoint: int
    """R: where its last checkpoint stands."""
    position: int
    """X: the next offset to read."""


class Extended(NamedTuple):
    """What a partition's polled records came to: `windows` tagged by a record's place, and those that are no events."""

    partition: int
    records: Sequence[Record]
    windows: Windows
    invalid: list[tuple[Record, InvalidEvent]]


class Service:
    """One member of a group, serving one model on one topic."""

    def __init__(self, log: EventLog, predictor: Predictor, config: ServeConfig, say: Callable[[str], None]) -> None:
        """Make the topics that are missing, fence a predecessor of the same instance, then join the group."""
        self.totals = Totals()
        self._log, self._predictor, self._config, self._say = log, predictor, config, say
        self._decode = Decoder(predictor.inputs.features).decode
        self._owned: dict[int, Partition] = {}
        self._count, self._topic_id = log.partitions(config.topic), log.topic_id(config.topic)
        for topic in (config.output, config.dead_letters):
            log.create_topic(topic, self._count)
        log.create_topic(config.state_topic, self._count, compacted=True)
        self._writer = log.writer()
        self._passes = log.writer(f"{config.group}-{config.instance}")
        self._member = log.join(config.group, config.topic, instance=config.instance)

    def run(self, stop: Flag) -> Totals:
        """Serve until `stop` is set; then the batch in hand is finished, and a last checkpoint written."""
        began = passed = reported = time.monotonic()
        while not stop.is_set():
            poll = self._member.poll(POLL_S, self._config.max_batch)
            for partition in poll.revoked:
                self._drop(partition)
            for partition in poll.assigned:
                self._take_over(partition)
            if poll.records:
                began = began if self.totals.records else time.monotonic()
                self._process(poll.records)
                self.totals.seconds = time.monotonic() - began
            if time.monotonic() - passed >= self._config.checkpoint_s:
                self._checkpoint()
                passed = time.monotonic()
            if time.monotonic() - reported >= REPORT_S and poll.records:
                self._say(f"{self.totals.records:,} records, {self.totals.forecasts:,} forecasts")
                reported = time.monotonic()
        self._checkpoint()
        for partition in list(self._owned):
            self._drop(partition)
        return self.totals

    def _take_over(self, partition: int) -> None:
        """Rebuild a partition's windows as they were at its committed offset, and read on from there."""
        log, config = self._log, self._config
        committed = self._member.committed(partition)
        windows = window_config(self._predictor.inputs)
        found = checkpoint.recover(log, config.topic, config.state_topic, partition, committed, windows)
        for note in found.notes:
            self._say(f"{config.topic}/{partition}: {note}")
        if found.position is None or found.replay_from is None:
            bounds = log.bounds(config.topic)[partition]
            start = bounds.start if config.start == "earliest" else bounds.end
            owned = Partition(found.store, start, start)
        else:
            owned = Partition(found.store, found.replay_from, found.position)
            for records in log.read(config.topic, partition, found.replay_from, found.position):
                self._extend(owned.store, records)
            owned.store.counts = Counts()
        self._owned[partition] = owned
        self._member.seek(partition, owned.position)
        if found.position is None:
            self._pass(partition)

    def _drop(self, partition: int) -> None:
        counts = self._owned.pop(partition).store.counts
        self.totals.late += counts.late
        self.totals.duplicate += counts.duplicate

    def _process(self, polled: Mapping[int, Sequence[Record]]) -> None:
        """Steps 2 to 7 for one poll's records."""
        batch = [
            Extended(partition, records, *self._extend(self._owned[partition].store, records))
            for partition, records in polled.items()
        ]
        self._produce(batch)
        self._writer.flush()
        for partition, records in polled.items():
            self._owned[partition].position = records[-1].offset + 1
            self.totals.records += len(records)
        owned = self._owned
        self._member.commit(
            {p: Commit(owned[p].position, checkpoint.encode_metadata(owned[p].checkpoint)) for p in polled}
        )

    def _extend(
        self, store: WindowStore, records: Sequence[Record]
    ) -> tuple[Windows, list[tuple[Record, InvalidEvent]]]:
        decode, push = self._decode, store.push
        invalid: list[tuple[Record, InvalidEvent]] = []
        for place, record in enumerate(records):
            if record.value is None:
                continue
            try:
                push(decode(record), place)
            except InvalidEvent as error:
                invalid.append((record, error))
        return store.take(), invalid

    def _produce(self, batch: Sequence[Extended]) -> None:
        """Predict all partitions' windows in one call, and send what came of the batch."""
        windows = Windows.concat([extended.windows for extended in batch])
        outputs, label = self._predictor.outputs, self._predictor.label
        payloads = encode_forecasts(windows, self._predictor.predict(windows), outputs.targets, label)
        for partition, records, ready, invalid in batch:
            for series, place in zip(ready.series, ready.tag.tolist(), strict=True):
                self._send(self._config.output, partition, series.encode(), next(payloads), records[place])
            for record, error in invalid:
                value, headers = dead_letter(record, error)
                self._send(self._config.dead_letters, partition, record.key, value, record, headers)
            self.totals.dead_letters += len(invalid)
        self.totals.forecasts += len(windows)

    def _send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes,
        cause: Record,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """An output carries the time of the record that caused it, so that doing it again writes the same bytes."""
        timestamp = cause.timestamp if cause.timestamp >= 0 else None
        self._writer.send(topic, partition, key, value, timestamp=timestamp, headers=headers)

    def _checkpoint(self) -> None:
        for partition in self._owned:
            self._pass(partition)

    def _pass(self, partition: int) -> None:
        owned = self._owned[partition]
        record = checkpoint.PartitionRecord(position=owned.position, partitions=self._count, topic_id=self._topic_id)
        checkpoint.write_pass(self._passes, self._member, self._config.state_topic, partition, owned.store, record)
        owned.checkpoint = owned.position


def serve(config: ServeConfig, model: str, device: Device, bootstrap: str, tracking_uri: str) -> dict[str, object]:
    """`tidecast serve`: run until SIGTERM or Ctrl-C; what was done."""
    stop = Flag()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    predictor = fetch(model, tracking_uri, device)
    with closing(open_log(bootstrap)) as log:
        service = Service(log, predictor, config, say)
        say(f"{config.topic} -> {config.output} as {config.group}/{config.instance}, on {log.label}")
        say(f"{predictor.label} on {predictor.device}: {predictor.because}")
        totals = service.run(stop)
    say(f"stopped: {totals.records:,} records, {totals.forecasts:,} forecasts, {totals.dead_letters:,} dead letters")
    return {"model": predictor.label, "device": predictor.device, "output": config.output, **asdict(totals)}
