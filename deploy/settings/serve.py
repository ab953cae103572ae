"""The configuration of a service, and the windows that a model takes."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from model.card import InputSpec
from pipeline.state.checkpoint import OnDataLoss
from pipeline.windows.grid import WindowConfig
from pipeline.windows.store import SERIES_LIMIT
from pipeline.windows.tokens import Vocabulary
from tidecast.errors import ConfigError

Start = Literal["earliest", "latest"]
Guarantee = Literal["at-least-once", "exactly-once"]
ShortSeries = Literal["wait", "naive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """What one service reads, writes, and calls itself."""

    topic: str
    """Events come from here."""
    output: str = ""
    """What is said goes here, created with the input's partition count if missing; empty: TOPIC-forecasts, or
    TOPIC-labels."""
    group: str
    """The consumer group; its state and dead letters lie in `<group>-state` and `<group>-dead-letters`."""
    instance: str
    """This member's name, stable over restarts: it fences whatever its predecessor left open."""
    start: Start
    """Where a new group begins."""
    guarantee: Guarantee = "at-least-once"
    """Whether a batch's answers and its offsets are one transaction, or offsets follow acknowledged answers."""
    late_topic: str = ""
    """Where late and duplicate events go; empty: they are counted only."""
    shadow_topic: str = ""
    """Where a second model's answers go; empty: there is none."""
    lateness: int | None = None
    """Milliseconds of stream time for which a step waits for what is out of order; None: as the model was trained."""
    idle: int | None = None
    """Milliseconds of stream time after which a silent series is forgotten; None: never."""
    series_limit: int = SERIES_LIMIT
    """Series a partition may have; events of more are dead letters."""
    lost: OnDataLoss = "fail"
    """Whether to go on without records that are needed and no longer in the log."""
    short_series: ShortSeries = "wait"
    """Whether a series is forecast before its window is full, by the seasonal naive."""
    static: bool = False
    """Whether the instance keeps its partitions while it is away for less than the session time-out."""
    follow_s: float = 10.0
    """Seconds between two looks at which version the model's alias means."""
    checkpoint_s: float = 30.0
    """Seconds between two passes that write changed windows to the state topic."""
    checkpoint_records: int = 200_000
    """Records after which there is a pass sooner: a restart replays no more of them."""
    max_batch: int = 2048
    """Most records taken in a micro-batch, and from one poll; four times as many from one where it is a transaction."""

    def __post_init__(self) -> None:
        others = filter(None, (self.late_topic, self.shadow_topic))
        topics = (self.topic, self.output, self.state_topic, self.dead_letters, *others)
        if len(set(topics)) < len(topics):
            raise ConfigError(f"output, late-topic: {', '.join(topics)} must be different topics")
        if not self.follow_s > 0:
            raise ConfigError(f"follow: {self.follow_s} s is no time to wait")
        if self.series_limit < 1:
            raise ConfigError(f"series-limit: {self.series_limit} is less than 1")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", self.group):
            raise ConfigError(f"group: {self.group!r} names topics, so it takes letters, digits and . _ - only")

    @property
    def max_records(self) -> int:
        """Most records taken from one poll, under this guarantee."""
        return self.max_batch * (4 if self.guarantee == "exactly-once" else 1)

    @property
    def state_topic(self) -> str:
        """Where the windows' checkpoint lies."""
        return f"{self.group}-state"

    @property
    def dead_letters(self) -> str:
        """Where records that are no events go."""
        return f"{self.group}-dead-letters"


def group_name(topic: str, model: str) -> str:
    """What a group is called that nobody named: after its topic and its model, a file's or a registered one's."""
    name = Path(model).stem if model.endswith(".onnx") else model.partition("@")[0].partition("/")[0]
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"tidecast-{topic}-{name}")


def window_config(spec: InputSpec, lateness: int | None = None) -> WindowConfig:
    """The windows that a model takes: the one translation between what it declares and what the store builds.

    `lateness` comes before the model's own.
    """
    return WindowConfig(
        seq_len=spec.seq_len,
        features=spec.features,
        freq=spec.freq,
        max_gap=spec.max_gap,
        aggregate=spec.aggregate,
        lateness=spec.lateness if lateness is None else lateness,
    )


def vocabulary(written: dict[str, Any]) -> Vocabulary:
    """The vocabulary that a model's card holds. Raises ConfigError."""
    try:
        return msgspec.convert(written, Vocabulary)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the model's vocabulary: {error}") from None
