"""The commands about a topic's records: ingest, tail, dead-letters, score, explain."""

import os
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.data_options import ColumnOptions, FeatureOptions, GridOptions, LatenessOptions
from deploy.cli.options import ConfigOptions, JsonOptions, LogOptions, RegistryOptions, SeriesOptions, Topic, option
from deploy.cli.signature import refuse_without, takes
from deploy.console import finish
from deploy.pictures import Picture
from deploy.settings.files import decode_paths, open_log
from deploy.settings.serve import Format
from deploy.settings.values import ScoreView, parse_duration_option, parse_feature_names, parse_span
from tidecast.errors import ConfigError


@takes(LogOptions, ColumnOptions, FeatureOptions, GridOptions, JsonOptions, ConfigOptions)
def ingest(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FILE|-", help="CSV, Parquet or JSON lines; - reads stdin.")],
    topic: Topic,
    bootstrap: str,
    freq: str | None,
    as_json: bool,
    partitions: Annotated[int, option("--partitions", "Partitions of the topic, if it is created.", min=1)] = 1,
    speed: Annotated[
        float | None, option("--speed", "A multiple of real time; as fast as possible if left out.")
    ] = None,
    only_newer: Annotated[
        bool,
        option(
            "--only-newer", "Only what is later than the newest event of its series on the topic: again adds nothing."
        ),
    ] = False,
    message_format: Annotated[
        Format, option("--format", "arrow writes columns, many rows a message; json a message each. Both are read.")
    ] = "json",
) -> None:
    """Publish a file's measurements to a topic.

    Each becomes an event, in time order. Columns are found by name (series or unique_id, ts or ds, value or y). A table
    with a time and several numeric columns is wide: each becomes a series.
    """
    from deploy.data import columns_of
    from deploy.operations.ingest import ingest as run

    columns = columns_of(context.params)
    found = run(
        bootstrap,
        source,
        topic,
        columns,
        freq,
        partitions,
        speed,
        only_newer=only_newer,
        message_format=message_format,
    )
    finish(found, as_json)


@takes(LogOptions, ConfigOptions)
def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic to show.")],
    bootstrap: str,
    last: Annotated[int, option("--last", "How many records of each partition to start with.", min=0)] = 10,
    follow: Annotated[bool, option("--follow", "Keep showing new records, until Ctrl-C.")] = False,
    features: Annotated[str | None, option("--features", "The values of an event, as the model takes them.")] = None,
) -> None:
    """Show a topic's newest records as a service reads them."""
    from deploy.operations.tail import print_tail

    print_tail(bootstrap, topic, last, follow, None if features is None else parse_feature_names("features", features))


class DeadLetterOptions:
    """What to do with dead letters."""

    last: Annotated[int, option("--last", "How many of the newest to show.", min=0)] = 10
    reason: Annotated[str | None, option("--reason", "Only those with this reason.")] = None
    export: Annotated[str | None, option("--export", "Write them to this new file as JSON lines; - is stdout.")] = None
    redrive: Annotated[
        str | None, option("--redrive", "Send this file's repaired dead letters to the topic they came from.")
    ] = None
    again: Annotated[bool, option("--again", "Also send those that were redriven before.")] = False
    skip_invalid: Annotated[bool, option("--skip-invalid", "Skip lines that are still invalid.")] = False
    texts: Annotated[bool, option("--texts", "The topic's events are texts.")] = False


@takes(DeadLetterOptions, FeatureOptions, LogOptions, JsonOptions, ConfigOptions)
def dead_letters(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A service's dead letter topic, GROUP-dead-letters.")],
    export: str | None,
    redrive: str | None,
    reason: str | None,
    last: int,
    bootstrap: str,
    as_json: bool,
) -> None:
    """Show a service's dead letters, export or redrive them.

    Repair key or value in the file. --redrive validates each line as serving would, then sends it with its own
    timestamp, key and partition, and a header tidecast.redriven by which a second redrive skips it. A value that was
    truncated at 64 KiB must be given whole.

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

        features = parse_feature_names("features", context.params["features"])
        flags = {name: context.params[name] for name in ("texts", "again", "skip_invalid")}
        finish(send(bootstrap, topic, redrive, features, reason=reason, **flags), as_json)
        return
    from deploy.operations.dead_letters import export_dead_letters, print_dead_letters

    if export:
        finish(export_dead_letters(bootstrap, topic, export, reason), as_json)
    else:
        finish(print_dead_letters(bootstrap, topic, last, reason, as_json), as_json)


class FileOptions:
    """The model's file, where it has no other name."""

    model: Annotated[
        str | None, option("--model", "The model's file, if the forecast is not by a registered model.")
    ] = None


