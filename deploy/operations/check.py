"""`tidecast check`: problems of a configuration, found before a service starts. Writes nothing, joins no group."""

import logging
from collections.abc import Iterator
from contextlib import closing, suppress

from rich.text import Text

from deploy.console import out
from deploy.operations.check_models import CheckedModel, check_models
from deploy.operations.findings import (
    Finding,
    compacted_output,
    fields,
    format_partitions,
    order,
    records,
    replication,
    retention,
    series_count,
    spacing,
    steps,
    values,
    waiting,
)
from deploy.operations.memory import memory, series_needs
from deploy.operations.sample import read_sample
from deploy.serving.connections import Connections
from deploy.serving.identity import Family
from deploy.serving.topics import problems, too_few
from deploy.settings.files import open_log
from deploy.settings.locations import home, writable
from deploy.settings.machine import available_memory
from deploy.settings.serve import ServeConfig
from model.card import Card
from pipeline.log import EventLog
from pipeline.log.topics import TopicConfig
from pipeline.state.recovery import Topics, recover
from tidecast.errors import NotAuthorized, StateMismatch, UnknownTopic
from tidecast.text import escaped

logger = logging.getLogger(__name__)

STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


def check(config: ServeConfig, connections: Connections, *, as_json: bool = False) -> dict[str, object]:
    """`tidecast check`: check everything that a service would use, and print the findings unless JSON is wanted.

    Raises LogUnavailable, RegistryUnavailable.
    """
    with closing(open_log(connections.bootstrap)) as log:
        findings = []
        for finding in _findings(log, config, connections):
            findings.append(finding)
            if not as_json:
                print_finding(finding)
    wrong, warnings = (sum(each.verdict == kind for each in findings) for kind in ("wrong", "warning"))
    logger.info(f"{wrong or 'nothing'} wrong, {warnings or 'no'} warning{'s' * (warnings != 1)}")
    return {"wrong": wrong, "warnings": warnings, "findings": [_as_data(each) for each in findings]}


def _as_data(finding: Finding) -> dict[str, object]:
    return {name: each for name, each in finding._asdict().items() if name != "numbers" or each}


def print_finding(finding: Finding) -> None:
    """Print one finding, and below it what to do about it."""
    about, verdict, text, todo, _ = finding
    said = Text.assemble((f"{verdict:<9}", STYLES[verdict]), (f"{about:<13}", "bold"), escaped(text))
    out.print(said, soft_wrap=True)
    if todo:
        out.print(f"{'':<22}-> {todo}", soft_wrap=True)


def _findings(log: EventLog, config: ServeConfig, connections: Connections) -> Iterator[Finding]:
    yield Finding("log", "ok", log.label)
    yield _check_home(connections.model)
    model, found = check_models(config, connections)
    yield from found
    if model is not None:
        config = config.with_outputs(model.task.output_kind, shadow=bool(connections.shadow))
        connections.check_alerts(config)
    try:
        count = log.partitions(config.topic)
    except UnknownTopic as error:
        yield Finding("topic", "wrong", str(error), "create it, or fill it with tidecast ingest")
        return
    yield Finding("topic", "ok", f"{config.topic} has {format_partitions(count)}")
    yield from _check_topics(log, config, count, model)
    yield from _check_members(log, config)
    if model is not None:
        yield from _check_state(log, config, count, model)
        yield from _check_records(log, config, count, model)


def _check_records(log: EventLog, config: ServeConfig, count: int, model: CheckedModel) -> Iterator[Finding]:
    """The newest records, by what the model's windows need."""
    windows = model.windows
    sample = read_sample(log, config.topic, model.task.decode, model.grid, describe=model.task.describe)
    yield from retention(_topic_config(log, config.topic), config.checkpoint_s, windows, sample)
    yield from records(sample, count)
    yield from fields(sample)
    if windows is not None:
        yield from series_count(sample, config.series_limit)
        yield from order(sample, windows)
        yield from waiting(sample, windows, max(config.waiting_limit, config.series_limit))
        yield from spacing(sample, windows)
        yield from steps(sample)
    if windows is not None and isinstance(card := model.predictor.card, Card):
        yield from values(sample, card)
        needs = series_needs(model.task, card, windows, config, sample)
        yield from memory(needs, sample, count, config, available_memory())


