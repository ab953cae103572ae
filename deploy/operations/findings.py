"""The rules of `tidecast check` for topics and records: pure functions of what was read, each yielding findings."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from math import ceil
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from deploy.console import printable
from deploy.operations.sample import Sample
from deploy.settings.serve import ServeConfig
from model.card import Card
from model.levels import Levels
from pipeline.log.topics import TopicConfig
from pipeline.windows.grid import WindowConfig
from tidecast.freq import format_duration, round_up_duration

MIN_RETENTION = 3_600_000
"""Milliseconds of downtime that the input topic should cover."""
MAX_NAMED = 5
"""Most series that a finding lists by name."""
MOVED = 0.01
"""The share of events that may be in another step than their times' usual distance says."""


Verdict = Literal["ok", "warning", "wrong"]
VERDICTS: dict[str, Verdict] = {"read": "ok", "alert": "warning", "question": "wrong"}
"""By the kind of a note about how records are read."""


class Finding(NamedTuple):
    """One checked item: what it is about, the verdict, what was found, what to do about it, and its numbers."""

    about: str
    verdict: Verdict
    found: str
    todo: str = ""
    numbers: Mapping[str, int] = MappingProxyType({})


def format_partitions(count: int) -> str:
    """A number of partitions, as text."""
    return "1 partition" if count == 1 else f"{count} partitions"


def compacted_output(config: ServeConfig, topic: str, topic_config: TopicConfig) -> Iterator[Finding]:
    """Whether the output topic keeps the latest forecasts only."""
    if topic_config.compacted and topic == config.output:
        text = f"{topic} is compacted: only the latest forecast or label of each key is kept"
        yield Finding("topics", "warning", text, "set its cleanup.policy to delete")


def replication(topic: str, topic_config: TopicConfig) -> Iterator[Finding]:
    """Whether the loss of one of several brokers would lose records."""
    if topic_config.brokers > 1 and topic_config.replication == 1:
        text = f"{topic} has one replica: lost with its broker"
        yield Finding("topics", "warning", text, "replicate it, ideally 3 times")
    elif topic_config.brokers > 1 and topic_config.min_insync == 1:
        text = f"{topic} has min.insync.replicas 1: an acknowledged record may be on one broker only"
        yield Finding("topics", "warning", text, "set it to 2, with 3 replicas")


def retention(
    topic_config: TopicConfig | None, checkpoint_s: float, windows: WindowConfig | None, sample: Sample
) -> Iterator[Finding]:
    """Whether the input is kept long enough for a restart, a downtime and the model's look-back."""
    if topic_config is None:
        return
    limits = [] if topic_config.retention_ms is None else [float(topic_config.retention_ms)]
    if topic_config.retention_bytes is not None and sample.rate:
        limits.append(topic_config.retention_bytes / sample.rate)
    if not limits:
        yield Finding("retention", "ok", "no time limit" if topic_config.retention_bytes else "everything is kept")
        return
    kept, checkpoint_ms = min(limits), 1000 * checkpoint_s
    text = f"events are kept for {'' if kept == topic_config.retention_ms else 'about '}{format_duration(kept)}"
    todo = "raise retention.ms, and retention.bytes if it is set"
    if kept < checkpoint_ms:
        text += f", and a checkpoint is written every {format_duration(checkpoint_ms)}: a restart would lose some"
        yield Finding("retention", "wrong", text, todo)
    elif kept < MIN_RETENTION:
        yield Finding("retention", "warning", f"{text}: a service that is down for longer loses some", todo)
    span = windows and look_back(windows, sample.spacing)
    if span and kept < span:
        short = f"{text}, and the model looks back {format_duration(span)}: training on the topic sees too little, and "
        short += "a lost state topic can't be rebuilt from it; serving restores its checkpoint, and does not need it"
        yield Finding("retention", "warning", short, todo)
    elif kept >= MIN_RETENTION:
        yield Finding("retention", "ok", text)


def look_back(windows: WindowConfig, spacing: float | None) -> float | None:
    """The time that a window spans, in milliseconds; None if it depends on the events' spacing and that is unknown."""
    step = spacing if windows.grid is None else windows.grid.mean_step
    return None if step is None else windows.seq_len * step


def records(sample: Sample, partitions: int) -> Iterator[Finding]:
    """Whether the newest records are valid and keyed, and each series is in one partition."""
    if not sample.records:
        yield Finding("records", "ok", "none yet, so keys, times and partitions could not be checked")
        return
    invalid = sum(sample.invalid.values())
    reasons = "; ".join(sample.invalid.in_words())
    text = f"{invalid:,} of the newest {sample.records:,} are invalid" + (f": {reasons}" if invalid else "")
    todo = "tidecast tail shows them; [decode] in tidecast.toml says where an event's fields are"
    if invalid:
        yield Finding("records", "warning" if sample.valid else "wrong", text, todo)
    else:
        yield Finding("records", "ok", text)
    if sample.keyless and partitions > 1:
        text = f"{sample.keyless:,} of {sample.records:,} have no key: nothing keeps a series in one partition"
        yield Finding("keys", "warning", text, "write events with their series as key")
    if spread := sample.spread:
        named = ", ".join(map(printable, spread[:MAX_NAMED])) + (", .." if len(spread) > MAX_NAMED else "")
        text = f"{len(spread):,} of {len(sample.partitions):,} series are in several partitions, with a part of"
        text += f" their window in each: {named}"
        todo = "write a series' events with one key and one partitioner"
        yield Finding("keys", "wrong", text, todo)
    elif sample.partitions:
        yield Finding("keys", "ok", f"{len(sample.partitions):,} series, each in one partition")


