"""The options that several commands take, in groups; a command adds a group's options by `takes`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.config_file import apply_settings_file, in_home, with_client, with_kafka_settings
from deploy.logs import LogFormat, LogLevel, set_format, set_level
from deploy.settings.locations import DEFAULT_LOG, DEFAULT_TRACKING, HOME, set_home
from deploy.settings.serve import SERVE_DEFAULTS
from deploy.settings.values import Device
from pipeline.log.settings import ClientChoice
from pipeline.windows.choices import OnDataLoss


def option(flag: str, text: str, **more: Any) -> Any:
    """An option that its TIDECAST_* variable sets too."""
    name = flag.partition("/")[0].lstrip("-")
    return typer.Option(flag, envvar=f"TIDECAST_{name.replace('-', '_').upper()}", help=text, **more)


Topic = Annotated[str, option("--topic", "The topic of the events.")]
Model = Annotated[str, option("--model", "NAME@ALIAS or NAME/VERSION in the registry, or a file.onnx.")]
Name = Annotated[str, option("--name", "The registered model's name.")]


class LogOptions:
    """The log to connect to."""

    bootstrap: Annotated[
        str,
        option(
            "--bootstrap",
            "Kafka's HOST:PORT[,HOST:PORT], or sqlite:PATH. TLS and SASL: the file's table [kafka], or "
            "TIDECAST_KAFKA_*.",
            callback=with_kafka_settings,
        ),
    ] = DEFAULT_LOG
    client: Annotated[
        ClientChoice | None,
        option(
            "--client",
            "What reads and writes Kafka's records; auto: librdkafka if confluent-kafka, the extra fast, is installed.",
            callback=with_client,
            show_default="auto",
        ),
    ] = None


class RegistryOptions:
    """The registry of models."""

    tracking_uri: Annotated[str, option("--tracking-uri", "MLflow's server or store.", callback=in_home)] = (
        DEFAULT_TRACKING
    )


class JsonOptions:
    """The result for programs."""

    as_json: Annotated[bool, option("--json", "Print one JSON object as the last line on stdout.")] = False


def _log_level(level: LogLevel) -> LogLevel:
    set_level(level)
    return level


def _log_format(log_format: LogFormat) -> LogFormat:
    set_format(log_format)
    return log_format


def _keep_files_in(folder: Path | None) -> Path | None:
    set_home(folder)
    return folder


Home = Annotated[
    Path | None,
    option(
        "--home",
        "The folder for the local log and registry, downloaded models and pictures.",
        is_eager=True,
        callback=_keep_files_in,
        show_default=str(HOME),
    ),
]


class HomeOptions:
    """Where files are kept."""

    home: Home = None


class ConfigOptions:
    """The settings file, the folder for files, and logging."""

    settings: Annotated[
        Path | None,
        option(
            "--config",
            "Settings by option name; tidecast.toml if there is one.",
            is_eager=True,
            callback=apply_settings_file,
        ),
    ] = None
    home: Home = None
    log_level: Annotated[
        LogLevel, option("--log-level", "Log records from this level on, to stderr.", callback=_log_level)
    ] = "info"
    log_format: Annotated[
        LogFormat,
        option(
            "--log-format",
            "Lines of text, or a JSON object a line: time, level, logger, message.",
            callback=_log_format,
        ),
    ] = "text"


class DeviceOptions:
    """Where networks run."""

    device: Annotated[
        Device, option("--device", "auto takes the GPU if there is one, and says which it took and why.")
    ] = "auto"


class SeriesOptions:
    """Which series a service keeps."""

    idle: Annotated[
        str | None, option("--idle", "Drop series silent for this long in event time, such as 7d; never if left out.")
    ] = None
    series_limit: Annotated[
        int,
        option("--series-limit", "The most series in a partition; events of further ones become dead letters.", min=1),
    ] = SERVE_DEFAULTS["series_limit"]


class ServiceOptions:
    """What a service reads and writes."""

    topic: Topic
    model: Model
    output: Annotated[
        str | None, option("--output", "The output topic; TOPIC-forecasts, or for texts TOPIC-labels, if left out.")
    ] = None
    group: Annotated[str | None, option("--group", "The consumer group; its state is kept in GROUP-state.")] = None
    late_topic: Annotated[
        str | None, option("--late-topic", "The topic for late and duplicate events; only counted if left out.")
    ] = None
    on_lost: Annotated[
        OnDataLoss,
        option("--on-lost", "If unread records are gone from the log: fail, or continue from the earliest."),
    ] = SERVE_DEFAULTS["on_data_loss"]
    waiting_limit: Annotated[
        int,
        option(
            "--waiting-limit",
            "The most steps of a partition that wait for late events; above it the earliest wait no longer.",
            min=1,
        ),
    ] = SERVE_DEFAULTS["waiting_limit"]
