"""What `tidecast check` finds out about topics and records, each as a finding: pure judgements, without a log."""

from collections.abc import Iterator
from math import ceil
from typing import Literal, NamedTuple

from deploy.console import printable
from deploy.operations.sample import Sample
from deploy.settings.serve import ServeConfig
from pipeline.log import TopicConfig
from pipeline.windows.grid import WindowConfig
from tidecast.freq import format_duration, round_up_duration

OUTAGE = 3_600_000
"""Milliseconds for which a service may well be away."""
NAMED = 5
"""Most series that are named."""


class Finding(NamedTuple):
    """One thing that was looked at, how it is, and what to do about it."""

    about: str
    verdict: Literal["ok", "warning", "wrong"]
    found: str
    todo: str = ""


def count_of_partitions(count: int) -> str:
    """A number of partitions in words."""
    return "1 partition" if count == 1 else f"{count} partitions"


def compaction(config: ServeConfig, topic: str, compacted: bool) -> Iterator[Finding]:
    """Whether a topic that must not be compacted is, and the other way round."""
    todo = "set its cleanup.policy to delete"
    if topic == config.state_topic:
        if not compacted:
            found = f"{topic} is not compacted: it grows for ever, or forgets windows"
            yield Finding("topics", "wrong", found, "set its cleanup.policy to compact")
    elif compacted and topic == config.output:
        yield Finding("topics", "warning", f"{topic} is compacted: only each key's newest answer is kept", todo)
    elif compacted and topic == config.topic:
        found = f"{topic} is compacted: events vanish from it, so windows would have holes; serve refuses it"
        yield Finding("topics", "wrong", found, f"{todo}, or copy what comes to a topic that has it")
    elif compacted:
        yield Finding("topics", "wrong", f"{topic} is compacted: it loses letters, and takes none without a key", todo)


def replication(topic: str, topic_config: TopicConfig) -> Iterator[Finding]:
    """Whether losing one of several brokers would lose records."""
    if topic_config.brokers > 1 and topic_config.replication == 1:
        yield Finding("topics", "warning", f"{topic} lies on one broker: lost with it", "replicate it, at best 3 times")
    elif topic_config.brokers > 1 and topic_config.min_insync == 1:
        found = f"{topic} has min.insync.replicas 1: what is acknowledged may lie on one broker only"
        yield Finding("topics", "warning", found, "set it to 2, with 3 replicas")


def retention(
    topic_config: TopicConfig | None, checkpoint_s: float, windows: WindowConfig | None, found: Sample
) -> Iterator[Finding]:
    """Whether the input is kept for as long as a restart, an outage and a look-back need."""
    if topic_config is None:
        return
    limits = [] if topic_config.retention_ms is None else [float(topic_config.retention_ms)]
    if topic_config.retention_bytes is not None and found.rate:
        limits.append(topic_config.retention_bytes / found.rate)
    if not limits:
        yield Finding("retention", "ok", "no limit in time" if topic_config.retention_bytes else "everything is kept")
        return
    kept, every = min(limits), 1000 * checkpoint_s
    text = f"events are kept for {'' if kept == topic_config.retention_ms else 'about '}{format_duration(kept)}"
    todo = "raise retention.ms, and retention.bytes if it is set"
    if kept < every:
        found_wrong = f"{text}, and a checkpoint comes every {format_duration(every)}: a restart would miss some"
        yield Finding("retention", "wrong", found_wrong, todo)
    elif kept < OUTAGE:
        yield Finding("retention", "warning", f"{text}: a service that is away for longer misses some", todo)
    back = windows and look_back(windows, found.spacing)
    if back and kept < back:
        short = f"{text}, and the model looks back {format_duration(back)}: training on the topic sees too little, and "
        short += "a lost state topic can't be made again from it; serving goes by its checkpoint, and does not need it"
        yield Finding("retention", "warning", short, todo)
    elif kept >= OUTAGE:
        yield Finding("retention", "ok", text)


def look_back(windows: WindowConfig, spacing: float | None) -> float | None:
    """How far a window reaches back, milliseconds; None where only events would tell, and too few are there."""
    step = spacing if windows.grid is None else windows.grid.mean_step
    return None if step is None else windows.seq_len * step


def records(found: Sample, partitions: int) -> Iterator[Finding]:
    """Whether the newest records are valid, keyed, and each series in one partition."""
    if not found.records:
        yield Finding("records", "ok", "none yet, so keys, times and partitions could not be looked at")
        return
    refused = sum(found.invalid.values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in found.invalid.most_common())
    text = f"{refused:,} of the newest {found.records:,} are no events" + (f": {reasons}" if refused else "")
    todo = "tidecast tail shows them; are the model's features called as theirs?"
    if refused:
        yield Finding("records", "warning" if found.valid else "wrong", text, todo)
    else:
        yield Finding("records", "ok", text)
    if found.keyless and partitions > 1:
        text = f"{found.keyless:,} of {found.records:,} have no key: nothing holds a series to one partition"
        yield Finding("keys", "warning", text, "write events with their series as key")
    if spread := found.spread:
        named = ", ".join(map(printable, spread[:NAMED])) + (", .." if len(spread) > NAMED else "")
        text = f"{len(spread):,} of {len(found.partitions):,} series lie in several partitions, with a part of"
        text += f" their window in each: {named}"
        todo = "write a series' events with one key, and by one partitioner"
        yield Finding("keys", "wrong", text, todo)
    elif found.partitions:
        yield Finding("keys", "ok", f"{len(found.partitions):,} series, each in one partition")


def order(found: Sample, windows: WindowConfig) -> Iterator[Finding]:
    """Whether events come in the order of their times, or as little late as is allowed for."""
    if not found.valid:
        return
    text = f"{found.late:,} of {found.valid:,} events come late"
    text += f", by up to {format_duration(found.lateness)}" if found.late else ""
    text += f", {found.duplicate:,} repeat a step" if found.duplicate and windows.aggregate is None else ""
    if found.lateness <= windows.lateness:
        yield Finding("order", "ok", text)
    else:
        todo = f"--lateness {round_up_duration(found.lateness)} waits for all of these"
        yield Finding("order", "warning", f"{text}: what comes after a later step of its series is not used", todo)


def spacing(found: Sample, windows: WindowConfig) -> Iterator[Finding]:
    """Whether the grid is that of the events."""
    grid, apart = windows.grid, found.spacing
    if grid is None or apart is None:
        return
    ratio = apart / grid.mean_step
    close = 0.1 if grid.months else 0.02
    text = f"a series' events are {format_duration(apart)} apart, and the model's steps {windows.freq}"
    todo = "serve a model that was trained on events like these"
    if abs(ratio - 1) <= close or (ratio < 1 and windows.aggregate):
        yield Finding("freq", "ok", text)
    elif ratio < 1:
        text += ": of several events in a step the first is used, the others are duplicates"
        yield Finding("freq", "warning", text, todo)
    elif ceil(ratio - close) - 1 > windows.max_gap:
        text += f": longer than the {windows.max_gap} missing steps that are filled, so no window is ever full"
        yield Finding("freq", "wrong", text, todo)
    else:
        yield Finding("freq", "warning", f"{text}: the steps between are filled on straight lines", todo)
