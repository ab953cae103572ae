"""The configuration of a service, and the windows that a model takes."""

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from deploy.settings.values import checked_coverage
from pipeline.formats.paths import Paths
from pipeline.windows.choices import SERIES_LIMIT, WAITING_LIMIT, OnDataLoss
from tidecast.errors import ConfigError

if TYPE_CHECKING:
    from model.card import InputSpec
    from pipeline.windows.grid import WindowConfig
    from pipeline.windows.tokens import Vocabulary

Start = Literal["earliest", "latest"]
Guarantee = Literal["at-least-once", "exactly-once"]
ShortSeries = Literal["wait", "naive"]
Format = Literal["json", "arrow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """The topics, consumer group and settings of a service."""

    topic: str
    """The input topic."""
    output: str = ""
    """The output topic, created with the input's partition count; empty: TOPIC-forecasts, or TOPIC-labels."""
    group: str
    """The consumer group; its state and dead letters are kept in `<group>-state` and `<group>-dead-letters`."""
    instance: str
    """This instance's name, stable over restarts: it fences the transactions that its predecessor left open; empty: one
    that no other process has.
    """
    start: Start = "earliest"
    """Where a new consumer group starts."""
    guarantee: Guarantee = "at-least-once"
    """exactly-once: a batch's output and offsets are one transaction; else offsets are committed after the output."""
    format: Format = "json"
    """arrow: the forecasts of a micro-batch and partition are one message of columns; else each is one in JSON."""
    late_topic: str = ""
    """The topic for late and duplicate events; empty: they are only counted."""
    shadow_topic: str = ""
    """The output topic of a shadow model; empty: there is none."""
    lateness: int | None = None
    """Milliseconds of stream time that a step waits for events out of order; None: as the model was trained."""
    idle: int | None = None
    """Milliseconds of stream time after which a silent series is dropped; None: never."""
    series_limit: int = SERIES_LIMIT
    """Most series in a partition; events of others are dead letters."""
    waiting_limit: int = WAITING_LIMIT
    """Most steps in a partition that wait for events out of order; beyond it the earliest are taken before their time.
    There may always be one for each of `series_limit` series."""
    on_data_loss: OnDataLoss = "fail"
    """Whether to continue if unread records are gone from the log."""
    short_series: ShortSeries = "wait"
    """naive: a series has seasonal naive forecasts until its window is full."""
    coverage: float | None = 0.9
    """The share of actual values that forecasts' intervals are to contain; None: they have no intervals."""
    scores: bool = True
    """Whether forecasts are scored once their actual values are observed."""
    score_every: int | None = None
    """The length of a bucket of scores in milliseconds; None: an hour, or ten steps if that is longer."""
    alerts: bool = True
    """Whether values are compared with what had been forecast for them, and findings are written."""
    scores_topic: str = ""
    """OUTPUT-scores; empty: scores are not written."""
    alerts_topic: str = ""
    """OUTPUT-alerts; empty: alerts are not written."""
    static: bool = False
    """Static membership: partitions are kept over a restart shorter than the session timeout."""
    follow_s: float = 10.0
    """Seconds between two lookups of the version that the model's alias resolves to."""
    checkpoint_s: float = 30.0
    """Seconds between two checkpoints of changed windows."""
    checkpoint_records: int = 200_000
    """Records after which there is a checkpoint sooner: a restart replays no more of them."""
    paths: Paths = field(default_factory=Paths)
    """Where the fields of the input's events are, if they are not found by their names."""
    max_batch: int = 2048
    """Most records in a micro-batch, and of a poll; of a transactional poll four times as many."""

    def __post_init__(self) -> None:
        topics = (self.topic, *self.other_topics)
        if len(set(topics)) < len(topics):
            raise ConfigError(f"output, late-topic: {', '.join(topics)} must be different topics")
        if not self.follow_s > 0:
            raise ConfigError(f"follow: {self.follow_s} s is not a positive duration")
        if self.series_limit < 1:
            raise ConfigError(f"series-limit: {self.series_limit} is less than 1")
        checked_coverage(self.coverage)
        if self.score_every is not None and self.score_every < 1:
            raise ConfigError(f"score-every: {self.score_every} ms is not a positive duration")
        if self.waiting_limit < 1:
            raise ConfigError(f"waiting-limit: {self.waiting_limit} is less than 1")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", self.group):
            raise ConfigError(f"group: {self.group!r} names topics, so it takes letters, digits and . _ - only")

    def with_outputs(self, kind: str, *, shadow: bool) -> "ServeConfig":
        """With the names of the output topics: TOPIC-KIND if none is given, and for a shadow OUTPUT-shadow."""
        output = self.output or f"{self.topic}-{kind}"
        forecasts = kind == "forecasts"
        return replace(
            self,
            output=output,
            shadow_topic=f"{output}-shadow" if shadow else "",
            scores_topic=f"{output}-scores" if forecasts and self.scores else "",
            alerts_topic=f"{output}-alerts" if forecasts and self.alerts else "",
        )

    @property
    def grades(self) -> bool:
        """Whether anything is made of actual values."""
        return self.coverage is not None or self.scores or self.alerts

    @property
    def max_records(self) -> int:
        """Most records of a poll, under this guarantee."""
        return self.max_batch * (4 if self.guarantee == "exactly-once" else 1)

    @property
    def state_topic(self) -> str:
        """The topic of the windows' checkpoints."""
        return f"{self.group}-state"

    @property
    def dead_letters(self) -> str:
        """The topic of invalid records."""
        return f"{self.group}-dead-letters"

    @property
    def other_topics(self) -> list[str]:
        """All topics but the input, as far as their names are known."""
        others = (
            self.output,
            self.dead_letters,
            self.late_topic,
            self.shadow_topic,
            self.scores_topic,
            self.alerts_topic,
            self.state_topic,
        )
        return list(filter(None, others))


SERVE_DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(ServeConfig)}
"""What `tidecast serve` does unless an option says otherwise, by the names of ServeConfig's fields."""


def group_name(topic: str, model: str) -> str:
    """The default name of a consumer group: from its topic and its model, a file or a registered one."""
    name = Path(model).stem if model.endswith(".onnx") else model.partition("@")[0].partition("/")[0]
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"tidecast-{topic}-{name}")


def window_config(spec: "InputSpec", lateness: int | None = None) -> "WindowConfig":
    """The windows that a model takes, from the spec of its inputs.

    `lateness` overrides the spec's.
    """
    from pipeline.windows.grid import WindowConfig  # the command line needs no numpy for its defaults

    settings = {each.name: getattr(spec, each.name) for each in fields(WindowConfig)}
    return WindowConfig(**settings if lateness is None else settings | {"lateness": lateness})


def vocabulary(saved: dict[str, Any]) -> "Vocabulary":
    """The vocabulary in a model's card. Raises ConfigError."""
    from pipeline.windows.tokens import Vocabulary

    try:
        return msgspec.convert(saved, Vocabulary)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the model's vocabulary: {error}") from None
