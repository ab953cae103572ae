"""tidecast.toml and TIDECAST_KAFKA_* variables, and the log that they lead to.

A value on the command line comes before its TIDECAST_* variable, and that before tidecast.toml; a setting of one
command, TIDECAST_SERVE_* or the table [serve], before one that is shared. How to connect to Kafka is set by
TIDECAST_KAFKA_* variables and the file's [kafka] table only: a flag would show secrets in the process list.
"""

import codecs
import logging
import os
import tomllib
from collections import Counter
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from deploy.settings.locations import CONFIG_FILE, check_home, default_log
from pipeline.formats.paths import Paths
from pipeline.log import EventLog
from pipeline.log.connect import connect
from pipeline.log.settings import KafkaSettings
from tidecast.errors import ConfigError, unusable

logger = logging.getLogger(__name__)


class Settings(NamedTuple):
    """A TOML file's settings by option name, with dashes: those at its top, and those in a command's table."""

    shared: dict[str, Any]
    tables: dict[str, dict[str, Any]]


def read_settings(path: Path, options: Mapping[str, Container[str]], ignored: Container[str] = ()) -> Settings:
    """A TOML file's settings; none if the default file does not exist.

    `options` are the names of each command's: any of them may be at the file's top, a command's own in a table called
    as the command; any of `ignored` may be at the top. The tables [kafka] and [decode] are validated, but read with a
    log's address. Raises ConfigError, NotPermitted.
    """
    content = _read_toml(path)
    _kafka_table(path, content)
    _decode_table(path, content)
    tables = {name: value for name, value in content.items() if isinstance(value, dict) and name not in TABLES}
    if unknown := sorted(tables.keys() - options.keys()):
        raise ConfigError(f"{path}: [{unknown[0]}] is a table, and no command is called so")
    shared = _dashed(str(path), {name: value for name, value in content.items() if not isinstance(value, dict)})
    if unknown := sorted(name for name in shared if not any(name in known for known in (ignored, *options.values()))):
        raise ConfigError(f"{path}: no option is called {unknown[0]!r}")
    own = {command: _dashed(f"{path}: [{command}]", table) for command, table in tables.items()}
    for command, table in own.items():
        if unknown := sorted(name for name in table if name not in options[command]):
            raise ConfigError(f"{path}: [{command}]: {command} has no option called {unknown[0]!r}")
    return Settings(shared, own)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        if path == CONFIG_FILE and isinstance(error, FileNotFoundError):
            return {}
        raise unusable(path, error, ConfigError) from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or too deep
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        with suppress(OSError):
            if path.read_bytes().startswith(codecs.BOM_UTF8):
                reason = "it begins with a byte order mark: save it as UTF-8 without one"
        raise ConfigError(f"{path}: {reason}") from None


def _dashed(where: str, table: Mapping[str, Any]) -> dict[str, Any]:
    names = Counter(name.replace("_", "-") for name in table)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"{where}: {twice[0]!r} is given twice, with a dash and with an underscore")
    return {name.replace("_", "-"): value for name, value in table.items()}


def setting_text(where: str, value: object) -> str:
    """A setting as the text of an option; a list's elements are separated by commas. Raises ConfigError."""
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(each, list | dict) for each in parts):
        raise ConfigError(f"{where}: neither a table nor a list in a list can be the value of an option")
    return ",".join(map(str, parts))


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
    named = _dashed(f"{path}: [kafka]", table) if isinstance(table, dict) else {}
    given = {name: setting_text(f"{path}: [kafka] {name}", value) for name, value in named.items()}
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
        raise unusable(f"kafka: {name}: {path}", error, ConfigError) from None
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

    def __getnewargs__(self) -> tuple[str, KafkaSettings, Paths]:  # type: ignore[override]
        return str(self), self.kafka, self.decode


def log_address(text: str, path: Path = CONFIG_FILE) -> Address:
    """An address, with the settings of the environment and of a TOML file. Raises ConfigError."""
    kafka = KafkaSettings() if text.startswith("sqlite:") else kafka_settings(path)
    return Address(text, kafka, _decode_table(path, _read_toml(path)))


def decode_paths(address: str) -> Paths:
    """Where the fields of a log's events are, by the table [decode]."""
    return address.decode if isinstance(address, Address) else Paths()


def open_log(address: str, most_s: float | None = None) -> EventLog:
    """Connect to a log, and say so if its address is the default; `most_s` as of another connection to it."""
    if address == default_log():
        check_home()
    log = another_connection(address, most_s)
    if address == default_log():
        logger.info(f"on {log.label}; --bootstrap HOST:PORT takes a Kafka")
    return log


def another_connection(address: str, most_s: float | None = None) -> EventLog:
    """A connection to a log; with `most_s` a request, all attempts of it together, and a transaction may take so many
    seconds.
    """
    kafka = address.kafka if isinstance(address, Address) else KafkaSettings()
    if most_s is not None:
        limits = ("request_s", "delivery_s", "transaction_s")
        kafka = replace(kafka, **{name: min(getattr(kafka, name), most_s) for name in limits})
    try:
        return connect(address, kafka)
    except ConfigError as error:
        raise ConfigError(f"bootstrap: {error}") from None
