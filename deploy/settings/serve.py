"""Configuration: what serving needs to know, the one place for defaults, and tidecast.toml.

A value on the command line comes before its TIDECAST_* variable, and that before tidecast.toml. How to connect to a
Kafka is in variables TIDECAST_KAFKA_* and the file's table [kafka] only: a flag would show secrets to everybody.
"""

import os
import re
import time
import tomllib
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from deploy.console import say
from model.card import InputSpec
from pipeline.log import EventLog
from pipeline.log.connect import connect
from pipeline.log.settings import KafkaSettings
from pipeline.state.checkpoint import OnDataLoss
from pipeline.windows.grid import WindowConfig
from pipeline.windows.store import SERIES_LIMIT
from pipeline.windows.tokens import Vocabulary
from tidecast.errors import ConfigError
from tidecast.freq import parse_duration

HOME = Path(".tidecast")
DEFAULT_LOG = f"sqlite:{HOME / 'log.db'}"
DEFAULT_TRACKING = f"sqlite:///{HOME / 'mlflow.db'}"
MODELS = HOME / "models"
"""Where downloaded models are kept."""
CONFIG_FILE = Path("tidecast.toml")

Device = Literal["auto", "cpu", "cuda"]
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


def model_name(path: str) -> str:
    """What a model is called after the file that it is learned from."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", Path(path).name.partition(".")[0]) if path != "-" else "stdin"


def read_settings(path: Path, known: Container[str]) -> dict[str, str]:
    """The settings in a TOML file, by option name, as they would be typed; an absent default file has none.

    Raises ConfigError, for a name that is not `known` too. The table [kafka] is checked, and left to `kafka_settings`.
    """
    settings = _read_toml(path)
    _kafka_table(path, settings)
    if tables := [name for name, value in settings.items() if isinstance(value, dict) and name != "kafka"]:
        raise ConfigError(f"{path}: {tables[0]!r} is a table; a setting is a line such as topic = 'power'")
    typed = _typed({name: value for name, value in settings.items() if not isinstance(value, dict)})
    if unknown := sorted(name for name in typed if name not in known):
        raise ConfigError(f"{path}: no option is called {unknown[0]!r}")
    return typed


def _read_toml(path: Path) -> dict[str, Any]:
    if path == CONFIG_FILE and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # no UTF-8, or no TOML
        raise ConfigError(f"{path}: {error}") from None


def _typed(settings: Mapping[str, object]) -> dict[str, str]:
    return {name.replace("_", "-"): _as_typed(value) for name, value in settings.items()}


def _as_typed(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


SECRETS = ("sasl-password", "ssl-key-password")
KAFKA = tuple(field.name.replace("_", "-") for field in fields(KafkaSettings))
KAFKA_IN_FILE = {*KAFKA, *(f"{secret}-file" for secret in SECRETS)} - {*SECRETS}


def kafka_settings(path: Path = CONFIG_FILE) -> KafkaSettings:
    """How to connect to a Kafka: TIDECAST_KAFKA_* variables, then the table [kafka] of a TOML file.

    Other variables of that prefix are let be: Kubernetes sets some for a service called tidecast-kafka.
    Raises ConfigError.
    """
    given = _kafka_table(path, _read_toml(path)) | _kafka_variables()
    for secret in SECRETS:
        file = given.pop(f"{secret}-file", None)
        if file is not None and secret not in given:
            given[secret] = _secret(f"{secret}-file", Path(file))
    typed = {name.replace("-", "_"): _number_of(name, text) for name, text in given.items()}
    try:
        return KafkaSettings(**typed)
    except ConfigError as error:
        raise ConfigError(f"kafka: {error}") from None


def _kafka_table(path: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    table = settings.get("kafka", {})
    given = _typed(table) if isinstance(table, dict) else {}
    for name in sorted(given.keys() - KAFKA_IN_FILE):
        if name in SECRETS:
            instead = f"{name}-file names a file that holds it, and so does {_variable(name)}_FILE"
            raise ConfigError(f"{path}: [kafka] takes no {name}: {instead}")
        raise ConfigError(f"{path}: [kafka] has no setting called {name!r}")
    return given


def _kafka_variables() -> dict[str, str]:
    names = (*KAFKA, *(f"{secret}-file" for secret in SECRETS))
    return {name: os.environ[_variable(name)] for name in names if os.environ.get(_variable(name))}


def _variable(name: str) -> str:
    return f"TIDECAST_KAFKA_{name.replace('-', '_').upper()}"


def _secret(name: str, path: Path) -> str:
    try:
        return path.read_text().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(f"kafka: {name}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:  # whose message shows a byte
        raise ConfigError(f"kafka: {name}: {path}: not UTF-8 text") from None


def _number_of(name: str, text: str) -> Any:
    if not name.endswith("-s"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"kafka: {name}: {text!r} is no number of seconds") from None


def parse_feature_names(option: str, text: str) -> tuple[str, ...]:
    """The features in an option's text, with commas between them. Raises ConfigError naming the option."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names) or {"series", "ts"} & set(names):
        raise ConfigError(f"{option}: {text!r} must be different names, none of them series or ts")
    return names


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


def parse_duration_option(name: str, text: str | None) -> int | None:
    """An option's duration in milliseconds. Raises ConfigError."""
    try:
        return None if text is None else parse_duration(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def parse_seconds_option(name: str, text: str | None) -> float | None:
    """An option's duration in seconds. Raises ConfigError."""
    milliseconds = parse_duration_option(name, text)
    return None if milliseconds is None else milliseconds / 1000


def parse_time_option(name: str, text: str | None) -> int | None:
    """An option's time in epoch milliseconds; a duration is so long ago. Raises ConfigError."""
    if text is None:
        return None
    with suppress(ConfigError):
        return int(time.time() * 1000) - parse_duration(text)
    try:
        meant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is no time such as 2026-01-31T12:00, no duration such as 90d") from None
    return int((meant if meant.tzinfo else meant.replace(tzinfo=UTC)).timestamp() * 1000)


def vocabulary(written: dict[str, Any]) -> Vocabulary:
    """The vocabulary that a model's card holds. Raises ConfigError."""
    try:
        return msgspec.convert(written, Vocabulary)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the model's vocabulary: {error}") from None


class Address(str):
    """A log's address as a command was given it, with how to connect to it if it is a Kafka's."""

    __slots__ = ("kafka",)

    kafka: KafkaSettings

    def __new__(cls, text: str, kafka: KafkaSettings) -> Self:
        """A string with its settings."""
        address = super().__new__(cls, text)
        address.kafka = kafka
        return address


def log_address(text: str, path: Path = CONFIG_FILE) -> Address:
    """`text`, and where it is a Kafka's what the environment and a TOML file say of it. Raises ConfigError."""
    return Address(text, KafkaSettings() if text.startswith("sqlite:") else kafka_settings(path))


def open_log(address: str) -> EventLog:
    """Connect, and say where to if it was nobody's choice."""
    try:
        log = connect(address, address.kafka if isinstance(address, Address) else KafkaSettings())
    except ConfigError as error:
        raise ConfigError(f"bootstrap: {error}") from None
    if address == DEFAULT_LOG:
        say(f"on {log.label}; --bootstrap HOST:PORT takes a Kafka")
    return log
