"""The commands and their options; those that learn lie beside. What a command does lies in the module it calls."""

import os
import socket
import sys
import time
from typing import Annotated

import typer

from deploy.cli.models import explain, models, promote, replay, retrain, rollback, schedule
from deploy.cli.options import (
    Bootstrap,
    DeviceOption,
    Features,
    Freq,
    Group,
    Json,
    Lateness,
    LateTopic,
    Model,
    OnLost,
    Output,
    SeriesColumn,
    Settings,
    TimeColumn,
    Topic,
    Tracking,
    ValueColumn,
    known_settings,
    option,
)
from deploy.cli.train import backtest, forecast, train
from deploy.console import finish
from deploy.settings.defaults import CONFIG_FILE, DEFAULT_LOG, DEFAULT_TRACKING
from deploy.settings.serve import Guarantee, ServeConfig, ShortSeries, Start, group_name
from deploy.settings.values import parse_duration_option, parse_feature_names, parse_seconds_option
from pipeline.windows.store import SERIES_LIMIT
from tidecast.errors import ConfigError

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
    from deploy.operations.ingest import ingest as run
    from pipeline.datasets.measurements import Columns

    columns = Columns(
        series=series_column, ts=time_column, value=value_column, features=parse_feature_names("features", features)
    )
    finish(run(bootstrap, source, topic, columns, freq, partitions, speed), as_json)


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic to show.")],
    bootstrap: Bootstrap = DEFAULT_LOG,
    last: Annotated[int, option("--last", "How many records to begin with, a partition.", min=0)] = 10,
    follow: Annotated[bool, option("--follow", "Go on with what arrives, until Ctrl-C.")] = False,
    settings: Settings = None,
) -> None:
    """Show a topic's newest events, forecasts or dead letters."""
    from deploy.operations.tail import show

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
        from deploy.operations.redrive import redrive as send

        names, flags = (
            parse_feature_names("features", features),
            {"texts": texts, "again": again, "skip_invalid": skip_invalid},
        )
        finish(send(bootstrap, topic, redrive, names, reason=reason, **flags), as_json)
        return
    from deploy.operations.dead_letters import export as write
    from deploy.operations.dead_letters import show

    done = write(bootstrap, topic, export, reason) if export else show(bootstrap, topic, last, reason, as_json)
    finish(done, as_json)


for _command in (train, backtest, forecast):
    app.command()(_command)


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
    short_series: Annotated[
        ShortSeries,
        option("--short-series", "Until a series fills a window: wait, or forecast naively, so labelled as source."),
    ] = "wait",
    follow: Annotated[
        str, option("--follow", "How soon to go on with the version that NAME or NAME@ALIAS comes to mean.")
    ] = "10s",
    shadow: Annotated[
        str | None,
        option("--shadow", "A second model, as NAME@challenger, on the same windows; it answers on OUTPUT-shadow."),
    ] = None,
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

    Another version that the model's alias comes to mean is checked, tried, and taken between two micro-batches;
    whatever is wrong with it, the old one goes on.

    An event is forecast when it fills a window. Answers go into their events' partitions, forecasts keyed by their
    series, and a restart goes on where the last one was. Records that are no events go to GROUP-dead-letters. SIGTERM
    finishes the batch in hand.
    """
    from deploy.serving.run import Connections
    from deploy.serving.run import serve as run

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
        lateness=parse_duration_option("lateness", lateness),
        idle=parse_duration_option("idle", idle),
        series_limit=series_limit,
        lost=on_lost,
        short_series=short_series,
        follow_s=parse_seconds_option("follow", follow) or 0,
        static=static,
    )
    wiring = Connections(model=model, shadow=shadow, device=device, bootstrap=bootstrap, tracking_uri=tracking_uri)
    finish(run(settled, wiring), as_json)


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
    from deploy.operations.check import check as run

    settled = ServeConfig(
        topic=topic,
        output=output or "",
        group=group or group_name(topic, model),
        instance="check",
        start="earliest",
        late_topic=late_topic or "",
        lateness=parse_duration_option("lateness", lateness),
        lost=on_lost,
    )
    found = run(settled, model, device, bootstrap, tracking_uri, as_json=as_json)
    finish(found, as_json)
    return os.EX_CONFIG if found["wrong"] else 0


for _of_models in (retrain, schedule, models, promote, rollback, replay, explain):
    app.command()(_of_models)


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
    from deploy.operations.generate import Sampling, continued

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
    tracking_uri: Annotated[
        str | None, option("--tracking-uri", "MLflow's server or store.", show_default=DEFAULT_TRACKING)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the shape of a real batch at every layer of a model.

    A registered model is shown with rows it was checked with; a settings file with the first rows of the data that
    `train` would learn from, through the network that it would begin with: of a blend all that it would try.
    """
    from deploy.operations.trace import Settable
    from deploy.operations.trace import show as run

    settable = Settable(anywhere=known_settings(context), in_train=known_settings(context, "train"))
    finish(run(target, tracking_uri, settable), as_json)


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
    from deploy.demo.demo import demo as run

    run(bootstrap, tracking_uri, settings or CONFIG_FILE, stay=not once, began=BEGAN)
