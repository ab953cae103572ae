"""The commands and their options. What a command does lies in the module it calls."""

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.config import (
    CONFIG_FILE,
    DEFAULT_LOG,
    DEFAULT_TRACKING,
    ConfigError,
    Guarantee,
    ServeConfig,
    Start,
    duration,
    feature_names,
    group_name,
    model_name,
    seconds,
)
from deploy.options import (
    Balance,
    Bootstrap,
    Budget,
    Cut,
    DeviceOption,
    Features,
    Freq,
    Group,
    GroupColumn,
    Horizon,
    Json,
    LabelColumn,
    Lateness,
    LateTopic,
    MaxLen,
    Members,
    Model,
    OnLost,
    Output,
    SeqLen,
    SeriesColumn,
    Settings,
    TextColumn,
    TimeColumn,
    Tokeniser,
    Topic,
    Tracking,
    ValueColumn,
    keep_to_task,
    known_settings,
    nearer,
    option,
)
from pipeline.grid import Aggregate
from pipeline.windows import SERIES_LIMIT

BEGAN = time.monotonic()

app = typer.Typer(
    name="tidecast",
    help="Forecasts on every event: measurements in from Kafka, a forecast out for each, from an LSTM of your own.",
    epilog="Every option can be set as TIDECAST_<OPTION> and in tidecast.toml too; a flag comes before its variable, "
    "and that before the file. To see it all: tidecast demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tidecast {version('tidecast')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None: ...


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(metavar="FILE|-", help="CSV, Parquet or JSON lines; - reads stdin.")],
    topic: Topic,
    bootstrap: Bootstrap = DEFAULT_LOG,
    partitions: Annotated[int, option("--partitions", "Partitions, if the topic is made.", min=1)] = 1,
    speed: Annotated[float | None, option("--speed", "Real time x this; as fast as possible if left out.")] = None,
    series_column: SeriesColumn = None,
    time_column: TimeColumn = None,
    value_column: ValueColumn = None,
    features: Features = "value",
    freq: Freq = None,
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Publish a file's measurements to a topic.

    Each becomes an event, in the order of their times. Columns are found by name (series or unique_id, ts or ds,
    value or y). A table with a time and several numeric columns is wide: each becomes a series.
    """
    from deploy.ingest import ingest as run
    from pipeline.sources import Columns

    columns = Columns(series=series_column, ts=time_column, value=value_column, features=feature_names(features))
    _finish(run(bootstrap, source, topic, columns, freq, partitions, speed), as_json)


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic to show.")],
    bootstrap: Bootstrap = DEFAULT_LOG,
    last: Annotated[int, option("--last", "How many records to begin with, a partition.", min=0)] = 10,
    follow: Annotated[bool, option("--follow", "Go on with what arrives, until Ctrl-C.")] = False,
    settings: Settings = None,
) -> None:
    """Show a topic's newest events, forecasts or dead letters."""
    from deploy.tail import show

    show(bootstrap, topic, last, follow)


