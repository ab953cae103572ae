"""Where training data comes from: a topic or a file, read once, for all that train, evaluate or retrain."""

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any, Self

import polars as pl

from deploy.console import progress
from deploy.settings.files import decode_paths, open_log
from deploy.settings.locations import default_log
from deploy.settings.values import parse_feature_names, parse_words
from model.artifacts.versions import Dataset
from pipeline.datasets.columns import Columns
from pipeline.datasets.corpus import Corpus, read_corpus
from pipeline.datasets.history import History, between, from_frame, read_topic
from pipeline.datasets.measurements import Measurements, measurements, stem_of
from pipeline.datasets.tables import Table, read_table
from tidecast.errors import ConfigError, DataError
from tidecast.times import format_time

logger = logging.getLogger(__name__)

COLUMN_OPTIONS = {"series": "series_column", "ts": "time_column", "value": "value_column"} | {
    name: name for name in ("features", "decimal", "na", "timezone", "time_format", "max_skipped")
}
"""The options of a file's columns, by the fields of Columns."""


def columns_of(options: Mapping[str, Any]) -> Columns:
    """How a file is read, by a command's options, as text or typed. Raises ConfigError."""
    given = {name: options.get(option) for name, option in COLUMN_OPTIONS.items()}
    for name, value in given.items():
        if isinstance(value, str) and name in {"features", "na"}:
            given[name] = parse_feature_names(name, value) if name == "features" else parse_words(value)
    aggregated = options.get("aggregate") is not None
    return Columns(**{name: value for name, value in given.items() if value is not None}, aggregated=aggregated)


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A topic or a file of measurements, exactly one of them. Raises ConfigError for both or neither."""

    topic: str | None = None
    file: str | None = None
    """CSV, Parquet or JSON lines; - is stdin."""
    bootstrap: str = field(default_factory=default_log)
    """The address of the topic's log."""
    columns: Columns = field(default_factory=Columns)
    """The file's columns, and the features of either."""
    since: int | None = None
    """Epoch milliseconds, inclusive: of a topic only records written since then, of a file only events since then."""
    until: int | None = None
    """Epoch milliseconds, exclusive."""
    _read: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)
    """What was read of the file: it is read once."""

    @classmethod
    def of(cls, options: Mapping[str, Any], since: int | None = None, until: int | None = None) -> Self:
        """The source that a command's options name. Raises ConfigError."""
        return cls(
            topic=options.get("topic"),
            file=options.get("data"),
            bootstrap=options.get("bootstrap") or default_log(),
            columns=columns_of(options),
            since=since,
            until=until,
        )

    def __post_init__(self) -> None:
        if self.topic is not None and self.file is not None:
            raise ConfigError("give one of --topic and --data")
        if self.topic is None and self.file is None:
            raise ConfigError("data: give a file, --data, or a topic, --topic")

    @property
    def name(self) -> str:
        """The topic, or the file's name without its extensions."""
        return self.topic if self.topic is not None else stem_of(str(self.file))

    def with_features(self, features: tuple[str, ...], *, aggregated: bool = False) -> Self:
        """The same source, read for these features, which may be aggregated."""
        aggregated = aggregated or self.columns.aggregated
        return replace(self, columns=replace(self.columns, features=features, aggregated=aggregated))

    def read(self, freq: str | None) -> Self:
        """The same source, its file read: what is wrong with it is raised now. Raises DataError, ConfigError."""
        if self.file is not None:
            self._measurements(freq)
        return self

    def history(self, freq: str | None = None) -> History:
        """The measurements as a history, on a grid of `freq`.

        Raises DataError, also if there are no events; LogError, ConfigError.
        """
        if self.topic is not None:
            history, what, there = self._topic_history(self.topic), "events written", ""
        else:
            source = self._measurements(freq)
            history = between(from_frame(source.frame, source.notes), self.since, self.until)
            what, there = "events", _extent(source.frame)
        if history.frame.is_empty():
            ends = {"from": self.since, "before": self.until}
            when = "".join(f" {word} {format_time(ts)}" for word, ts in ends.items() if ts is not None)
            raise DataError(f"{self.name}: there are no {what if when else 'events'}{when}{there}")
        return history

    def zone(self, freq: str | None = None) -> str | None:
        """The zone whose clock the file's times are in; None if it is not known, or for a topic."""
        return None if self.file is None else self._measurements(freq).zone

    def dataset(self, history: History) -> Dataset:
        """What a run records about this history of the source."""
        features = [name for name in history.frame.columns if name not in ("partition", "offset", "series", "ts")]
        span = history.frame.select(first=pl.col("ts").min(), last=pl.col("ts").max()).row(0)
        if self.topic is None:
            kind, source = "file", dict[str, object](file=Path(str(self.file)).name)
        else:
            kind = "sqlite" if self.bootstrap.startswith("sqlite:") else "kafka"
            source = {"topic": self.topic, "offsets": {str(each): [*ends] for each, ends in history.offsets.items()}}
        size = {"events": len(history.frame), "series": history.frame["series"].n_unique()}
        times = {name: format_time(ts) for name, ts in zip(("from", "to"), span, strict=True) if ts is not None}
        numbers = history.frame.select("ts", *features).to_numpy().tobytes()
        return Dataset(
            name=self.name,
            kind=kind,
            source=source,
            digest=digest("\n".join(history.frame["series"]).encode(), numbers),
            columns=features,
            profile={**size, **times},
        )

    def table(self) -> Table:
        """The file as a table. Raises DataError, ConfigError for a topic."""
        if self.file is None:
            raise ConfigError("data: this needs a file, --data FILE")
        if self.file not in self._read:
            self._read[self.file] = read_table(self.file)
        table: Table = self._read[self.file]
        return table

    def _measurements(self, freq: str | None) -> Measurements:
        if (how := (self.columns, freq)) not in self._read:
            self._read[how] = read_measurements(self.table(), self.columns, freq, self.name)
        source: Measurements = self._read[how]
        return source

    def _topic_history(self, topic: str) -> History:
        with closing(open_log(self.bootstrap)) as log:
            held = sum(end - start for start, end in log.bounds(topic).values())
            with progress(f"read {topic}") as report:
                history = read_topic(
                    log,
                    topic,
                    self.columns.features,
                    since=self.since,
                    until=self.until,
                    paths=decode_paths(self.bootstrap),
                    on_progress=lambda done, total: report(done, total=total),
                )
        if (self.since, self.until) != (None, None):
            logger.info(f"{len(history.frame):,} events were written in that time; the topic has {held:,} records")
        for note in history.notes:
            logger.info(f"{topic}: {note}")
        _check_left_out(topic, history, self.columns.max_skipped)
        return history


