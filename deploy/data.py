"""Where training data comes from: a topic or a file, read once, for all that train, evaluate or retrain."""

import logging
from contextlib import closing
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Self

from deploy.console import progress
from deploy.settings.files import decode_paths, open_log
from deploy.settings.locations import DEFAULT_LOG
from pipeline.datasets.columns import Columns
from pipeline.datasets.corpus import Corpus, read_corpus
from pipeline.datasets.history import History, between, from_frame, read_topic
from pipeline.datasets.measurements import measurements, stem_of
from pipeline.datasets.tables import Table, read_table
from tidecast.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

MAX_SKIPPED = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """A topic or a file of measurements, exactly one of them. Raises ConfigError for both or neither."""

    topic: str | None = None
    file: str | None = None
    """CSV, Parquet or JSON lines; - is stdin."""
    bootstrap: str = DEFAULT_LOG
    """The address of the topic's log."""
    columns: Columns = field(default_factory=Columns)
    """The file's columns, and the features of either."""
    since: int | None = None
    """Epoch milliseconds, inclusive: of a topic only records written since then, of a file only events since then."""
    until: int | None = None
    """Epoch milliseconds, exclusive."""
    max_skipped: float = MAX_SKIPPED
    """The largest share of a topic's records that may be left out."""

    def __post_init__(self) -> None:
        if self.topic is not None and self.file is not None:
            raise ConfigError("give one of --topic and --data")
        if self.topic is None and self.file is None:
            raise ConfigError("data: give a file, --data, or a topic, --topic")

    @property
    def name(self) -> str:
        """The topic, or the file's name without its extensions."""
        return self.topic if self.topic is not None else stem_of(str(self.file))

    def with_features(self, features: tuple[str, ...]) -> Self:
        """The same source, read for these features."""
        return replace(self, columns=replace(self.columns, features=features))

    def history(self, freq: str | None = None) -> History:
        """The measurements as a history, on a grid of `freq`. Raises DataError, LogError, ConfigError."""
        if self.topic is not None:
            return self._topic_history(self.topic)
        return between(table_history(self.table(), self.columns, freq, self.name), self.since, self.until)

    def table(self) -> Table:
        """The file as a table. Raises DataError, ConfigError for a topic."""
        if self.file is None:
            raise ConfigError("data: this needs a file, --data FILE")
        return read_table(self.file)

    def _topic_history(self, topic: str) -> History:
        with closing(open_log(self.bootstrap)) as log:
            total = sum(end - start for start, end in log.bounds(topic).values())
            with progress(f"read {topic}", total) as report:
                history = read_topic(
                    log,
                    topic,
                    self.columns.features,
                    since=self.since,
                    until=self.until,
                    paths=decode_paths(self.bootstrap),
                    on_progress=lambda done, _: report(done),
                )
        if (self.since, self.until) != (None, None):
            logger.info(f"{len(history.frame):,} events were written in that time; the topic has {total:,} records")
        for note in history.notes:
            logger.info(f"{topic}: {note}")
        _check_left_out(topic, history, self.max_skipped)
        return history


def _check_left_out(topic: str, history: History, largest: float) -> None:
    """Say which records are left out, and why. Raises DataError for a larger share."""
    count, why = history.invalid.total(), "; ".join(history.invalid.in_words())
    if not count:
        return
    share = count / (count + len(history.frame))
    what = f"{topic}: {count:,} of {count + len(history.frame):,} records ({100 * share:.2g} %) are left out"
    if share > largest:
        raise DataError(f"{what}: {why}. --max-skipped {ceil(100 * share) / 100:g} goes on without them")
    logger.warning(f"{what}: {why}")


def table_history(table: Table, columns: Columns, freq: str | None, stem: str) -> History:
    """A file's table as a history, with a line for each assumption made; `stem` may name its series.

    Raises DataError.
    """
    source = measurements(table, columns, freq=freq, stem=stem)
    for note in source.notes:
        logger.info(note)
    return from_frame(source.frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSource:
    """A file of labelled texts, and its columns; None is found by name."""

    file: str
    text: str | None = None
    label: str | None = None
    group: str | None = None

    def corpus(self) -> Corpus:
        """The labelled texts, with a line for the rows that were skipped. Raises DataError."""
        corpus = read_corpus(self.file, self.text, self.label, self.group)
        for note in corpus.notes:
            logger.info(note)
        return corpus
