"""Files onto topics."""

import logging
from contextlib import closing

from deploy.console import progress
from deploy.settings.files import open_log
from pipeline.datasets.measurements import Columns, publish, read_file

logger = logging.getLogger(__name__)


def ingest(
    bootstrap: str, source: str, topic: str, columns: Columns, freq: str | None, partitions: int, speed: float | None
) -> dict[str, object]:
    """Publish a file to a topic; what was sent. Raises DataError before anything is."""
    found = read_file(source, columns, freq=freq)
    for note in found.notes:
        logger.info(note)
    with closing(open_log(bootstrap)) as log, progress(f"{source} -> {topic}", len(found.frame)) as report:
        sent = publish(
            found.frame, log, topic, partitions=partitions, speed=speed, on_progress=lambda done, _: report(done)
        )
    names = found.frame["series"].unique()
    series, called = len(names), f", {names[0]}," if len(names) == 1 else ""
    logger.info(f"{sent.events:,} events of {series:,} series{called} on {topic}")
    return {"topic": topic, "partitions": sent.partitions, "events": sent.events, "series": series}
