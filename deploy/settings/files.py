"""tidecast.toml and TIDECAST_KAFKA_* variables, and the log that they lead to.

A value on the command line comes before its TIDECAST_* variable, and that before tidecast.toml. How to connect to
Kafka is set by TIDECAST_KAFKA_* variables and the file's [kafka] table only: a flag would show secrets in the process
list.
"""

import logging
import os
import tomllib
from collections.abc import Container, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from deploy.settings.locations import CONFIG_FILE, DEFAULT_LOG
from pipeline.formats.paths import Paths
from pipeline.log import EventLog
from pipeline.log.connect import connect
from pipeline.log.settings import KafkaSettings
from tidecast.errors import ConfigError

logger = logging.getLogger(__name__)


def read_settings(path: Path, known: Container[str]) -> dict[str, str]:
    """A TOML file's settings, by option name, as text; none if the default file does not exist.

    Raises ConfigError, also for a name that is not `known`. The tables [kafka] and [decode] are validated, but read
    with a log's address.
    """
    settings = _read_toml(path)
    _kafka_table(path, settings)
    _decode_table(path, settings)
    if tables := [name for name, value in settings.items() if isinstance(value, dict) and name not in TABLES]:
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
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError(f"{path}: {error}") from None


def _typed(settings: Mapping[str, object]) -> dict[str, str]:
    return {name.replace("_", "-"): _as_typed(value) for name, value in settings.items()}


def _as_typed(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


TABLES = ("kafka", "decode")
"""The tables that are not of options."""
SECRETS = ("sasl-password", "ssl-key-password")
KAFKA = tuple(field.name.replace("_", "-") for field in fields(KafkaSettings))
KAFKA_IN_FILE = {*KAFKA, *(f"{secret}-file" for secret in SECRETS)} - {*SECRETS}


def kafka_settings(path: Path = CONFIG_FILE) -> KafkaSettings:
    """How to connect to a Kafka: TIDECAST_KAFKA_* variables, then the table [kafka] of a TOML file.

    Other variables with that prefix are ignored: Kubernetes sets some for a service called tidecast-kafka.
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
        raise ConfigError(f"kafka: {name}: {text!r} is not a number of seconds") from None


def _decode_table(path: Path, settings: Mapping[str, Any]) -> Paths:
    try:
        return Paths.parse(settings["decode"]) if "decode" in settings else Paths()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


class Address(str):
    """A log's address, as given to a command, with the settings of its Kafka connection and of its records' fields."""

    __slots__ = ("decode", "kafka")

    kafka: KafkaSettings
    decode: Paths

    def __new__(cls, text: str, kafka: KafkaSettings, decode: Paths) -> Self:
        """A string with its settings."""
        address = super().__new__(cls, text)
        address.kafka, address.decode = kafka, decode
        return address


def log_address(text: str, path: Path = CONFIG_FILE) -> Address:
    """An address, with the settings of the environment and of a TOML file. Raises ConfigError."""
    kafka = KafkaSettings() if text.startswith("sqlite:") else kafka_settings(path)
    return Address(text, kafka, _decode_table(path, _read_toml(path)))


def decode_paths(address: str) -> Paths:
    """Where the fields of a log's events are, by the table [decode]."""
    return address.decode if isinstance(address, Address) else Paths()


def open_log(address: str) -> EventLog:
    """Connect to a log, and say so if its address is the default."""
    try:
        log = connect(address, address.kafka if isinstance(address, Address) else KafkaSettings())
    except ConfigError as error:
        raise ConfigError(f"bootstrap: {error}") from None
    if address == DEFAULT_LOG:
        logger.info(f"on {log.label}; --bootstrap HOST:PORT takes a Kafka")
    return log
