"""A service's topics: created where missing, refused where they cannot work, and watched for as long as they are used.

The rules are pure functions of the topics' configurations, which `tidecast check` applies before a service starts.
"""

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from deploy.settings.serve import ServeConfig
from pipeline.formats.dead_letters import MAX_LETTER_BYTES
from pipeline.log import EventLog
from pipeline.log.topics import TopicConfig, TopicIdentity
from pipeline.state.checkpoint import PART_BYTES, part_bytes
from tidecast.errors import ConfigError, LogError, NotAuthorized, StateMismatch, UnknownTopic
from tidecast.freq import format_duration

TOLD_S = 5.0
"""Seconds until every broker has been told that a topic is gone."""
CONFIRM_S = 1.0
"""Seconds until a changed topic is looked up again: brokers learn of a topic one after another."""
KNOWN_S = 15.0
"""Seconds that it may take until all brokers know of a new topic."""
MIN_STATE_BYTES = 4096
"""The least record size of a state topic: larger states are split, but not into any number of records."""


class Problem(NamedTuple):
    """Why a topic cannot be used, and what to do about it."""

    found: str
    todo: str


def problems(
    config: ServeConfig, message_bytes: int, topic: str, found: TopicConfig, source: TopicConfig | None
) -> Iterator[Problem]:
    """What is wrong with one of a service's topics.

    `message_bytes` is the largest size of a forecast; `source` the input's configuration, if it could be read.
    """
    yield from _compaction(config, topic, found)
    if topic == config.topic:
        return
    if topic == config.state_topic:
        yield from _size(topic, found, MIN_STATE_BYTES, "a checkpoint's records have up to")
        return
    if topic in (config.output, config.shadow_topic, config.scores_topic, config.alerts_topic):
        yield from _size(topic, found, message_bytes, "a forecast has up to")
    else:
        least = MAX_LETTER_BYTES if source is None else min(MAX_LETTER_BYTES, source.max_message_bytes)
        yield from _size(topic, found, least, "a record that is kept there has up to")
    if source is not None:
        yield from _times(topic, found, config.topic, source)


def too_few(config: ServeConfig, topic: str, partitions: int, needed: int) -> Iterator[Problem]:
    """Whether a topic has fewer partitions than the input, as one that a broker has created by itself."""
    if partitions < needed:
        found = f"{topic} has {partitions} partition{'s' * (partitions != 1)}, and {config.topic} {needed}"
        yield Problem(found, "give it as many partitions")


def _compaction(config: ServeConfig, topic: str, found: TopicConfig) -> Iterator[Problem]:
    todo = "set its cleanup.policy to delete"
    if topic == config.state_topic:
        if not found.compacted:
            text = f"{topic} is not compacted: it grows forever, or loses windows to retention"
            yield Problem(text, "set its cleanup.policy to compact")
        elif found.retention_ms is not None or found.retention_bytes is not None:
            text = f"{topic} is compacted, and deletes old records too: it loses the windows of slow series"
            yield Problem(text, "set its cleanup.policy to compact, without delete")
    elif found.compacted and topic == config.topic:
        text = f"{topic} is compacted: events vanish from it, so windows would have holes"
        yield Problem(text, f"{todo}, or copy its records to a topic with that policy")
    elif found.compacted and topic in (config.scores_topic, config.alerts_topic):
        yield Problem(f"{topic} is compacted: it keeps the last record of each series only", todo)
    elif found.compacted and topic in (config.output, config.shadow_topic):
        if config.format == "arrow":
            yield Problem(f"{topic} is compacted: it rejects columnar forecasts, which have no key", todo)
    elif found.compacted:
        yield Problem(f"{topic} is compacted: it loses dead letters, and rejects those without a key", todo)


def _size(topic: str, found: TopicConfig, least: int, what: str) -> Iterator[Problem]:
    if found.max_message_bytes < least:
        text = f"{topic} takes records of up to {found.max_message_bytes:,} bytes, and {what} {least:,}"
        yield Problem(text, f"set its max.message.bytes to {2 * least}")


def _times(topic: str, found: TopicConfig, source_topic: str, source: TopicConfig) -> Iterator[Problem]:
    """Outputs keep their records' times: a topic must take those that the input takes."""
    sides = (
        ("before", "before", found.oldest_ms, source.oldest_ms),
        ("ahead of", "after", found.ahead_ms, source.ahead_ms),
    )
    for word, side, limit, of_source in sides:
        allowed = 0 if source.append_time else of_source
        if limit is not None and (allowed is None or limit < allowed):
            text = f"{topic} takes times of up to {format_duration(limit)} {word} a record's arrival"
            text += f", and {source_topic} {'any' if allowed is None else f'up to {format_duration(allowed)}'}"
            yield Problem(
                text, f"set its message.timestamp.{side}.max.ms to {2**63 - 1 if allowed is None else allowed}"
            )