@app.command("dead-letters")
def dead_letters(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="GROUP-dead-letters, a service's.")],
    bootstrap: Bootstrap = DEFAULT_LOG,
    last: Annotated[int, option("--last", "How many of the newest to show.", min=0)] = 10,
    reason: Annotated[str | None, option("--reason", "Only those with this reason.")] = None,
    export: Annotated[str | None, option("--export", "Write them to this new file as JSON lines; - is stdout.")] = None,
    redrive: Annotated[
        str | None, option("--redrive", "Send this file's letters, repaired, to where they came from.")
    ] = None,
    again: Annotated[bool, option("--again", "Send those too that were sent before.")] = False,
    skip_invalid: Annotated[bool, option("--skip-invalid", "Leave out lines that are still no events.")] = False,
    texts: Annotated[bool, option("--texts", "The topic's events are texts.")] = False,
    features: Features = "value",
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Show a service's dead letters, export or redrive them.

    Repair key or value in the file. --redrive checks each line as serving would, then sends it with its own time, key
    and partition, and a header tidecast.redriven by which a second time sends nothing. A value that was cut at 64 KiB
    must be given whole.

    An event at or before its series' last step by then is late: counted, published to the late topic if one is
    configured, never silently used; older than the whole window, it is a dead letter again (bad_time). So a repaired
    past changes no past forecast. Training reads the topic in its order, through the same windows: late there too.
    """
    if export and redrive:
        raise ConfigError("give one of --export and --redrive")
    if export == "-" and as_json:
        raise ConfigError("--export - and --json both take stdout")
    if redrive:
        from deploy.redrive import redrive as send

        names, flags = feature_names(features), {"texts": texts, "again": again, "skip_invalid": skip_invalid}
        _finish(send(bootstrap, topic, redrive, names, reason=reason, **flags), as_json)
        return
    from deploy.letters import export as write
    from deploy.letters import show

    done = write(bootstrap, topic, export, reason) if export else show(bootstrap, topic, last, reason, as_json)
    _finish(done, as_json)


@app.command()
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
    max_gap: Annotated[
        int | None, option("--max-gap", "The longest hole, in steps, that is filled.", min=0, show_default="3")
    ] = None,
    aggregate: Annotated[
        Aggregate | None, option("--aggregate", "What several events in a step of --freq become together.")
    ] = None,
    lateness: Lateness = None,
    arch: Annotated[
        Literal["blend", "lstm", "segment"] | None,
        option(
            "--arch",
            "blend averages several networks; segment is one that reads a window in segments, lstm step by step.",
            show_default="blend",
        ),
    ] = None,
    hidden: Annotated[
        int | None, option("--hidden", "Width of the LSTM.", min=1, show_default="64; 512 for next-token")
    ] = None,
    epochs: Annotated[
        int | None, option("--epochs", "Most passes over the data.", min=1, show_default="30; of texts by their number")
    ] = None,
    budget: Budget = None,
    seed: Annotated[int | None, option("--seed", "The same seed trains the same model.", show_default="0")] = None,
    features: Features = "value",
    series_column: SeriesColumn = None,
    time_column: TimeColumn = None,
    value_column: ValueColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    group_column: GroupColumn = None,
    tokeniser: Tokeniser = None,
    max_len: MaxLen = None,
    cut: Cut = None,
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
    from deploy.learn import Asked, learn

    given = {field: value for field, value in context.params.items() if field in Asked.__struct_fields__}
    given |= {"topic": topic, "data": data, "features": feature_names(features)}
    given |= {"lateness": duration("lateness", lateness), "budget": seconds("budget", budget)}
    _finish(learn(Asked(**given)), as_json)


@app.command()
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
    budget: Budget = None,
    seed: Annotated[int, option("--seed", "The same seed trains the same model.")] = 0,
    features: Features = "value",
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
    from deploy.backtest import BacktestJob
    from deploy.backtest import backtest as run
    from deploy.training import TrainJob
    from model.forecasting import ForecastConfig
    from pipeline.sources import Columns

    topic, data = nearer(context, topic=topic, data=data)
    names = feature_names(features)
    columns = Columns(series=series_column, ts=time_column, value=value_column, features=names)
    training = TrainJob(
        name=topic or model_name(str(data)),
        features=names,
        freq=freq,
        horizon=horizon,
        seq_len=seq_len,
        config=ForecastConfig(seed=seed, device=device, seconds=seconds("budget", budget)),
    )
    job = BacktestJob(train=training, protocol=protocol, test=test, seeds=seeds, statistical=statistical)
    _finish(run(job, topic, data, columns, bootstrap, plot), as_json)


@app.command()
def forecast(
    data: Annotated[str, option("--data", "CSV, Parquet or JSON lines, long or wide; - reads stdin.")],
    horizon: Horizon = None,
    output: Annotated[
        Path | None, option("--output", "Write all forecasts to this .csv, .parquet or .jsonl file too.")
    ] = None,
    plot: Annotated[Path | None, option("--plot", "Where to draw it; in .tidecast/forecasts if left out.")] = None,
    seq_len: SeqLen = None,
    freq: Freq = None,
    budget: Budget = None,
    seed: Annotated[int, option("--seed", "The same seed trains the same model.")] = 0,
    features: Features = "value",
    series_column: SeriesColumn = None,
    time_column: TimeColumn = None,
    value_column: ValueColumn = None,
    device: DeviceOption = "auto",
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Forecast what comes after a file's last measurements.

    Trains a model on the file, forecasts every series, and shows a table and a picture; no broker, no server.
    """
    from deploy.forecast import forecast as run
    from deploy.training import TrainJob
    from model.forecasting import ForecastConfig
    from pipeline.sources import Columns

    names = feature_names(features)
    columns = Columns(series=series_column, ts=time_column, value=value_column, features=names)
    job = TrainJob(
        name=model_name(data),
        features=names,
        freq=freq,
        horizon=horizon,
        seq_len=seq_len,
        config=ForecastConfig(seed=seed, device=device, seconds=seconds("budget", budget)),
    )
    _finish(run(job, data, columns, output, plot), as_json)