class ScoreOptions:
    """Which scores to show, and how."""

    by: Annotated[ScoreView, option("--by", "A row for each series, model version, or step ahead.")] = "series"
    since: Annotated[
        str | None,
        option("--from", "Buckets of scores from this time on, such as 2026-01-31T12:00, or as 7d, so long ago."),
    ] = None
    until: Annotated[str | None, option("--to", "Buckets of scores that begin before this time.")] = None
    series: Annotated[list[str] | None, option("--series", "Only this series; may be given several times.")] = None
    top: Annotated[int | None, option("--top", "How many series to show; 20, in JSON all, if left out.", min=1)] = None
    follow: Annotated[
        bool, option("--follow", "Keep the table up to date, until Ctrl-C; with --json a line each time.")
    ] = False
    recompute: Annotated[
        bool,
        option(
            "--recompute", "Grade all steps of all forecasts again, from the topics, and compare: equal to the bit?"
        ),
    ] = False


@takes(
    *(ScoreOptions, FileOptions, LatenessOptions, SeriesOptions),
    *(LogOptions, RegistryOptions, JsonOptions, ConfigOptions),
)
def score(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic of the forecasts.")],
    follow: bool,
    recompute: bool,
    bootstrap: str,
    as_json: bool,
) -> int:
    """Show how good a service's forecasts have been.

    A service compares each forecast with what came, and writes the errors to TOPIC-scores, a record for each series and
    bucket of event time. Shows the series that are worst against the seasonal naive first.

    With --recompute all of it is computed again from the forecasts and the events that they were made from; --model,
    --lateness, --idle and --series-limit are then as the service had them. Exits with 65 if the scores differ.
    """
    from deploy.grading.reader import Selection
    from deploy.operations.recompute import Served, report_recomputed
    from deploy.operations.score import follow_scores, report_scores

    if follow and recompute:
        raise ConfigError("give one of --follow and --recompute")
    if not recompute:
        refuse_without("recompute", context, FileOptions, LatenessOptions, SeriesOptions)
    options = context.params
    since, until = parse_span("from", options["since"], "to", options["until"])
    shown = Selection(since, until, frozenset(options["series"] or ())), options["by"], options["top"]
    late, idle = (parse_duration_option(name, options[name]) for name in ("lateness", "idle"))
    paths = decode_paths(bootstrap)
    with closing(open_log(bootstrap)) as log:
        if follow:
            follow_scores(log, topic, *shown, as_json=as_json)
            return 0
        if not recompute:
            finish(report_scores(log, topic, *shown, as_json=as_json), as_json)
            return 0
        served = Served(options["model"], options["tracking_uri"], late, idle, paths, options["series_limit"])
        found = report_recomputed(log, topic, *shown, served, as_json=as_json)
    finish(found, as_json)
    return 0 if found["recomputed"]["same"] else os.EX_DATAERR


@takes(FileOptions, LatenessOptions, LogOptions, RegistryOptions, JsonOptions, ConfigOptions)
def explain(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic of the forecast.")],
    partition: Annotated[int, typer.Argument(metavar="PARTITION", help="Its partition.", min=0)],
    offset: Annotated[int, typer.Argument(metavar="OFFSET", help="Its offset.", min=0, max=2**62)],
    lateness: str | None,
    bootstrap: str,
    tracking_uri: str,
    as_json: bool,
    model: str | None,
    of: Annotated[str | None, option("--of", "Whose forecast it is, in a message of many: a series.")] = None,
    plot: Annotated[Path | None, option("--plot", "The plot's path; in .tidecast/explained if left out.")] = None,
) -> int:
    """Reproduce a forecast, and show its input and what came.

    Each forecast carries, as headers, the digest and version of its model and the records it is from. Shows them,
    whether the forecast is reproduced to the bit, how far it was off, and a plot of what was known, what was forecast
    and what came, where the topic has it. Exits with 65 if it is not reproduced.
    """
    from deploy.operations.explain import explain as run
    from deploy.operations.explain import recompute_forecast

    late, picture = parse_duration_option("lateness", lateness), Picture(plot, "explained")
    paths = decode_paths(bootstrap)
    with closing(open_log(bootstrap)) as log:
        forecast = recompute_forecast(log, topic, partition, offset, model, tracking_uri, late, paths, of)
        found = run(log, forecast, picture)
    finish(found, as_json)
    picture.confirm()
    return 0 if found["same"] else os.EX_DATAERR
