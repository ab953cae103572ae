"""What is wrong with a configuration, before anything starts: nothing is written, no group is joined."""

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from rich.console import Console
from rich.text import Text

from deploy.operations.findings import (
    Finding,
    compaction,
    count_of_partitions,
    order,
    records,
    replication,
    retention,
    spacing,
)
from deploy.operations.sample import sample
from deploy.serving.model_loading import load_model
from deploy.serving.predictor import Predictor
from deploy.serving.tasks import Task, task_of
from deploy.settings.serve import Device, ServeConfig, open_log, window_config
from model.card import Card
from pipeline.log import EventLog, TopicConfig
from pipeline.state import checkpoint
from pipeline.windows.grid import Grid, WindowConfig
from tidecast.errors import NotAuthorized, RegistryUnavailable, StateMismatch, TidecastError, UnknownTopic

logger = logging.getLogger(__name__)

STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


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
    yield Finding("topic", "ok", f"{config.topic} has {count_of_partitions(count)}")
    yield from _topics(log, config, count, model)
    if model is not None:
        yield from _state(log, config, count, model.task)
        found = sample(log, config.topic, model.task.decode, model.grid)
        yield from retention(_topic_config(log, config.topic), config.checkpoint_s, model.windows, found)
        yield from records(found, count)
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
            yield Finding("topics", "ok", f"{topic} will be made with {count_of_partitions(count)}")
            continue
        notable = list[Finding]()
        if partitions < count:
            text = f"{topic} has {count_of_partitions(partitions)}, and {config.topic} {count}"
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
            yield Finding("topics", "ok", f"{topic} has {count_of_partitions(partitions)}")


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