def _check_home(model: str) -> Finding:
    """Whether files can be kept: a registered model's, and an instance's name."""
    if writable(home()):
        return Finding("home", "ok", f"files are kept in {home()}")
    text, todo = f"no permission to keep files in {home()}", "--home DIR names another folder"
    if model.endswith(".onnx"):
        return Finding("home", "warning", f"{text}: without --instance a service has a new name at each start", todo)
    return Finding("home", "wrong", f"{text}: a registered model is downloaded to there", todo)


def _topic_config(log: EventLog, topic: str) -> TopicConfig | None:
    """A topic's configuration; None without permission to read it. Raises UnknownTopic."""
    try:
        return log.topic_config(topic)
    except NotAuthorized:
        return None


def _check_topics(log: EventLog, config: ServeConfig, count: int, model: CheckedModel | None) -> Iterator[Finding]:
    """The input topic, and the output topics that exist."""
    message_bytes, source = model.task.message_bytes if model else 0, _topic_config(log, config.topic)
    for topic in (config.topic, *config.other_topics):
        try:
            partitions, topic_config = log.partitions(topic), _topic_config(log, topic)
        except UnknownTopic:
            yield Finding("topics", "ok", f"{topic} will be created with {format_partitions(count)}")
            continue
        wrong, found = [*too_few(config, topic, partitions, count)], list[Finding]()
        if topic_config is None:
            todo = "allow DescribeConfigs on it, and check again"
            found.append(Finding("topics", "warning", f"{topic}: no permission to read its configuration", todo))
        else:
            wrong += problems(config, message_bytes, topic, topic_config, source)
            found += compacted_output(config, topic, topic_config)
            found += replication(topic, topic_config)
        yield from (Finding("topics", "wrong", f"{text}; serve refuses it", todo) for text, todo in wrong)
        yield from found
        if not (wrong or found) and topic != config.topic:
            yield Finding("topics", "ok", f"{topic} has {format_partitions(partitions)}")


def _check_members(log: EventLog, config: ServeConfig) -> Iterator[Finding]:
    """Whether a member of the group has this instance's name."""
    with suppress(NotAuthorized):
        for member in log.members(config.group) if config.instance else ():
            if member.name == config.instance:
                text = f"{config.group} has a member called {member.name}, at {member.host}: another one fences it"
                yield Finding("members", "warning", text, "give each process an --instance of its own")


def _check_state(log: EventLog, config: ServeConfig, count: int, model: CheckedModel) -> Iterator[Finding]:
    """Whether the group's state matches this model and topic."""
    try:
        log.partitions(config.state_topic)
    except UnknownTopic:
        if log.committed(config.group, config.topic):
            text = f"{config.group} has committed offsets on {config.topic}, but {config.state_topic} is gone"
            yield Finding("state", "wrong", text, "use another --group, or delete the group's offsets")
        else:
            yield Finding("state", "ok", f"{config.group} is new")
        return
    try:
        notes = _recovery_notes(log, config, count, model)
    except StateMismatch as error:
        yield Finding("state", "wrong", str(error))
        return
    yield from (Finding("state", "warning", note) for note in notes)
    if not notes:
        yield Finding("state", "ok", f"the state in {config.state_topic} matches")


def _recovery_notes(log: EventLog, config: ServeConfig, count: int, model: CheckedModel) -> list[str]:
    """What a service would log when restoring the partitions. Raises StateMismatch."""
    while True:
        committed = log.committed(config.group, config.topic)
        topics = Topics.look_up(log, config.topic, config.state_topic)
        notes = []
        try:
            for partition in range(count):
                store = model.task.windower(None)  # those of all partitions at once might not fit into memory
                (found,) = recover(log, topics, {partition: store}, committed, config.on_data_loss).values()
                Family.of(model.predictor).check(store.sections, config.group)
                notes += [f"{config.topic}/{partition}: {note}" for note in found.notes]
        except StateMismatch:
            if log.committed(config.group, config.topic) == committed:
                raise
            continue  # a running service has written a checkpoint in between
        return notes