def fields(sample: Sample) -> Iterator[Finding]:
    """From which fields events are read, whether there is another way, and a time that is not used."""
    for kind, text in sample.notes:
        what, decode, how = text.partition("[decode] ")
        yield Finding("fields", VERDICTS[kind], what.rstrip(": "), decode + how)


def series_count(sample: Sample, limit: int) -> Iterator[Finding]:
    """Whether the windows of all series are kept."""
    counts = Counter(partition for partitions in sample.partitions.values() for partition in partitions)
    if (most := max(counts.values(), default=0)) > limit:
        text = f"{most:,} series in a partition, and {limit:,} may be: events of further ones are dead letters"
        yield Finding("series", "warning", text, f"--series-limit {2 * most}, or more partitions")


def order(sample: Sample, windows: WindowConfig) -> Iterator[Finding]:
    """Whether events are in order, or no later than the allowed lateness."""
    if not sample.valid:
        return
    text = f"{sample.late:,} of {sample.valid:,} events are late"
    text += f", by up to {format_duration(sample.lateness)}" if sample.late else ""
    text += f", {sample.duplicate:,} duplicate a step" if sample.duplicate and windows.aggregate is None else ""
    if sample.lateness <= windows.lateness:
        yield Finding("order", "ok", text)
    else:
        todo = f"--lateness {round_up_duration(sample.lateness)} would wait for all of these"
        yield Finding("order", "warning", f"{text}: an event after a later step of its series is not used", todo)


def waiting(sample: Sample, windows: WindowConfig, limit: int) -> Iterator[Finding]:
    """Whether the steps that wait out the lateness fit into the memory allowed for them."""
    if not windows.lateness or sample.step_rate is None:
        return
    expected = round(sample.step_rate * windows.max_delay)
    text = f"about {expected:,} steps of a partition wait at a time, and {limit:,} may"
    if expected <= limit:
        yield Finding("waiting", "ok", text)
    else:
        text = f"{text}: the earliest are taken before their lateness, and events for them are late"
        todo = f"a shorter --lateness, more partitions, or --waiting-limit {2 * expected} (about 400 bytes each)"
        yield Finding("waiting", "warning", text, todo)


def values(sample: Sample, card: Card) -> Iterator[Finding]:
    """Whether the model would lose digits of any series' values, or winsorise some of them."""
    levels, found = Levels.of(card), defaultdict[str, list[str]](list)
    for series, rows in sample.values.items():
        losses: list[str] = []
        levels.lowered({"x": np.array(rows, np.float64)[None]}, losses.append)
        for loss in losses:
            found[loss].append(series)
    for loss, names in found.items():
        named = ", ".join(map(printable, names[:MAX_NAMED])) + (", .." if len(names) > MAX_NAMED else "")
        yield Finding("values", "warning", f"in {len(names):,} of {len(sample.values):,} series {loss}: {named}")


def spacing(sample: Sample, windows: WindowConfig) -> Iterator[Finding]:
    """Whether the events' spacing matches the model's grid."""
    grid, interval = windows.grid, sample.spacing
    if grid is None or interval is None:
        return
    ratio = interval / (grid.milliseconds or grid.mean_step)
    close = 0.1 if grid.months else 0.02
    text = f"a series' events are {format_duration(interval)} apart, and the model's steps {windows.freq}"
    todo = "serve a model that was trained on events like these"
    if abs(ratio - 1) <= close or (ratio < 1 and windows.aggregate):
        yield Finding("freq", "ok", text)
    elif ratio < 1:
        text += ": of several events in a step only the first is used"
        yield Finding("freq", "warning", text, todo)
    elif ceil(ratio - close) - 1 > windows.max_gap:
        text += f": more than the {windows.max_gap} missing steps that are filled, so no window is ever full"
        yield Finding("freq", "wrong", text, todo)
    else:
        yield Finding("freq", "warning", f"{text}: the missing steps are interpolated linearly", todo)


def steps(sample: Sample) -> Iterator[Finding]:
    """Whether the events are within the model's steps, and not around the border of two."""
    if sample.moved > MOVED * sample.intervals:
        text = f"{sample.moved:,} of {sample.intervals:,} events, around the border of two of the model's steps, are in"
        text += " another one than their spacing says: values are left out, and others made up"
        todo = "train the model again: its steps are then where the events are (--offset)"
        yield Finding("freq", "warning", text, todo)
