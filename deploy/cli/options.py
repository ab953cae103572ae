"""The options that several commands take, in groups; a command adds a group's options by `takes`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deploy.cli.config_file import apply_settings_file, in_home, with_kafka_settings
from deploy.cli.signature import option_names
from deploy.logs import LogFormat, LogLevel, configure_logging
from deploy.settings.locations import DEFAULT_LOG, DEFAULT_TRACKING, HOME, set_home
from deploy.settings.serve import SERVE_DEFAULTS
from deploy.settings.values import Device
from pipeline.state.recovery import OnDataLoss
from pipeline.windows.grid import Aggregate
from pipeline.windows.steps import Grid
from tidecast.errors import ConfigError


def option(flag: str, text: str, **more: Any) -> Any:
    """An option that its TIDECAST_* variable sets too."""
    name = flag.partition("/")[0].lstrip("-")
    return typer.Option(flag, envvar=f"TIDECAST_{name.replace('-', '_').upper()}", help=text, **more)


def _check_freq(freq: str | None) -> str | None:
    if freq is not None:
        Grid.parse(freq)
    return freq


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


class RegistryOptions:
    """The registry of models."""

    tracking_uri: Annotated[str, option("--tracking-uri", "MLflow's server or store.", callback=in_home)] = (
        DEFAULT_TRACKING
    )


class JsonOptions:
    """The result for programs."""

    as_json: Annotated[bool, option("--json", "Print one JSON object as the last line on stdout.")] = False


def _log_level(context: typer.Context, level: LogLevel) -> LogLevel:
    configure_logging(level)
    return level


def _log_format(context: typer.Context, log_format: LogFormat) -> LogFormat:
    configure_logging(context.params["log_level"], log_format)
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


class HistoryTopicOptions:
    """A topic as the source of a history."""

    topic: Annotated[str | None, option("--topic", "Read this topic's history.")] = None


class HistoryFileOptions:
    """A file as the source of a history."""

    data: Annotated[
        str | None, option("--data", "Or read a file: CSV, Parquet or JSON lines, long or wide; - reads stdin.")
    ] = None


def _check_timezone(zone: str | None) -> str | None:
    if zone is not None:
        from pipeline.datasets.clocks import check_timezone

        check_timezone(zone)
    return zone


class ColumnOptions:
    """The columns of a file of measurements, and how their cells are written."""

    series_column: Annotated[
        str | None, option("--series-column", "The column of the series' names, or several: store,item.")
    ] = None
    time_column: Annotated[
        str | None, option("--time-column", "The column of the times, or two: of the date and the time of day.")
    ] = None
    value_column: Annotated[
        str | None, option("--value-column", "The column of the values, or several, each of which is a series.")
    ] = None
    decimal: Annotated[
        Literal[".", ","] | None,
        option(
            "--decimal", "The decimal separator, the other of the two being between thousands; found in most files."
        ),
    ] = None
    na: Annotated[
        str | None, option("--na", "More texts that stand for no value, separated by commas: -999,defective.")
    ] = None
    timezone: Annotated[
        str | None,
        option(
            "--timezone",
            "The zone of times without an offset, as Europe/Berlin; UTC if left out.",
            callback=_check_timezone,
        ),
    ] = None
    time_format: Annotated[
        str | None,
        option("--time-format", "How times are written, as '%d/%m/%Y %H:%M', or an epoch's unit: s, ms, us, ns."),
    ] = None
    max_skipped: Annotated[
        float | None,
        option(
            "--max-skipped",
            "The largest share of a file's measurements, or of a topic's records, that may be left out.",
            min=0,
            max=1,
            show_default="0.05",
        ),
    ] = None


class FeatureOptions:
    """The values of an event."""

    features: Annotated[
        str, option("--features", "The values of an event, separated by commas; the first is forecast.")
    ] = "value"


class GridOptions:
    """The spacing of steps."""

    freq: Annotated[
        str | None,
        option(
            "--freq",
            "The spacing of steps: 15s, 30m, 1h, 1d, B (business days), 1mo; inferred if left out.",
            callback=_check_freq,
        ),
    ] = None


class WindowOptions(GridOptions, FeatureOptions):
    """The windows that a forecaster takes, and its forecast."""

    offset: Annotated[
        str | None,
        option(
            "--offset",
            "Where steps lie: 30m past each, 2mo (quarters from March), -1d (month ends), 6mo-1d (years to 30 June), "
            "or none; as in the data if left out.",
        ),
    ] = None
    horizon: Annotated[
        int | None, option("--horizon", "Steps to forecast; a day, or the next season, if left out.", min=1)
    ] = None
    seq_len: Annotated[int | None, option("--seq-len", "Steps to look back; inferred if left out.", min=2)] = None
    max_gap: Annotated[
        int | None,
        option("--max-gap", "The longest gap, in missing steps, that is filled.", min=0, show_default="3"),
    ] = None
    season: Annotated[int | None, option("--season", "Steps in a season; found in the data if left out.", min=2)] = None
    aggregate: Annotated[
        Aggregate | None, option("--aggregate", "How several events in a step of --freq are aggregated.")
    ] = None
    targets: Annotated[
        str | None,
        option("--targets", "The features that are forecast, separated by commas; the first if left out."),
    ] = None
    non_negative: Annotated[
        bool | None,
        option("--non-negative/--no-non-negative", "Clip forecasts at zero; of what was never negative if left out."),
    ] = None


class LatenessOptions:
    """How long to wait for events that are out of order."""

    lateness: Annotated[
        str | None,
        option("--lateness", "How long a step waits, in event time, for late events, as 5m.", show_default="0"),
    ] = None


class FutureCovariateOptions:
    """Features that are known for the horizon too."""

    known: Annotated[
        str | None,
        option("--known", "Features known over the horizon too, separated by commas, such as a weather forecast."),
    ] = None


class ForecastNetworkOptions:
    """The network of a forecaster, and how long to train it."""

    arch: Annotated[
        Literal["blend", "lstm", "segment", "linear", "naive"] | None,
        option(
            "--arch",
            "blend averages several; segment is an LSTM over segments of a window, lstm one over its steps; linear "
            "and naive are baselines.",
            show_default="blend",
        ),
    ] = None
    winsorise: Annotated[
        bool,
        option(
            "--winsorise/--no-winsorise",
            "Let a few readings far from all others count as the nearest of these, in training and in forecasts.",
        ),
    ] = True
    budget: Annotated[
        str | None, option("--budget", "About how long to train, as 5m; until it stops improving if left out.")
    ] = None


class NetworkOptions:
    """The size of a network, and its training."""

    hidden: Annotated[
        int | None, option("--hidden", "Width of the LSTM.", min=1, show_default="64; 512 for next-token")
    ] = None
    epochs: Annotated[
        int | None,
        option(
            "--epochs",
            "Maximum number of epochs.",
            min=1,
            show_default="30; more of few windows, of texts by their number",
        ),
    ] = None
    seed: Annotated[
        int | None, option("--seed", "The random seed; the same seed trains the same model.", show_default="0")
    ] = None


class PrecisionOptions:
    """The precision of a training."""

    bf16: Annotated[bool, option("--bf16", "Train in bfloat16, which is faster on a GPU.")] = False


class TokenOptions:
    """What a text is split into."""

    tokeniser: Annotated[
        Literal["word", "char"] | None,
        option("--tokeniser", "Split texts into words or characters.", show_default="word; for next-token char"),
    ] = None


class TextOptions:
    """A file of labelled texts, and a classifier of them."""

    text_column: Annotated[
        str | None, option("--text-column", "The column of the texts; without a header line, its number.")
    ] = None
    label_column: Annotated[str | None, option("--label-column", "The column of the labels.")] = None
    group_column: Annotated[
        str | None, option("--group-column", "Rows with the same value in it are not split between training and test.")
    ] = None
    max_len: Annotated[
        int | None, option("--max-len", "The longest text, in tokens; the 99th percentile if left out.", min=1)
    ] = None
    cut: Annotated[
        Literal["head", "tail"] | None, option("--cut", "Which end of a longer text is kept.", show_default="head")
    ] = None
    balance: Annotated[bool, option("--balance", "Weigh all labels the same, however many texts each has.")] = False
    members: Annotated[
        int | None, option("--members", "Size of the ensemble whose outputs are averaged.", min=1, show_default="1")
    ] = None


class ServiceOptions:
    """What a service reads and writes."""

    topic: Topic
    model: Model
    output: Annotated[
        str | None, option("--output", "The output topic; TOPIC-forecasts, or of texts TOPIC-labels, if left out.")
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
        option("--waiting-limit", "Most steps of a partition that wait for late events.", min=1),
    ] = SERVE_DEFAULTS["waiting_limit"]


TASKS: dict[str, tuple[type, ...]] = {
    "forecast": (
        HistoryTopicOptions,
        LogOptions,
        WindowOptions,
        LatenessOptions,
        ForecastNetworkOptions,
        PrecisionOptions,
        ColumnOptions,
    ),
    "classify": (TokenOptions, TextOptions),
    "next-token": (TokenOptions,),
}
"""The options of `train` that are for some tasks only."""


def check_task_options(context: typer.Context, task: str) -> None:
    """Raises ConfigError for an option on the command line that is for other tasks only."""
    for name in context.params:
        source = context.get_parameter_source(name)
        tasks = [other for other, groups in TASKS.items() if name in option_names(*groups)]
        if tasks and task not in tasks and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name.replace('_', '-')} is for --task {' and '.join(tasks)}")
