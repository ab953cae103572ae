"""`tidecast ingest`: publish a file's measurements to a topic."""

import logging
from contextlib import closing

import polars as pl

from deploy.console import progress
from deploy.settings.files import open_log
from pipeline.datasets.columns import Columns
from pipeline.datasets.measurements import publishable, read_file
from pipeline.ingest.publish import Published, publish
from pipeline.log import EventLog
from pipeline.progress import Progress, silent

logger = logging.getLogger(__name__)


def ingest(
    bootstrap: str, source: str, topic: str, columns: Columns, freq: str | None, partitions: int, speed: float | None
) -> dict[str, object]:
    """`tidecast ingest`: publish a file to a topic; a summary. Raises DataError before anything is sent."""
    measurements = read_file(source, columns, freq=freq)
    for note in measurements.notes:
        logger.info(note)
    with closing(open_log(bootstrap)) as log, progress(f"{source} -> {topic}", len(measurements.frame)) as report:
        published = publish_frame(
            measurements.frame, log, topic, partitions=partitions, speed=speed, on_progress=lambda done, _: report(done)
        )
    names = measurements.frame["series"].unique()
    series, name = len(names), f", {names[0]}," if len(names) == 1 else ""
    logger.info(f"{published.events:,} events of {series:,} series{name} on {topic}")
    return {"topic": topic, "partitions": published.partitions, "events": published.events, "series": series} | {
        "notes": measurements.notes
    }


def publish_frame(
    frame: pl.DataFrame,
    log: EventLog,
    topic: str,
    *,
    partitions: int,
    speed: float | None = None,
    on_progress: Progress = silent,
) -> Published:
    """Send a frame's measurements to a topic, by time. Raises DataError for times that no topic takes."""
    features = frame.drop("series", "ts").columns
    return publish(
        publishable(frame),
        log,
        topic,
        features=features,
        total=len(frame),
        partitions=partitions,
        speed=speed,
        on_progress=on_progress,
    )
