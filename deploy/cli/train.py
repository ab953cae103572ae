"""The commands that learn: train, backtest, forecast. What a command does lies in the module it calls."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.cli.options import (
    AggregateOption,
    Arch,
    Balance,
    BFloat16,
    Bootstrap,
    Budget,
    DeviceOption,
    Epochs,
    Features,
    Freq,
    GroupColumn,
    Hidden,
    Horizon,
    Json,
    Known,
    LabelColumn,
    Lateness,
    MaxGap,
    MaxLen,
    Members,
    NonNegative,
    Seed,
    SeqLen,
    SeriesColumn,
    Settings,
    Targets,
    TextColumn,
    TimeColumn,
    Tokeniser,
    Tracking,
    Truncated,
    ValueColumn,
    keep_to_task,
    nearer,
    option,
)
from deploy.console import finish
from deploy.settings.defaults import DEFAULT_LOG, DEFAULT_TRACKING


def train(
    context: typer.Context,
    name: Annotated[str, option("--name", "The registered model's name.")],
    task: Annotated[
        Literal["forecast", "classify", "next-token"],
        option("--task", "forecast series, classify texts, or continue a text."),
    ] = "forecast",
    topic: Annotated[str | None, option("--topic", "Learn from this topic's history.")] = None,
    data: Annotated[str | None, option("--data", "Or from a file: CSV, Parquet, JSON lines; or a plain text.")] = None,
    bootstrap: Bootstrap = DEFAULT_LOG,
    horizon: Horizon = None,
    seq_len: SeqLen = None,
    freq: Freq = None,
    max_gap: MaxGap = None,
    aggregate: AggregateOption = None,
    lateness: Lateness = None,
    features: Features = "value",
    targets: Targets = None,
    non_negative: NonNegative = False,
    arch: Arch = None,
    hidden: Hidden = None,
    epochs: Epochs = None,
    budget: Budget = None,
    seed: Seed = None,
    bf16: BFloat16 = False,
    series_column: SeriesColumn = None,
    time_column: TimeColumn = None,
    value_column: ValueColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    group_column: GroupColumn = None,
    tokeniser: Tokeniser = None,
    max_len: MaxLen = None,
    cut: Truncated = None,
    balance: Balance = False,
    members: Members = None,
    device: DeviceOption = "auto",
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Train a model on a topic or a file, and register it.

    The run is logged to MLflow, and the first version of a name becomes its champion. Series are forecast, from events
    or a table of measurements; texts are classified, from a table with a text and a label in each row, or continued,
    from a plain text file.
    """
    keep_to_task(context, task)
    if task == "forecast":
        topic, data = nearer(context, topic=topic, data=data)
    from deploy.training.options import TrainOptions, learn

    finish(learn(TrainOptions.of(context.params | {"topic": topic, "data": data})), as_json)


def backtest(
    context: typer.Context,
    topic: Annotated[str | None, option("--topic", "Judge on this topic's history.")] = None,
    data: Annotated[str | None, option("--data", "Or on a file: CSV, Parquet or JSON lines; long or wide.")] = None,
    protocol: Annotated[
        Literal["rolling", "ett", "70-10-20"],
        option("--protocol", "rolling tests on --test; ett on 12, 4 and 4 months of 30 days; 70-10-20 on shares."),
    ] = "rolling",
    horizon: Horizon = None,
    test: Annotated[
        str, option("--test", "The end that is forecast, for rolling: a share, a number of steps, or as 14d.")
    ] = "0.2",
    seeds: Annotated[int, option("--seeds", "Trainings, each from another seed: mean and spread.", min=1)] = 1,
    statistical: Annotated[
        bool, option("--statistical/--no-statistical", "Fit AutoETS or MSTL beside it, on some sixty origins.")
    ] = True,
    plot: Annotated[Path | None, option("--plot", "Where to draw it; in .tidecast/backtests if left out.")] = None,
    seq_len: SeqLen = None,
    freq: Freq = None,
    max_gap: MaxGap = None,
    aggregate: AggregateOption = None,
    lateness: Lateness = None,
    features: Features = "value",
    targets: Targets = None,
    known: Known = None,
    non_negative: NonNegative = False,
    arch: Arch = None,
    hidden: Hidden = None,
    epochs: Epochs = None,
    budget: Budget = None,
    seed: Seed = None,
    bf16: BFloat16 = False,
    series_column: SeriesColumn = None,
    time_column: TimeColumn = None,
    value_column: ValueColumn = None,
    device: DeviceOption = "auto",
    bootstrap: Bootstrap = DEFAULT_LOG,
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Judge what `train` would make, on a past it has not seen.

    Trains on the beginning, chooses on what follows, and forecasts from every origin of the end, beside the last value,
    the seasonal naive forecasts, and AutoETS or MSTL. A table, a picture, and with --json all errors by series and
    by step.
    """
    from deploy.evaluation.backtest import BacktestJob
    from deploy.evaluation.backtest import backtest as run
    from deploy.settings.values import model_name
    from deploy.training.options import TrainOptions, forecast_job, source_columns

    topic, data = nearer(context, topic=topic, data=data)
    asked = TrainOptions.of(context.params | {"topic": topic, "data": data, "name": topic or model_name(str(data))})
    job = BacktestJob(train=forecast_job(asked), protocol=protocol, test=test, seeds=seeds, statistical=statistical)
    finish(run(job, topic, data, source_columns(asked), bootstrap, plot), as_json)


def forecast(
    context: typer.Context,
    data: Annotated[str, option("--data", "CSV, Parquet or JSON lines, long or wide; - reads stdin.")],
    horizon: Horizon = None,
    output: Annotated[
        Path | None, option("--output", "Write all forecasts to this .csv, .parquet or .jsonl file too.")
    ] = None,
    plot: Annotated[Path | None, option("--plot", "Where to draw it; in .tidecast/forecasts if left out.")] = None,
    seq_len: SeqLen = None,
    freq: Freq = None,
    max_gap: MaxGap = None,
    aggregate: AggregateOption = None,
    features: Features = "value",
    targets: Targets = None,
    known: Known = None,
    non_negative: NonNegative = False,
    arch: Arch = None,
    hidden: Hidden = None,
    epochs: Epochs = None,
    budget: Budget = None,
    seed: Seed = None,
    series_column: SeriesColumn = None,
    time_column: TimeColumn = None,
    value_column: ValueColumn = None,
    device: DeviceOption = "auto",
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Forecast what comes after a file's last measurements.

    Trains a model on the file, forecasts every series, and shows a table and a picture; no broker, no server. What is
    --known ahead stands in the file's last rows, where what is forecast is left empty.
    """
    from deploy.evaluation.forecast import forecast as run
    from deploy.settings.values import model_name
    from deploy.training.options import TrainOptions, forecast_job, source_columns

    asked = TrainOptions.of(context.params | {"name": model_name(data)})
    finish(run(forecast_job(asked), data, source_columns(asked), output, plot), as_json)
