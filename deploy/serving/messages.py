"""What a micro-batch's forecasts or labels are sent as: a message each, or one of columns for each partition."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deploy.grading.state import GradedPart
from deploy.serving.forecast_batches import Faults
from deploy.serving.partition import DroppedRecords
from deploy.serving.tasks import PendingBatch, Task
from pipeline.formats.columnar.forecasts import Made, concat, encode_columns
from pipeline.formats.columnar.points import is_columnar, row_record
from pipeline.formats.headers import INPUT, Provenance, trace_context
from pipeline.log import Record
from pipeline.windows.batch import Windows


class PartitionBatch(NamedTuple):
    """One partition's part of a micro-batch: its records, the windows they completed, and those that were dropped."""

    partition: int
    records: Sequence[Record]
    pending: PendingBatch
    dropped: DroppedRecords
    graded: GradedPart | None = None


Message = tuple[int, bytes | None, bytes, Record, list[tuple[str, bytes]]]
"""A message's partition, key, value, the record that it came of, and its headers."""


class MessageWriter:
    """Writes the forecasts or labels of a micro-batch's pending windows or texts.

    Of one without an output, the record that completed it is dropped, or its row of a columnar record.
    """

    def __init__(self, batch: Sequence[PartitionBatch], pending: PendingBatch, of: Sequence[int], task: Task) -> None:
        """`of` is the number of the part that each pending one is of."""
        self._batch, self._pending, self._of, self._task = batch, pending, of, task
        self._records = [{record.offset: record for record in part.records} for part in batch]
        self._first = np.maximum(pending.first_offset, 0)

    def _headers(self, provenance: Mapping[str, str], topic: str) -> list[Provenance]:
        """Of each part."""
        return [Provenance({**provenance, INPUT: f"{topic}/{part.partition}"}) for part in self._batch]

    def each(
        self, outputs: Iterator[Any], provenance: Mapping[str, str], topic: str, faults: Faults
    ) -> Iterator[Message]:
        """A message for each. `topic` is the input."""
        headers, first, last = self._headers(provenance, topic), self._first.tolist(), self._pending.offset.tolist()
        messages = (message for chunk in outputs for message in self._task.encode(chunk))
        rows = zip(self._of, self._pending.keys, first, last, messages, strict=True)
        for number, (part, key, oldest, newest, message) in enumerate(rows):
            if number in faults.failed:
                self._drop(number, faults.failed[number])
                continue
            record = self._records[part][newest]
            traced = trace_context(record.headers) if record.headers else ()
            yield self._batch[part].partition, key, message, record, [headers[part].of(oldest, newest), *traced]

    def columnar(
        self, outputs: Iterator[Any], provenance: Mapping[str, str], topic: str, faults: Faults
    ) -> Iterator[Message]:
        """A message for each part, or several if it would be too large; those of several records have no trace."""
        headers, batches = self._headers(provenance, topic), list(outputs)
        for number in sorted(faults.failed):
            self._drop(number, faults.failed[number])
        if not batches:
            return
        made, of = Made(concat(batches), self._first, self._pending.offset), np.array(self._of)
        of[list(faults.failed)] = -1
        for part, (batch, records) in enumerate(zip(self._batch, self._records, strict=True)):
            rows = np.flatnonzero(of == part)
            for value, held in encode_columns(made if len(rows) == len(of) else made.chosen(rows)):
                oldest, newest = int(held.first.min()), int(held.last.max())
                yield batch.partition, None, value, records[newest], [headers[part].of(oldest, newest)]

    def _drop(self, number: int, why: str) -> None:
        """Drop what completed the pending one of this number."""
        part, pending = self._of[number], self._pending
        record = self._records[part][int(pending.offset[number])]
        if is_columnar(record.value) and isinstance(pending, Windows):
            values = pending.x[number, -1].tolist()
            record = row_record(record, pending.series[number], int(pending.ts[number]), values, self._task.features)
        self._batch[part].dropped.add_failed(record, why)