def create_topics(log: EventLog, config: ServeConfig, message_bytes: int) -> TopicConfig | None:
    """Create a service's missing topics; the state topic's configuration, None if it may not be read.

    Raises ConfigError for existing topics that can't be used.
    """
    source, state = _usable(log, config, message_bytes, config.topic, None), None
    partitions = log.partitions(config.topic)
    for topic in config.other_topics:
        is_state = topic == config.state_topic
        count = log.create_topic(topic, partitions, compacted=is_state, any_time=not is_state)
        for problem in too_few(config, topic, count, partitions):
            raise ConfigError(f"{problem.found}; {problem.todo}")
        found = _usable(log, config, message_bytes, topic, source)
        state = found if is_state else state
    return state


def _usable(
    log: EventLog, config: ServeConfig, message_bytes: int, topic: str, source: TopicConfig | None
) -> TopicConfig | None:
    """A topic's configuration, None if it may not be read. Raises ConfigError if it can't be used."""
    try:
        found = log.topic_config(topic)
    except NotAuthorized:  # DescribeConfigs is a permission of its own
        return None
    for problem in problems(config, message_bytes, topic, found, source):
        raise ConfigError(f"{problem.found}; {problem.todo}")
    return found


class TopicWatch:
    """Notices when a topic in use is deleted, or made anew: also one that nothing is read from or written to."""

    def __init__(self, log: EventLog, config: ServeConfig, message_bytes: int, state: TopicConfig | None) -> None:
        """Remember the topics as they are now; `state` is the state topic's configuration. Raises UnknownTopic."""
        self._log, self._config, self._message_bytes, self._state = log, config, message_bytes, state
        self._topics = (config.topic, *config.other_topics)
        self._known = self._all()

    @property
    def source(self) -> TopicIdentity:
        """The input topic."""
        return self._known[self._config.topic]

    @property
    def state_id(self) -> str:
        """The id of the state topic that checkpoints are written to."""
        return self._known[self._config.state_topic].id

    @property
    def output_id(self) -> str:
        """The id of the output topic."""
        return self._known[self._config.output].id

    @property
    def part_bytes(self) -> int:
        """The largest value of a record of the state topic."""
        return part_bytes(self._state.max_message_bytes) if self._state else PART_BYTES

    def _all(self) -> dict[str, TopicIdentity]:
        """All topics, as soon as every broker knows of those just created. Raises UnknownTopic."""
        deadline = time.monotonic() + KNOWN_S
        while len(found := self._look_up()) < len(self._topics):
            if time.monotonic() > deadline:
                raise UnknownTopic(f"topic {min({*self._topics} - found.keys())} does not exist")
            time.sleep(0.02)
        return found

    def check(self) -> None:
        """Raises UnknownTopic, StateMismatch if a topic but the state's was deleted or made anew."""
        self._check(self._look_up())

    def explain(self, error: LogError) -> None:
        """Raises as `check` does, which says more than `error`; that one broker may know before the others do."""
        until = time.monotonic() + (TOLD_S if isinstance(error, UnknownTopic) else 0)
        self.check()
        while time.monotonic() < until:
            time.sleep(0.1)
            self.check()

    def _look_up(self) -> dict[str, TopicIdentity]:
        return self._log.identities(self._topics)

    def has_lost_state(self) -> bool:
        """Whether the state topic was deleted or made anew since the last look; a missing one is created.

        Raises UnknownTopic, StateMismatch if another topic was; ConfigError for a new state topic that can't be used.
        """
        found = self._look_up()
        if not self._differs(found):
            return False
        time.sleep(CONFIRM_S)
        found = self._look_up()
        self._check(found)
        state = self._config.state_topic
        if found.get(state) == self._known[state]:
            return False
        self._state = create_topics(self._log, self._config, self._message_bytes)
        self._known = self._all()
        return True

    def _differs(self, found: Mapping[str, TopicIdentity]) -> bool:
        same = all(topic in found and found[topic].id == known.id for topic, known in self._known.items())
        return not same or found[self._config.topic].partitions != self.source.partitions

    def _check(self, found: Mapping[str, TopicIdentity]) -> None:
        """Raises for any topic but the state's that is missing or another one."""
        for topic in self._topics:
            if topic == self._config.state_topic:
                continue
            is_input, here = topic == self._config.topic, found.get(topic)
            way_out = "use another --group, as this one's state and offsets belong to the topic as it was"
            if not is_input:
                way_out = (
                    "what it held is gone; a restart creates it if it is missing, and goes on from where this stopped"
                )
            if here is None:
                raise UnknownTopic(f"topic {topic} was deleted while this service used it: {way_out}")
            if here.id != self._known[topic].id:
                raise StateMismatch(f"topic {topic} was deleted and made anew while this service used it: {way_out}")
            if is_input and here.partitions != self.source.partitions:
                raise StateMismatch(f"topic {topic} got more partitions while this service read it: {way_out}")
