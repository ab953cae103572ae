"""The history of a topic, or a file, as one frame: rows in (partition, offset) order, as serving consumes them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from pipeline.formats.decoding import DESCRIBED, Decode, Refusals, decode_records
from pipeline.formats.events import Decoder, Event
from pipeline.formats.paths import Paths
from pipeline.log import EventLog, Record
from pipeline.progress import Progress, silent
from pipeline.windows.grid import WindowConfig
from pipeline.windows.sliding import SlidingWindows, sliding_windows
from tidecast.errors import ConfigError

CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class History:
    """Events, with their partitions and offsets.

    `frame` has partition (Int32), offset (Int64), series (String), ts (Int64, epoch ms) and a Float64 column a
    feature. `offsets` are the ranges read, start <= offset < end. `invalid` counts invalid records by their
    reason, `tombstones` those without a value; neither are in the frame.
    """

    frame: pl.DataFrame
    offsets: Mapping[int, tuple[int, int]]
    invalid: Refusals
    tombstones: int = 0
    notes: tuple[str, ...] = ()
    """What the user should know about how it was read."""


def read_topic(
    log: EventLog,
    topic: str,
    features: Sequence[str] = ("value",),
    *,
    since: int | None = None,
    until: int | None = None,
    paths: Paths | None = None,
    on_progress: Progress = silent,
) -> History:
    """Read all of a topic up to now, or its records with timestamps since <= t < until (epoch ms).

    `paths` lead to fields that are not found by their names. Raises UnknownTopic, LogUnavailable, and ConfigError for
    records that can be read in two ways.
    """
    ranges = _ranges(log, topic, since, until)
    total = sum(end - start for start, end in ranges.values())
    decoder = Decoder(tuple(features), paths=paths or Paths())
    invalid, notes, tombstones = Refusals(), list[str](), 0
    parts = [_frame(features, 0, [])]
    done = 0
    for partition, (start, end) in ranges.items():
        rows: list[tuple[int, Event]] = []
        for records in log.read(topic, partition, start, end):
            notes += _notes(topic, decoder, records[:DESCRIBED] if records[0].offset == start else ())
            rows += _events(decoder.decode, records, invalid)
            tombstones += sum(record.value is None for record in records)
            on_progress(done + records[-1].offset + 1 - start, total)
            if len(rows) >= CHUNK:
                parts.append(_frame(features, partition, rows))
                rows = []
        parts.append(_frame(features, partition, rows))
        done += end - start
    on_progress(total, total)
    notes += _notes(topic, decoder)
    return History(pl.concat(parts), ranges, invalid, tombstones, tuple(notes))


def from_frame(frame: pl.DataFrame, notes: tuple[str, ...] = ()) -> History:
    """A file's measurements as the history of a topic of one partition: by time, with offsets from 0."""
    rows = frame.sort("ts", maintain_order=True).with_row_index("offset")
    place = (pl.lit(0, pl.Int32).alias("partition"), pl.col("offset").cast(pl.Int64))
    return History(rows.select(*place, pl.exclude("offset")), {0: (0, len(rows))}, Refusals(), notes=notes)


def before(history: History, end: int) -> History:
    """The events before a time, in epoch milliseconds."""
    return between(history, None, end)


def between(history: History, since: int | None, until: int | None) -> History:
    """The events with since <= ts < until, in epoch milliseconds."""
    frame = history.frame
    if since is not None:
        frame = frame.filter(pl.col("ts") >= since)
    return replace(history, frame=frame if until is None else frame.filter(pl.col("ts") < until))


def windows(history: History, config: WindowConfig) -> SlidingWindows:
    """Every window that serving this history would have completed, in the config's features.

    A series in several partitions becomes several, called `name@partition`: windows never span partitions.
    """
    spread = pl.col("partition").n_unique().over("series") > 1
    placed = pl.concat_str("series", pl.lit("@"), "partition")
    frame = history.frame.with_columns(pl.when(spread).then(placed).otherwise("series").alias("series"))
    values = frame.select(config.features).to_numpy()
    columns = (frame["series"].to_list(), frame["ts"].to_numpy(), values)
    return sliding_windows(*columns, config, frame["partition"].to_numpy())


def _ranges(log: EventLog, topic: str, since: int | None, until: int | None) -> dict[int, tuple[int, int]]:
    held = log.bounds(topic)
    first = {} if since is None else log.offsets_at(topic, since)
    last = {} if until is None else log.offsets_at(topic, until)
    ranges = {}
    for partition, (start, end) in sorted(held.items()):
        stop = min(last.get(partition, end), end)
        ranges[partition] = (min(max(first.get(partition, start), start), stop), stop)
    return ranges


def _notes(topic: str, decoder: Decoder, records: Sequence[Record] = ()) -> Iterator[str]:
    """How records are read, as far as it is new. Raises ConfigError if there are two ways."""
    for note in decoder.describe(records):
        if note.kind == "question":
            raise ConfigError(f"{topic}: {note.text}")
        yield note.text


def _events(decode: Decode, records: Sequence[Record], invalid: Refusals) -> Iterator[tuple[int, Event]]:
    for record, events, error in decode_records(records, decode):
        if error is not None:
            invalid.add(record, error)
        yield from ((record.offset, event) for event in events)


def _frame(features: Sequence[str], partition: int, rows: Sequence[tuple[int, Event]]) -> pl.DataFrame:
    values = zip(*(event.values for _, event in rows), strict=True) if rows else [()] * len(features)
    return pl.DataFrame(
        [
            pl.repeat(partition, len(rows), dtype=pl.Int32, eager=True).alias("partition"),
            pl.Series("offset", [offset for offset, _ in rows], pl.Int64),
            pl.Series("series", [event.series for _, event in rows], pl.String),
            pl.Series("ts", [event.ts for _, event in rows], pl.Int64),
            *(pl.Series(name, column, pl.Float64) for name, column in zip(features, values, strict=True)),
        ]
    )
