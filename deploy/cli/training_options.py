"""Options of how a model is trained, and those of `train` that are for some tasks only."""

from typing import Annotated, Literal

import typer

from deploy.cli.data_options import ColumnOptions, HistoryTopicOptions, LatenessOptions, WindowOptions
from deploy.cli.options import LogOptions, option
from deploy.cli.signature import option_names
from tidecast.errors import ConfigError


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
        str | None, option("--budget", "About how long to train, such as 5m; until it stops improving if left out.")
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


class ExportOptions:
    """The precision of a model's file."""

    precision: Annotated[
        Literal["float32", "int8", "fp16"] | None,
        option(
            "--precision",
            "Of the file's LSTMs: int8 for CPUs, fp16 for GPUs; kept in float32 where the validation error grows by "
            "more than 1 %.",
            show_default="the champion's, else float32",
        ),
    ] = None


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


TASKS: dict[str, tuple[type, ...]] = {
    "forecast": (
        HistoryTopicOptions,
        LogOptions,
        WindowOptions,
        LatenessOptions,
        ForecastNetworkOptions,
        PrecisionOptions,
        ExportOptions,
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
