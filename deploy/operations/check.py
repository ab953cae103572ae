"""What is wrong with a configuration, before anything starts: nothing is written, no group is joined."""

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, NamedTuple

from rich.console import Console
from rich.text import Text

from deploy.console import printable
from deploy.operations.sample import Sample, sample
from deploy.serving.predictor import Predictor, load_model
from deploy.serving.tasks import Task, task_of
from deploy.settings.files import open_log
from deploy.settings.serve import ServeConfig, window_config
from deploy.settings.values import Device
from model.card import Card
from pipeline.log import EventLog, TopicConfig
from pipeline.state import checkpoint
from pipeline.windows.grid import Grid, WindowConfig
from tidecast.errors import NotAuthorized, RegistryUnavailable, StateMismatch, TidecastError, UnknownTopic
from tidecast.freq import format_duration, round_up_duration

logger = logging.getLogger(__name__)

OUTAGE = 3_600_000
"""Milliseconds for which a service may well be away."""
NAMED = 5
"""Most series that are named."""
STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


class Finding(NamedTuple):
    """One thing that was looked at, how it is, and what to do about it."""

    about: str
    verdict: Literal["ok", "warning", "wrong"]
    found: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be served, its work, and its windows, if it has any."""

    predictor: Predictor
    task: Task
    windows: WindowConfig | None

    @property
    def grid(self) -> Grid | None:
        """The grid that its windows lie on."""
        return None if self.windows is None else self.windows.grid


def check(
    config: ServeConfig,
    model: str,
    device: Device,
    bootstrap: str,
    tracking_uri: str,
    *,
    as_json: bool = False,
) -> dict[str, object]:
    """`tidecast check`: look at all that a service would use, and print it unless it is wanted as JSON.

    Raises LogUnavailable, RegistryUnavailable.
    """
    with closing(open_log(bootstrap)) as log:
        findings = []
        for finding in _findings(log, config, model, device, tracking_uri):
            findings.append(finding)
            if not as_json:
                _print(finding)
    wrong, warnings = (sum(each.verdict == kind for each in findings) for kind in ("wrong", "warning"))
    logger.info(f"{wrong or 'nothing'} wrong, {warnings or 'no'} warning{'s' * (warnings != 1)}")
    return {"wrong": wrong, "warnings": warnings, "findings": [finding._asdict() for finding in findings]}


def _print(finding: Finding) -> None:
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    about, verdict, found, todo = finding
    console.print(Text.assemble((f"{verdict:<9}", STYLES[verdict]), (f"{about:<13}", "bold"), found))
    if todo:
        console.print(Text(f"{'':<22}-> {todo}"))


def _findings(log: EventLog, config: ServeConfig, name: str, device: Device, tracking_uri: str) -> Iterator[Finding]:
    yield Finding("log", "ok", log.label)
    model: Model | None = None
    try:
        model = _model(config, name, tracking_uri, device)
    except RegistryUnavailable:
        raise
    except TidecastError as error:
        yield Finding("model", "wrong", str(error))
    if model is not None:
        predictor = model.predictor
        yield Finding("model", "ok", f"{predictor.label} on {predictor.device}: {predictor.device_reason}")
        config = replace(config, output=config.output or f"{config.topic}-{model.task.output_kind}")
    try:
        count = log.partitions(config.topic)
    except UnknownTopic as error:
        yield Finding("topic", "wrong", str(error), "make it, or fill it with tidecast ingest")
        return
    yield Finding("topic", "ok", f"{config.topic} has {_parts(count)}")
    yield from _topics(log, config, count, model)
    if model is not None:
        yield from _state(log, config, count, model.task)
        found = sample(log, config.topic, model.task.decode, model.grid)
        yield from retention(_topic_config(log, config.topic), config.checkpoint_s, model.windows, found)
        yield from _records(found, count)
        if model.windows is not None:
            yield from order(found, model.windows)
            yield from spacing(found, model.windows)


def _model(config: ServeConfig, name: str, tracking_uri: str, device: Device) -> Model:
    predictor = load_model(name, tracking_uri, device)
    card, task = predictor.card, task_of(predictor, config)
    return Model(predictor, task, window_config(card.input, config.lateness) if isinstance(card, Card) else None)


def _topic_config(log: EventLog, topic: str) -> TopicConfig | None:
    """A topic's configuration; None where it may not be read. Raises UnknownTopic."""
    try:
        return log.topic_config(topic)
    except NotAuthorized:
        return None


