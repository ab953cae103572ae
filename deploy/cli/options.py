"""The options that several commands have, and where a value comes from: flag, TIDECAST_* variable, tidecast.toml."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

from deploy.settings.defaults import CONFIG_FILE
from deploy.settings.files import Address, log_address, read_settings
from deploy.settings.values import Device
from pipeline.state.checkpoint import OnDataLoss
from pipeline.windows.grid import Aggregate, Grid
from tidecast.errors import ConfigError


def option(flag: str, text: str, **more: Any) -> Any:
    """An option that its TIDECAST_* variable sets too."""
    name = flag.partition("/")[0].lstrip("-")
    return typer.Option(flag, envvar=f"TIDECAST_{name.replace('-', '_').upper()}", help=text, **more)


CONFIG = "tidecast.config"
"""Where a command's context keeps which file its settings came from."""


def _apply_settings(context: typer.Context, path: Path | None) -> Path | None:
    """Make a TOML file's values this command's defaults. Raises ConfigError for one that no command takes."""
    path = context.meta[CONFIG] = path or CONFIG_FILE
    settings, options = read_settings(path, known_settings(context)), _settable(context.command)
    settings = {name: value for name, value in settings.items() if name in options}
    for name, value in settings.items():
        try:
            options[name].process_value(context, value)
        except TyperException as error:
            raise ConfigError(f"{path}: {name} = {value!r}: {error}") from None
    context.default_map = {options[name].name: value for name, value in settings.items()}
    return path


def known_settings(context: typer.Context, *commands: str) -> set[str]:
    """What a settings file may name: the options of these commands, or of all."""
    group: Any = context.find_root().command
    return {name for command in commands or group.commands for name in _settable(group.commands[command])}


def _settable(command: Any) -> dict[str, Any]:
    """What a settings file may name of a command: all its options but the one that names the file."""
    options = {flag.lstrip("-"): option for option in command.params for flag in option.opts}
    return {name: option for name, option in options.items() if name != "config"}


def _with_kafka(context: typer.Context, address: str) -> Address:
    return log_address(address, context.meta.get(CONFIG, CONFIG_FILE))


def _check_freq(freq: str | None) -> str | None:
    if freq is not None:
        Grid.parse(freq)
    return freq


TASKS = {
    **dict.fromkeys(("topic", "bootstrap", "horizon", "seq_len", "freq", "max_gap", "arch", "features"), ("forecast",)),
    **dict.fromkeys(("targets", "non_negative", "aggregate", "lateness", "budget", "bf16"), ("forecast",)),
    **dict.fromkeys(("series_column", "time_column", "value_column"), ("forecast",)),
    **dict.fromkeys(
        ("text_column", "label_column", "group_column", "max_len", "cut", "balance", "members"), ("classify",)
    ),
    "tokeniser": ("classify", "next-token"),
}
"""The tasks that an option of `train` belongs to, where it is not for all."""


def keep_to_task(context: typer.Context, task: str) -> None:
    """Raises ConfigError for an option on the command line that the task has no use for."""
    for name, tasks in TASKS.items():
        source = context.get_parameter_source(name)
        if task not in tasks and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name.replace('_', '-')} is for --task {' and '.join(tasks)}")


def nearer(context: typer.Context, **given: str | None) -> tuple[str | None, ...]:
    """Of options that exclude each other the one given nearest: a flag before a variable, that before a file.

    Raises ConfigError unless there is exactly one.
    """
    distance = {
        name: source.value
        for name, value in given.items()
        if value is not None and (source := context.get_parameter_source(name))
    }
    nearest = [name for name, far in distance.items() if far == min(distance.values())]
    if len(nearest) != 1:
        raise ConfigError(f"give one of {' and '.join(f'--{name}' for name in given)}")
    return tuple(value if name in nearest else None for name, value in given.items())


