"""Whether a service's forecasts have become worse than they were, by its alerts, and the data from after the change."""

import logging
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import msgspec
import polars as pl

from deploy.grading.topics import topic_beside
from deploy.settings.files import open_log
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from model.card import InputSpec, OutputSpec
from model.evaluation.promotion import required_steps
from pipeline.datasets.history import History
from pipeline.formats.alerts import decode_alert
from pipeline.log import EventLog
from tidecast.errors import ConfigError, DataError, UnknownTopic
from tidecast.freq import format_duration
from tidecast.times import format_time

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCheck:
    """What makes a drift a reason to retrain."""

    bootstrap: str
    """The address of the alerts' log."""
    output: str
    """The output topic of the service that writes them."""
    share: float
    """The least share of series that drift before a model is trained again."""
    at_most_every: int
    """Milliseconds since the newest version was registered, before which none is trained."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"drift-share: {self.share:g} is no share of the series, above 0 and up to 1")

    def alerted(self, champion: Version) -> dict[str, int]:
        """Since when each series drifts of which that was noticed after the champion's training data, and not its end.

        Raises LogError, ConfigError, DataError.
        """
        with closing(open_log(self.bootstrap)) as log:
            return open_drifts(log, alerts_topic(log, self.output), trained_until(champion))

    def too_soon(self, registry: Registry, champion: Version) -> str:
        """Why it is too soon for another version; empty if it is not."""
        newest = registry.versions(champion.name)[0]
        age = max(0, int(time.time() * 1000) - newest.created)
        if age >= self.at_most_every:
            return ""
        wait = format_duration(self.at_most_every - age)
        return f"{newest.label} is {format_duration(age)} old: the next may be trained in {wait} (--at-most-every)"


@dataclass(frozen=True, slots=True)
class Drift:
    """The series that drift, with the time since which each does, of so many."""

    since: Mapping[str, int]
    series: int

    @classmethod
    def of(cls, alerted: Mapping[str, int], history: History, champion: Version) -> "Drift":
        """Of the series with events that are newer than the champion's training data."""
        served = history.frame.filter(pl.col("ts") > trained_until(champion))["series"].unique()
        there = set(served)
        return cls({series: since for series, since in alerted.items() if series in there}, len(there))

    @property
    def share(self) -> float:
        """Of the series."""
        return len(self.since) / max(1, self.series)

    @property
    def first(self) -> int:
        """Since when the first of them drifts."""
        return min(self.since.values())

    def in_words(self) -> str:
        """As a part of a line."""
        first = f", since {format_time(self.first)} UTC" if self.since else ""
        return f"{len(self.since):,} of {self.series:,} series ({self.share:.3g}) drift{first}"

    def facts(self) -> dict[str, object]:
        """As data."""
        since = {"since": format_time(self.first)} if self.since else {}
        return {"series": len(self.since), "of": self.series, "share": self.share, **since}

    def after(self, history: History) -> History:
        """The history from after the change: of a series that drifts from its own on, of others from the first on."""
        change = pl.col("series").replace_strict(dict(self.since), default=self.first, return_dtype=pl.Int64)
        return replace(history, frame=history.frame.filter(pl.col("ts") >= change))


def trained_until(champion: Version) -> int:
    """The time of the last event that a version has learned from, epoch milliseconds."""
    return int(champion.tags.get("trained_until", 0))


def alerts_topic(log: EventLog, output: str) -> str:
    """The topic of the alerts beside an output. Raises UnknownTopic or ConfigError, saying what to give."""
    with suppress(UnknownTopic):
        if topic := topic_beside(log, output, "alerts"):
            return topic
    raise UnknownTopic(
        f"there is no topic {output}-alerts: no service has written alerts; serve without --no-alerts does, or "
        "--output names the output of the service that did"
    )


def open_drifts(log: EventLog, topic: str, after: int) -> dict[str, int]:
    """Since when each series drifts, of the drifts that were noticed after a time and whose end was not.

    Raises LogError; DataError if the records are no alerts.
    """
    since: dict[tuple[str, str | None], int] = {}
    alerts = others = 0
    for records in log.read_partitions(topic, log.bounds(topic)):
        for record in records:
            try:
                alert = decode_alert(record.value or b"")
            except msgspec.DecodeError:
                others += 1
                continue
            alerts += 1
            if alert.kind == "drift" and alert.phase == "end":
                since.pop((alert.series, alert.target), None)
            elif alert.kind == "drift" and alert.ts > after:
                since[alert.series, alert.target] = alert.since
    if others and not alerts:
        raise DataError(f"{topic}: none of its {others:,} records is an alert of Tidecast")
    if others:
        logger.warning(f"{topic}: {others:,} records are no alerts, and are left out")
    found: dict[str, int] = {}
    for (series, _), start in since.items():
        found[series] = max(start, found.get(series, start))
    return found


def missing_steps(history: History, champion: Version) -> int:
    """How many more events a history from after a change needs to have for a window to learn from, one to choose by,
    and a decision, in its longest series; 0 if it may have enough.
    """
    inputs = msgspec.json.decode(champion.tags["input"], type=InputSpec)
    horizon = msgspec.json.decode(champion.tags["output"], type=OutputSpec).horizon
    longest = max(history.frame["series"].value_counts()["count"].to_list(), default=0)
    return max(0, inputs.seq_len + 2 * horizon + required_steps(horizon) - longest)
