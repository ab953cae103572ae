"""The commands that fit a model or try one: train, backtest, forecast, replay, trace, generate."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deploy.cli.config_file import closest, settings_of
from deploy.cli.data_options import (
    ColumnOptions,
    FutureCovariateOptions,
    HistoryFileOptions,
    HistoryTopicOptions,
    LatenessOptions,
    WindowOptions,
)
from deploy.cli.options import (
    ConfigOptions,
    DeviceOptions,
    HomeOptions,
    JsonOptions,
    LogOptions,
    Model,
    Name,
    RegistryOptions,
    option,
)
from deploy.cli.signature import takes
from deploy.cli.training_options import (
    ExportOptions,
    ForecastNetworkOptions,
    NetworkOptions,
    PrecisionOptions,
    TextOptions,
    TokenOptions,
    check_task_options,
)
from deploy.console import finish
from deploy.pictures import Picture
from deploy.settings.locations import DEFAULT_TRACKING
from deploy.settings.values import Device, model_name, parse_levels, parse_share, parse_span
from tidecast.text import escaped

if TYPE_CHECKING:
    from deploy.data import DataSource

HISTORY = (HistoryTopicOptions, HistoryFileOptions, ColumnOptions)
FORECASTER = (WindowOptions, ForecastNetworkOptions, NetworkOptions)
COMMON = (JsonOptions, ConfigOptions)


@takes(
    *(HistoryTopicOptions, LogOptions, *FORECASTER, LatenessOptions, PrecisionOptions, ExportOptions),
    *(ColumnOptions, TextOptions, TokenOptions, DeviceOptions, RegistryOptions, *COMMON),
)
def train(
    context: typer.Context,
    name: Name,
    as_json: bool,
    task: Annotated[
        Literal["forecast", "classify", "next-token"],
        option("--task", "forecast series, classify texts, or continue a text."),
    ] = "forecast",
    data: Annotated[
        str | None,
        option("--data", "Or read a file: CSV, Parquet, JSON lines; for next-token a plain text; - reads stdin."),
    ] = None,
) -> None:
    """Train a model on a topic or a file, and register it.

    The run is logged to MLflow while it trains, and the first version of a name becomes its champion, the version that
    services of NAME@champion serve. Series are forecast, from events or a table of measurements; texts are classified,
    from a table with a text and a label in each row, or continued, from a plain text file.
    """
    check_task_options(context, task)
    options = context.params | (closest(context, "topic", "data") if task == "forecast" else {})
    source = _opened(options) if task == "forecast" else None
    from deploy.training.options import TrainOptions, run_training

    finish(run_training(TrainOptions.of(options), source), as_json)


def _opened(options: Mapping[str, Any]) -> "DataSource":
    """The source of a history, its file read before anything large is imported: what is wrong is said at once."""
    from deploy.data import DataSource

    return DataSource.of(options).read(options["freq"])


class BacktestOptions:
    """What a backtest holds out, and what it compares with."""

    protocol: Annotated[
        Literal["rolling", "ett", "70-10-20"],
        option("--protocol", "rolling tests on --test; ett on 12, 4 and 4 months of 30 days; 70-10-20 on shares."),
    ] = "rolling"
    test: Annotated[
        str, option("--test", "The test part of rolling, at the end: a share, a number of steps, or as 14d.")
    ] = "0.2"
    seeds: Annotated[int, option("--seeds", "Trainings with different seeds: mean and spread.", min=1)] = 1
    statistical: Annotated[
        bool, option("--statistical/--no-statistical", "Compare with AutoETS or MSTL, on some sixty origins.")
    ] = True
    plot: Annotated[Path | None, option("--plot", "The plot's path; in .tidecast/backtests if left out.")] = None


@takes(
    *(*HISTORY, BacktestOptions, *FORECASTER, LatenessOptions, FutureCovariateOptions, PrecisionOptions),
    *(DeviceOptions, LogOptions, *COMMON),
)
def backtest(context: typer.Context, plot: Path | None, as_json: bool) -> None:
    """Evaluate what `train` would register, on held-out data.

    Trains on the beginning, selects on what follows, and forecasts from every origin of the end, compared with the last
    value, the seasonal naive forecasts, and AutoETS or MSTL. Shows a table and a plot, and with --json all errors by
    series and by step.
    """
    given = context.params | closest(context, "topic", "data")
    source = _opened(given)
    from deploy.evaluation.backtest import BacktestJob, report_backtest
    from deploy.training.options import TrainOptions, forecast_job

    options = TrainOptions.of(given | {"name": given["topic"] or model_name(given["data"])})
    own = {name: context.params[name] for name in ("protocol", "test", "seeds", "statistical")}
    job = BacktestJob(train=forecast_job(options), **own)
    picture = Picture(plot, "backtests")
    finish(report_backtest(job, source, picture), as_json)
    picture.confirm()


@takes(*FORECASTER, FutureCovariateOptions, ColumnOptions, DeviceOptions, *COMMON)
def forecast(
    context: typer.Context,
    data: Annotated[str, option("--data", "CSV, Parquet or JSON lines, long or wide; - reads stdin.")],
    as_json: bool,
    output: Annotated[
        Path | None, option("--output", "Also write all forecasts to this .csv, .parquet or .jsonl file.")
    ] = None,
    plot: Annotated[Path | None, option("--plot", "The plot's path; in .tidecast/forecasts if left out.")] = None,
    level: Annotated[str, option("--level", "Intervals, in percent; or none.")] = "80,90",
) -> None:
    """Forecast what comes after a file's last measurements.

    Trains a model on the file, forecasts every series, and shows a table (of one series with its intervals, else
    --output has them) and a plot with intervals; no broker, no server. Features that are --known ahead have their
    values in the file's last rows, where the targets are empty.
    """
    levels, source = parse_levels(level), _opened(context.params)
    from deploy.evaluation.forecast import forecast_file
    from deploy.training.options import TrainOptions, forecast_job

    options = TrainOptions.of(context.params | {"name": model_name(data)})
    picture = Picture(plot, "forecasts")
    finish(forecast_file(forecast_job(options), source, output, picture, levels), as_json)
    picture.confirm()


@takes(*HISTORY, DeviceOptions, LogOptions, RegistryOptions, *COMMON)
def replay(
    context: typer.Context,
    model: Annotated[
        list[str],
        option("--model", "NAME/VERSION, NAME@ALIAS, a file.onnx, seasonal-naive or last-value; several times."),
    ],
    device: Device,
    tracking_uri: str,
    as_json: bool,
    since: Annotated[
        str | None, option("--from", "The first origin, such as 2026-01-31T12:00, or as 90d, so long ago.")
    ] = None,
    until: Annotated[str | None, option("--to", "The end of the origins, exclusive.")] = None,
    plot: Annotated[Path | None, option("--plot", "The plot's path; in .tidecast/replays if left out.")] = None,
    coverage: Annotated[
        str, option("--coverage", "Give intervals as serve would have given them, for this share such as 0.9; or off.")
    ] = "off",
) -> None:
    """Compare any versions on a history, from the same origins.

    All models forecast from the same origins, at full speed, and are scored by the actual values: a table, a plot, and
    which of them were trained on a part of that history. Writes to no topic, and joins no group.
    """
    from deploy.evaluation.replay import ReplayJob, report_replay
    from deploy.training.options import TrainOptions, data_source

    options = TrainOptions.of(context.params | closest(context, "topic", "data") | {"name": "replay"})
    start, end = parse_span("from", since, "to", until)
    job = ReplayJob(
        models=tuple(dict.fromkeys(model)),
        since=start,
        until=end,
        device=device,
        coverage=parse_share("coverage", coverage),
    )
    picture = Picture(plot, "replays")
    finish(report_replay(job, data_source(options), tracking_uri, picture), as_json)
    picture.confirm()


@takes(JsonOptions, HomeOptions)
def trace(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|CONFIG", help="NAME@ALIAS, NAME/VERSION, a file.onnx; or a file.toml of train's options."
        ),
    ],
    as_json: bool,
    tracking_uri: Annotated[
        str | None, option("--tracking-uri", "MLflow's server or store.", show_default=DEFAULT_TRACKING)
    ] = None,
) -> None:
    """Show the shape of a real batch at every layer of a model.

    A registered model is shown with the example batch that it was registered with; a settings file with the first rows
    of the data that `train` would read, through the network that it would start with: for a blend, all candidates.
    """
    from deploy.operations.trace import print_trace

    def settings(path: Path) -> dict[str, str]:
        return settings_of(context, "train", path)[0]

    finish(print_trace(target, tracking_uri, settings), as_json)


@takes(RegistryOptions, ConfigOptions)
def generate(
    model: Model,
    tracking_uri: str,
    prompt: Annotated[str, option("--prompt", "The beginning of the text.")] = "",
    length: Annotated[int, option("--length", "How many tokens to add: characters, or words.", min=1)] = 500,
    temperature: Annotated[
        float, option("--temperature", "Sampling temperature; 0 always takes the most likely token.")
    ] = 0.7,
    top_k: Annotated[int, option("--top-k", "Sample from the k most likely tokens only; 0: from all.")] = 0,
    seed: Annotated[int | None, option("--seed", "The random seed; another each time if left out.")] = None,
) -> None:
    """Continue a text with a model of --task next-token."""
    from deploy.operations.generate import Sampling, generate_text

    sampling = Sampling(temperature=temperature, top_k=top_k, seed=seed)
    for piece in generate_text(model, prompt, length, sampling, tracking_uri):
        # A terminal would obey what a model has learned to write.
        sys.stdout.write("\n".join(map(escaped, piece.split("\n"))) if sys.stdout.isatty() else piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