Bootstrap = Annotated[
    str,
    option(
        "--bootstrap",
        "Kafka's HOST:PORT[,HOST:PORT], or sqlite:PATH. TLS and SASL: the file's table [kafka], or TIDECAST_KAFKA_*.",
        callback=_with_kafka,
    ),
]
Topic = Annotated[str, option("--topic", "The topic the events are on.")]
Model = Annotated[str, option("--model", "NAME@ALIAS or NAME/VERSION in the registry, or a file.onnx.")]
Output = Annotated[str | None, option("--output", "Where to; TOPIC-forecasts, or of texts TOPIC-labels, if left out.")]
Group = Annotated[str | None, option("--group", "The consumer group; its state lies in GROUP-state.")]
Tracking = Annotated[str, option("--tracking-uri", "MLflow's server or store.")]
Json = Annotated[bool, option("--json", "Print one JSON object as the last line on stdout.")]
Settings = Annotated[
    Path | None,
    option(
        "--config", "Settings by option name; tidecast.toml if there is one.", is_eager=True, callback=_apply_settings
    ),
]
SeriesColumn = Annotated[str | None, option("--series-column", "The column with the series' name.")]
TimeColumn = Annotated[str | None, option("--time-column", "The column with the time.")]
ValueColumn = Annotated[str | None, option("--value-column", "The column with the value.")]
TextColumn = Annotated[
    str | None, option("--text-column", "The column with the text; a number counts, where there is no header.")
]
LabelColumn = Annotated[str | None, option("--label-column", "The column with the label.")]
GroupColumn = Annotated[
    str | None, option("--group-column", "Rows alike in it are not shared out to training and test.")
]
Tokeniser = Annotated[
    Literal["word", "char"] | None,
    option("--tokeniser", "What a token is.", show_default="word; for next-token char"),
]
MaxLen = Annotated[int | None, option("--max-len", "The longest text in tokens; what 99 % have if left out.", min=1)]
Truncated = Annotated[
    Literal["head", "tail"] | None, option("--cut", "Which end of a longer text is kept.", show_default="head")
]
Balance = Annotated[bool, option("--balance", "Let each label count the same, however many texts it has.")]
Members = Annotated[int | None, option("--members", "Networks whose answers are averaged.", min=1, show_default="1")]
Features = Annotated[str, option("--features", "The values of an event, with commas; the first is forecast.")]
Targets = Annotated[
    str | None, option("--targets", "Which of the features are forecast, with commas; the first if left out.")
]
Known = Annotated[
    str | None,
    option("--known", "Which of the features are known for the steps ahead too, with commas, as a weather forecast."),
]
NonNegative = Annotated[bool, option("--non-negative", "Let no forecast be below zero.")]
MaxGap = Annotated[
    int | None, option("--max-gap", "The longest hole, in steps, that is filled.", min=0, show_default="3")
]
AggregateOption = Annotated[
    Aggregate | None, option("--aggregate", "What several events in a step of --freq become together.")
]
Arch = Annotated[
    Literal["blend", "lstm", "segment", "linear", "naive"] | None,
    option(
        "--arch",
        "blend averages several; segment is an LSTM that reads a window in segments, lstm step by step; linear and "
        "naive are baselines.",
        show_default="blend",
    ),
]
Hidden = Annotated[int | None, option("--hidden", "Width of the LSTM.", min=1, show_default="64; 512 for next-token")]
Epochs = Annotated[
    int | None,
    option(
        "--epochs",
        "Most passes over the data.",
        min=1,
        show_default="30; more of few windows, of texts by their number",
    ),
]
BFloat16 = Annotated[bool, option("--bf16", "Train in bfloat16, which a GPU does faster.")]
Seed = Annotated[int | None, option("--seed", "The same seed trains the same model.", show_default="0")]
Freq = Annotated[
    str | None,
    option("--freq", "The grid: 15s, 30m, 1h, 1d, 1mo; found from the data if left out.", callback=_check_freq),
]
Lateness = Annotated[
    str | None,
    option("--lateness", "How long a step waits in event time for what is out of order, as 5m.", show_default="0"),
]
LateTopic = Annotated[
    str | None, option("--late-topic", "Where late and duplicate events go; only counted if left out.")
]
OnLost = Annotated[
    OnDataLoss, option("--on-lost", "If unread records are gone from the log: fail, or go on from the earliest.")
]
Horizon = Annotated[
    int | None, option("--horizon", "Steps to forecast; a day, or the next season, if left out.", min=1)
]
SeqLen = Annotated[int | None, option("--seq-len", "Steps to look back; found from the data if left out.", min=2)]
Budget = Annotated[
    str | None, option("--budget", "About how long training may take, as 5m; as long as it pays if left out.")
]
DeviceOption = Annotated[Device, option("--device", "auto takes the GPU if there is one, and says which and why.")]