def _extent(frame: pl.DataFrame) -> str:
    """From when to when events are, as the end of a line; empty if there are none."""
    if frame.is_empty():
        return ""
    first, last = frame.select(first=pl.col("ts").min(), last=pl.col("ts").max()).row(0)
    return f"; they are from {format_time(first)} to {format_time(last)}"


def _check_left_out(topic: str, history: History, largest: float) -> None:
    """Say which records are left out, and why. Raises DataError for a larger share."""
    count, why = history.invalid.total(), "; ".join(history.invalid.in_words())
    if not count:
        return
    share = count / (count + len(history.frame))
    what = f"{topic}: {count:,} of {count + len(history.frame):,} records ({100 * share:.3g} %) are left out"
    if share > largest:
        raise DataError(f"{what}: {why}. --max-skipped {ceil(100 * share) / 100:g} goes on without them")
    logger.warning(f"{what}: {why}")


def digest(*contents: bytes) -> str:
    """A digest of contents, as a run records it: 32 hexadecimal digits."""
    whole = sha256()
    for each in contents:
        whole.update(each)
    return whole.hexdigest()[:32]


def read_measurements(table: Table, columns: Columns, freq: str | None, stem: str) -> Measurements:
    """A file's measurements to train on, with a line for each assumption made; `stem` may name its series.

    Raises DataError.
    """
    source = measurements(table, columns, freq=freq, stem=stem)
    for note in source.notes:
        logger.info(note)
    return source.checked(columns.max_skipped)


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

    def dataset(self, corpus: Corpus) -> Dataset:
        """What a run records about this corpus of the source."""
        contents = digest("\n".join([*corpus.texts, *corpus.labels]).encode())
        profile = {"texts": len(corpus.texts)}
        file = {"file": Path(self.file).name}
        return Dataset(name=stem_of(self.file), kind="file", source=file, digest=contents, profile=profile)