def _topics(log: EventLog, config: ServeConfig, count: int, model: Model | None) -> Iterator[Finding]:
    """The input and what is written, as far as it is there."""
    written = (config.output, config.state_topic, config.dead_letters, config.late_topic)
    for topic in filter(None, (config.topic, *written)):
        try:
            partitions, topic_config = log.partitions(topic), _topic_config(log, topic)
        except UnknownTopic:
            yield Finding("topics", "ok", f"{topic} will be made with {_parts(count)}")
            continue
        notable = list[Finding]()
        if partitions < count:
            text = f"{topic} has {_parts(partitions)}, and {config.topic} {count}"
            notable.append(Finding("topics", "wrong", text, "give it as many"))
        if topic_config is None:
            todo = "allow DescribeConfigs on it, and check again"
            notable.append(Finding("topics", "warning", f"{topic}: its settings may not be read", todo))
        else:
            notable += compaction(config, topic, topic_config.compacted)
            notable += replication(topic, topic_config)
            if topic == config.state_topic and model is not None:
                notable += _state_size(topic, topic_config, model)
        yield from notable
        if not notable and topic != config.topic:
            yield Finding("topics", "ok", f"{topic} has {_parts(partitions)}")


def _parts(count: int) -> str:
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


def _state_size(topic: str, topic_config: TopicConfig, model: Model) -> Iterator[Finding]:
    """Whether a series' state is too large a record."""
    if model.windows is None:
        return
    steps = model.windows.seq_len * len(model.windows.features)
    size = 4 * steps + steps // 8 + 8 * model.windows.seq_len + 1024
    if size > topic_config.max_message_bytes:
        found = f"{topic} takes {topic_config.max_message_bytes:,} bytes at once, and a series' windows have {size:,}"
        yield Finding("topics", "wrong", found, f"set its max.message.bytes to {2 * size}")


def _state(log: EventLog, config: ServeConfig, count: int, task: Task) -> Iterator[Finding]:
    """Whether the group's state belongs to this model and topic."""
    try:
        log.partitions(config.state_topic)
    except UnknownTopic:
        if log.committed(config.group, config.topic):
            found = f"{config.group} has offsets on {config.topic}, and {config.state_topic} is gone"
            yield Finding("state", "wrong", found, "use another --group, or delete the group's offsets")
        else:
            yield Finding("state", "ok", f"{config.group} is new")
        return
    try:
        notes = [note for partition in range(count) for note in _notes(log, config, partition, task)]
    except StateMismatch as error:
        yield Finding("state", "wrong", str(error))
        return
    yield from (Finding("state", "warning", note) for note in notes)
    if not notes:
        yield Finding("state", "ok", f"what {config.state_topic} holds fits")


def _notes(log: EventLog, config: ServeConfig, partition: int, task: Task) -> list[str]:
    """What a service that takes over a partition would say. Raises StateMismatch."""
    while True:
        committed = log.committed(config.group, config.topic).get(partition)
        try:
            found = checkpoint.recover(
                log, config.topic, config.state_topic, partition, committed, task.windower(), config.lost
            )
        except StateMismatch:
            newer = log.committed(config.group, config.topic).get(partition)
            if (newer and newer.metadata) == (committed and committed.metadata):
                raise
            continue  # a service at work has written a checkpoint in between
        return [f"{config.topic}/{partition}: {note}" for note in found.notes]


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


def _records(found: Sample, partitions: int) -> Iterator[Finding]:
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
