"""The commands of a model's life: retrain, schedule, models, promote, rollback, replay, explain."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deploy.cli.options import (
    Arch,
    Bootstrap,
    Budget,
    DeviceOption,
    Epochs,
    Hidden,
    Json,
    Lateness,
    Seed,
    SeriesColumn,
    Settings,
    TimeColumn,
    Tracking,
    ValueColumn,
    nearer,
    option,
)
from deploy.console import finish
from deploy.settings.defaults import DEFAULT_LOG, DEFAULT_TRACKING
from deploy.settings.files import open_log
from deploy.settings.values import parse_duration_option, parse_time_option
from tidecast.errors import ConfigError

Name = Annotated[str, option("--name", "The registered model's name.")]
LearnTopic = Annotated[str | None, option("--topic", "Learn from this topic's history.")]
Archive = Annotated[str | None, option("--data", "Or from a file: CSV, Parquet or JSON lines.")]
Since = Annotated[
    str | None, option("--since", "Learn from what was written so long ago at most, as 90d, or since 2026-01-31.")
]
Until = Annotated[str | None, option("--until", "And before this time, as 2026-01-31T12:00; now if left out.")]
Begin = Annotated[Literal["fresh", "warm"], option("--start", "warm begins with the champion's weights.")]


def retrain(
    context: typer.Context,
    name: Name,
    topic: LearnTopic = None,
    data: Archive = None,
    since: Since = None,
    until: Until = None,
    start: Begin = "fresh",
    arch: Arch = None,
    hidden: Hidden = None,
    epochs: Epochs = None,
    budget: Budget = None,
    seed: Seed = None,
    series_column: SeriesColumn = None,
    time_column: TimeColumn = None,
    value_column: ValueColumn = None,
    device: DeviceOption = "auto",
    bootstrap: Bootstrap = DEFAULT_LOG,
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Train a challenger, and promote it if it is surely better.

    Challenger, champion and naive forecasts are compared at the same origins, all later than anything that either model
    has learned from. The new version is registered with its verdict and a picture of it; it becomes champion if its
    error is surely more than 1 % less, and less than every naive forecast's. For cron, a Kubernetes CronJob or Airflow:
    once more after it was killed anywhere is the same as once. Ends with 75 if another retraining of the name is at
    work.
    """
    finish(_run(context), as_json)


def schedule(
    context: typer.Context,
    name: Name,
    cron: Annotated[str | None, option("--cron", "When, as cron has it: '0 */6 * * *'.")] = None,
    every: Annotated[str | None, option("--every", "Or how often, from now on, as 6h.")] = None,
    topic: LearnTopic = None,
    data: Archive = None,
    since: Since = None,
    start: Begin = "fresh",
    arch: Arch = None,
    hidden: Hidden = None,
    epochs: Epochs = None,
    budget: Budget = None,
    seed: Seed = None,
    series_column: SeriesColumn = None,
    time_column: TimeColumn = None,
    value_column: ValueColumn = None,
    device: DeviceOption = "auto",
    bootstrap: Bootstrap = DEFAULT_LOG,
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Retrain a model again and again, until Ctrl-C or SIGTERM.

    Each time as `tidecast retrain` does it; what fails is said in a line, and tried again at its next time.
    """
    from deploy.lifecycle.schedule import repeat, trigger

    repeat(trigger(cron, every), lambda: finish(_run(context), as_json), name)


def _run(context: typer.Context) -> dict[str, object]:
    """One retraining, by the options of a command."""
    from deploy.lifecycle.retrain import RetrainJob
    from deploy.lifecycle.retrain import learn as run
    from deploy.training.options import TrainOptions, forecast_job, source_columns

    given: dict[str, Any] = context.params
    topic, data = nearer(context, topic=given["topic"], data=given["data"])
    asked = TrainOptions.of(given | {"topic": topic, "data": data})
    span = (parse_time_option("since", given.get("since")), parse_time_option("until", given.get("until")))
    job = RetrainJob(train=forecast_job(asked), start=given["start"])
    return run(job, topic, data, source_columns(asked), span, asked.bootstrap, asked.tracking_uri)


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One model's versions; all names if left out.")
    ] = None,
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Show the registered models, their versions and scores."""
    from deploy.lifecycle.versions import show

    finish(show(name, tracking_uri), as_json)


def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME/VERSION or NAME@ALIAS.")],
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Make a version the champion. What serves NAME@champion follows within its next poll."""
    from deploy.lifecycle.versions import promote as run

    finish(run(model, tracking_uri), as_json)


def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The registered model's name.")],
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Make the champion before this one the champion again."""
    from deploy.lifecycle.versions import rollback as run

    if "/" in name or "@" in name:
        raise ConfigError(f"name: {name!r} names a version; tidecast promote makes that the champion")
    finish(run(name, tracking_uri), as_json)


def replay(
    context: typer.Context,
    model: Annotated[
        list[str],
        typer.Option(
            "--model", help="NAME/VERSION, NAME@ALIAS, a file.onnx, seasonal-naive or last-value; several times."
        ),
    ],
    topic: Annotated[str | None, option("--topic", "Replay this topic's history.")] = None,
    data: Archive = None,
    since: Annotated[
        str | None, typer.Option("--from", help="From this time on, as 2026-01-31T12:00, or since so long ago, as 90d.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Up to, without, this time.")] = None,
    series_column: SeriesColumn = None,
    time_column: TimeColumn = None,
    value_column: ValueColumn = None,
    plot: Annotated[Path | None, option("--plot", "Where to draw it; in .tidecast/replays if left out.")] = None,
    device: DeviceOption = "auto",
    bootstrap: Bootstrap = DEFAULT_LOG,
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Forecast a past again, by any versions, and compare what came of it.

    All models forecast from the same origins, at full speed, and are scored by what happened next: a table, a picture,
    and which of them had learned from a part of that past. No topic is written to, no group joined.
    """
    from deploy.evaluation.replay import ReplayJob
    from deploy.evaluation.replay import replay as run
    from deploy.training.options import TrainOptions, source_columns

    topic, data = nearer(context, topic=topic, data=data)
    columns = source_columns(
        TrainOptions(name="replay", series_column=series_column, time_column=time_column, value_column=value_column)
    )
    wanted = tuple(dict.fromkeys(model))
    job = ReplayJob(
        models=wanted, since=parse_time_option("from", since), until=parse_time_option("to", until), device=device
    )
    finish(run(job, topic, data, columns, bootstrap, tracking_uri, plot), as_json)


def explain(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Where the forecast is.")],
    partition: Annotated[int, typer.Argument(metavar="PARTITION", help="Its partition.", min=0)],
    offset: Annotated[int, typer.Argument(metavar="OFFSET", help="Its offset.", min=0, max=2**62)],
    model: Annotated[
        str | None, option("--model", "The file that made it, if that was none of the registry's.")
    ] = None,
    lateness: Lateness = None,
    plot: Annotated[Path | None, option("--plot", "Where to draw it; in .tidecast/explained if left out.")] = None,
    bootstrap: Bootstrap = DEFAULT_LOG,
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
    settings: Settings = None,
) -> int:
    """Make a forecast again, and show what it is made of.

    Each forecast carries, as headers, the digest and version of its model and the records it is from. Shows them,
    whether the same comes out to the bit, and a picture of window and forecast. Ends with 65 if it does not.
    """
    from deploy.operations.explain import explain as run

    late = parse_duration_option("lateness", lateness)
    found = run(open_log(bootstrap), topic, partition, offset, model, tracking_uri, late, plot)
    finish(found, as_json)
    return 0 if found["same"] else os.EX_DATAERR