@app.command()
def serve(
    topic: Topic,
    model: Model,
    output: Output = None,
    group: Group = None,
    instance: Annotated[str | None, option("--instance", "This member's name, the same after a restart.")] = None,
    start: Annotated[Start, option("--from", "Where a new group begins.")] = "earliest",
    guarantee: Annotated[
        Guarantee, option("--guarantee", "exactly-once makes each batch, answers and offsets, one transaction.")
    ] = "at-least-once",
    lateness: Lateness = None,
    late_topic: LateTopic = None,
    idle: Annotated[
        str | None, option("--idle", "Forget a series silent for so long in event time, as 7d; never if left out.")
    ] = None,
    series_limit: Annotated[
        int, option("--series-limit", "Series a partition may have; events of more are dead letters.", min=1)
    ] = SERIES_LIMIT,
    on_lost: OnLost = "fail",
    static: Annotated[
        bool, option("--static", "Keep partitions while away for a moment; --instance is then who it is.")
    ] = False,
    device: DeviceOption = "auto",
    bootstrap: Bootstrap = DEFAULT_LOG,
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
    settings: Settings = None,
) -> None:
    """Serve a model: forecasts for events, or labels for texts.

    An event is forecast when it fills a window. Answers go into their events' partitions, forecasts keyed by their
    series, and a restart goes on where the last one was. Records that are no events go to GROUP-dead-letters. SIGTERM
    finishes the batch in hand.
    """
    from deploy.service import serve as run

    if static and instance is None:
        raise ConfigError("instance: --static needs the name that this member has after a restart too")
    settled = ServeConfig(
        topic=topic,
        output=output or "",
        group=group or group_name(topic, model),
        instance=instance or f"{socket.gethostname()}-{os.getpid()}",
        start=start,
        guarantee=guarantee,
        late_topic=late_topic or "",
        lateness=duration("lateness", lateness),
        idle=duration("idle", idle),
        series_limit=series_limit,
        lost=on_lost,
        static=static,
    )
    _finish(run(settled, model, device, bootstrap, tracking_uri), as_json)


@app.command()
def check(
    topic: Topic,
    model: Model,
    output: Output = None,
    group: Group = None,
    lateness: Lateness = None,
    late_topic: LateTopic = None,
    on_lost: OnLost = "fail",
    device: DeviceOption = "auto",
    bootstrap: Bootstrap = DEFAULT_LOG,
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
    settings: Settings = None,
) -> int:
    """Tell what is wrong with a configuration before it is served.

    Looks at the topics and how long and how safely they are kept, the model, the group's state, and the newest
    records: their keys, times and partitions. Writes nothing and joins no group. Ends with 78 if something is wrong;
    warnings leave it 0.
    """
    from deploy.check import check as run

    settled = ServeConfig(
        topic=topic,
        output=output or "",
        group=group or group_name(topic, model),
        instance="check",
        start="earliest",
        late_topic=late_topic or "",
        lateness=duration("lateness", lateness),
        lost=on_lost,
    )
    found = run(settled, model, device, bootstrap, tracking_uri, as_json=as_json)
    _finish(found, as_json)
    return os.EX_CONFIG if found["wrong"] else 0


@app.command()
def generate(
    model: Model,
    prompt: Annotated[str, option("--prompt", "What the text begins with.")] = "",
    length: Annotated[int, option("--length", "How many tokens to add: characters, or words.", min=1)] = 500,
    temperature: Annotated[
        float, option("--temperature", "0: always the likeliest token; 1: as the model says; above: wilder.")
    ] = 0.7,
    top_k: Annotated[int, option("--top-k", "Draw from so many of the likeliest only; 0: from all.")] = 0,
    seed: Annotated[int | None, option("--seed", "The same seed draws the same text; another each time.")] = None,
    tracking_uri: Tracking = DEFAULT_TRACKING,
    settings: Settings = None,
) -> None:
    """Continue a text, by a model of --task next-token."""
    from deploy.generate import Sampling, continued

    sampling = Sampling(temperature=temperature, top_k=top_k, seed=seed)
    for piece in continued(model, prompt, length, sampling, tracking_uri):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


@app.command()
def trace(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|CONFIG", help="NAME@ALIAS, NAME/VERSION, a file.onnx; or a file.toml of train's options."
        ),
    ],
    tracking_uri: Tracking = DEFAULT_TRACKING,
    as_json: Json = False,
) -> None:
    """Show the shape of a real batch at every layer of a model.

    A registered model is shown with rows it was checked with; a settings file with the first rows of the data that
    `train` would learn from, through the network that it would begin with.
    """
    from deploy.trace import show as run

    _finish(run(target, tracking_uri, known_settings(context)), as_json)


@app.command()
def demo(
    bootstrap: Bootstrap = DEFAULT_LOG,
    tracking_uri: Tracking = DEFAULT_TRACKING,
    once: Annotated[bool, option("--once", "End after the replay instead of waiting for Ctrl-C.")] = False,
    settings: Settings = None,
) -> None:
    """See the whole life of a forecast in about a minute.

    Publish, train, register, serve, score, on seven months of New York taxi rides, carried in the package: the first
    70 % are published and learned from, the rest is replayed into the running service.
    """
    from deploy.demo import demo as run

    run(bootstrap, tracking_uri, settings or CONFIG_FILE, stay=not once, began=BEGAN)


def _finish(summary: dict[str, object], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary))
