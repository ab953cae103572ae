"""`tidecast ingest`: publish a file's measurements to a topic."""

import logging
from collections.abc import Mapping
from contextlib import closing
from functools import partial

import polars as pl

from deploy.console import progress
from deploy.settings.files import decode_paths, open_log
from deploy.settings.serve import Format
from pipeline.datasets.columns import Columns
from pipeline.datasets.measurements import publishable, publishable_columns, read_file
from pipeline.formats.events import Decoder
from pipeline.ingest.publish import Published, newest_times, publish, publish_columns
from pipeline.log import EventLog
from pipeline.progress import Progress, silent

logger = logging.getLogger(__name__)


def ingest(
    bootstrap: str,
    source: str,
    topic: str,
    columns: Columns,
    freq: str | None,
    partitions: int,
    speed: float | None,
    *,
    only_newer: bool = False,
    message_format: Format = "json",
) -> dict[str, object]:
    """`tidecast ingest`: publish a file to a topic; a summary. Raises DataError before anything is sent."""
    measurements = read_file(source, columns, freq=freq)
    for note in measurements.notes:
        logger.info(note)
    frame = measurements.frame
    with closing(open_log(bootstrap)) as log:
        if only_newer:
            decode = Decoder(tuple(frame.drop("series", "ts").columns), paths=decode_paths(bootstrap)).decode
            frame = _later(frame, newest_times(log, topic, decode))
            before = len(measurements.frame) - len(frame)
            logger.info(f"{before:,} of {len(measurements.frame):,} are not later than what {topic} has: left out")
        with progress(f"{source} -> {topic}", len(frame)) as report:
            published = publish_frame(
                frame,
                log,
                topic,
                partitions=partitions,
                speed=speed,
                message_format=message_format,
                on_progress=lambda done, _: report(done),
            )
    names = measurements.frame["series"].unique()
    series, name = len(names), f", {names[0]}," if len(names) == 1 else ""
    logger.info(f"{published.events:,} events of {series:,} series{name} on {topic}")
    found = {"topic": topic, "partitions": published.partitions, "events": published.events, "series": series}
    left_out = {"left_out": len(measurements.frame) - len(frame)} if only_newer else {}
    return found | left_out | {"notes": measurements.notes}


def _later(frame: pl.DataFrame, newest: Mapping[str, int]) -> pl.DataFrame:
    """The measurements that are later than the newest event of their series."""
    known = pl.DataFrame({"series": [*newest], "newest": [*newest.values()]}, {"series": pl.String, "newest": pl.Int64})
    joined = frame.join(known, on="series", how="left", maintain_order="left")
    return joined.filter(pl.col("newest").is_null() | (pl.col("ts") > pl.col("newest"))).drop("newest")


def publish_frame(
    frame: pl.DataFrame,
    log: EventLog,
    topic: str,
    *,
    partitions: int,
    speed: float | None = None,
    message_format: Format = "json",
    on_progress: Progress = silent,
) -> Published:
    """Send a frame's measurements to a topic, by time. Raises DataError for times that no topic takes."""
    features = frame.drop("series", "ts").columns
    columnar = message_format == "arrow"
    send = partial(publish_columns, publishable_columns(frame)) if columnar else partial(publish, publishable(frame))
    return send(
        log,
        topic,
        features=features,
        total=len(frame),
        partitions=partitions,
        speed=speed,
        on_progress=on_progress,
    )
