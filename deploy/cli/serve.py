"""The commands about a service: serve, check, bench."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.data_options import LatenessOptions
from deploy.cli.ending import work
from deploy.cli.options import (
    ConfigOptions,
    DeviceOptions,
    JsonOptions,
    LogOptions,
    Model,
    RegistryOptions,
    SeriesOptions,
    ServiceOptions,
    option,
)
from deploy.cli.signature import takes
from deploy.console import finish
from deploy.settings.files import decode_paths
from deploy.settings.locations import home
from deploy.settings.serve import SERVE_DEFAULTS, Format, Guarantee, ServeConfig, ShortSeries, Start, group_name
from deploy.settings.values import OFF, parse_duration_option, parse_seconds_option, parse_share
from deploy.web import Listener
from tidecast.errors import ConfigError

if TYPE_CHECKING:
    from deploy.serving.connections import Connections

COMMON = (DeviceOptions, LogOptions, RegistryOptions, JsonOptions, ConfigOptions)


GuaranteeOption = Annotated[
    Guarantee, option("--guarantee", "exactly-once makes each batch's output and offsets one transaction.")
]
Workers = Annotated[
    str,
    option(
        "--workers", "Processes on this machine, which share the partitions; auto: one a core, at most one a partition."
    ),
]


class DeliveryOptions:
    """How a service delivers, and what it keeps."""

    instance: Annotated[
        str | None,
        option("--instance", "This instance's name, the same after a restart; one that no other has if left out."),
    ] = None
    start: Annotated[Start, option("--from", "Where a new consumer group starts.")] = SERVE_DEFAULTS["start"]
    guarantee: GuaranteeOption = SERVE_DEFAULTS["guarantee"]
    format: Annotated[
        Format,
        option("--format", "arrow writes columns, many rows a message; json a message each. Both are read."),
    ] = SERVE_DEFAULTS["format"]
    short_series: Annotated[
        ShortSeries,
        option("--short-series", "Until a series fills a window: wait, or a naive forecast, marked so in its source."),
    ] = SERVE_DEFAULTS["short_series"]
    follow: Annotated[str, option("--follow", "How often to check which version NAME or NAME@ALIAS resolves to.")] = (
        f"{SERVE_DEFAULTS['follow_s']:g}s"
    )
    shadow: Annotated[
        str | None,
        option("--shadow", "A second model, as NAME@challenger, on the same windows; its output is OUTPUT-shadow."),
    ] = None
    static: Annotated[
        bool, option("--static", "Static membership: keep partitions over a short restart; needs --instance.")
    ] = SERVE_DEFAULTS["static"]


class GradingOptions:
    """What is made of actual values, once they are observed."""

    coverage: Annotated[
        str,
        option("--coverage", "The share of actual values that lie between each forecast's lower and upper; or off."),
    ] = f"{SERVE_DEFAULTS['coverage']:g}"
    score_every: Annotated[
        str | None,
        option("--score-every", "Event time that a record of OUTPUT-scores is about; an hour, or ten steps; or off."),
    ] = None
    alerts: Annotated[
        bool,
        option("--alerts/--no-alerts", "Write findings to OUTPUT-alerts, and how values fitted into each forecast."),
    ] = SERVE_DEFAULTS["alerts"]


class WebhookOptions:
    """Where else alerts go."""

    alert_webhook: Annotated[
        str | None,
        option("--alert-webhook", "Also POST each alert to this URL; one with a secret is best given as a variable."),
    ] = None


class HttpOptions:
    """Whether and where a service can be asked how it is."""

    http: Annotated[
        str | None,
        option(
            "--http",
            "HOST:PORT, or :PORT for this machine only, with /health, /ready, /metrics; other hosts need a token.",
        ),
    ] = None
    token_file: Annotated[
        Path | None, option("--token-file", "The token that /metrics wants; a variable for it: TIDECAST_TOKEN.")
    ] = None


class WorkerOptions:
    """How many processes a service has."""

    workers: Workers = "1"


GROUPS = (
    *(ServiceOptions, LatenessOptions, SeriesOptions, DeliveryOptions, GradingOptions, WebhookOptions, HttpOptions),
    *(WorkerOptions, *COMMON),
)


@takes(*GROUPS)
def serve(context: typer.Context, as_json: bool) -> int:
    """Serve a model: forecasts for events, or labels for texts.

    When the model's alias moves, the new version is verified, tried, and loaded between two micro-batches; if anything
    is wrong with it, the old one keeps serving.

    An event that fills a window is forecast. Outputs have their events' partitions, forecasts are keyed by series, and
    a restart continues where the last run stopped. Invalid records go to GROUP-dead-letters. SIGTERM finishes the
    current batch.
    """
    options = context.params
    if (workers := _workers(options["workers"])) == 1:
        from deploy.serving.run import serve as run

        finish(run(*_service(options)), as_json)
        return 0
    from deploy.serving.workers.processes import load

    load("deploy.cli.ending")
    from deploy.serving.workers.supervisor import supervise

    process = partial(work, home(), options["log_level"], options["log_format"])
    code, summary = supervise(*_service(options), workers, process)
    if summary is not None:
        finish(summary, as_json)
    return code


class BenchOptions(GradingOptions):
    """What is measured, and for which fleet."""

    model: Model
    fleet: Annotated[
        int | None, option("--fleet", "A number of series: how many machines like this one they need.", min=1)
    ] = None
    interval: Annotated[str, option("--interval", "The time between two values of a series of the fleet.")] = "1m"
    guarantee: GuaranteeOption = SERVE_DEFAULTS["guarantee"]
    workers: Workers = "auto"


@takes(BenchOptions, *COMMON)
def bench(context: typer.Context, as_json: bool) -> None:
    """Measure what this machine can do with a model, and what a fleet of series needs.

    Records a second: of onnxruntime alone, of a service of one process, and of one of several. They run on an embedded
    log, or on the Kafka of --bootstrap, in topics that are deleted then. With --fleet: how many machines like this one
    so many series need, in which partitions, with which memory and traffic.
    """
    options = context.params
    interval_s = parse_seconds_option("interval", options["interval"])
    if not interval_s:
        raise ConfigError(f"interval: {options['interval']} is no time between two values")
    config = ServeConfig(topic="bench", group="bench", instance="", guarantee=options["guarantee"], **_grading(options))
    workers, fleet = _workers(options["workers"]), options["fleet"]
    from deploy.serving.workers.processes import load

    load("deploy.cli.ending")
    from deploy.operations.capacity.bench import bench as run
    from deploy.serving.connections import Connections

    connections = Connections(**{name: options[name] for name in ("model", "device", "bootstrap", "tracking_uri")})
    process = partial(work, home(), "warning", options["log_format"])
    found = run(config, connections, process, workers, fleet and (fleet, interval_s), as_json=as_json)
    finish(found, as_json)


def _workers(text: str) -> int | None:
    """How many workers there are to be; None if the machine decides. Raises ConfigError."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"workers: {text!r} is neither a number from 1 on nor auto")
    return int(text)


@takes(*GROUPS)
def check(context: typer.Context, as_json: bool) -> int:
    """Check a configuration before it is served.

    Takes the options of serve. Looks at the topics, their retention and replication, the models, the group's state and
    members, and the newest records: their fields, keys, times and partitions. Writes nothing to the log and joins no
    group. Exits with 78 if something is wrong; warnings exit with 0.
    """
    from deploy.operations.check import check as run

    found = run(*_service(context.params), as_json=as_json)
    finish(found, as_json)
    return os.EX_CONFIG if found["wrong"] else 0


def _service(options: Mapping[str, Any]) -> "tuple[ServeConfig, Connections]":
    """A service's configuration and connections, by its command's options. Raises ConfigError."""
    from deploy.serving.connections import Connections

    topic, model, instance = options["topic"], options["model"], options["instance"]
    if options["static"] and instance is None:
        raise ConfigError("instance: --static needs the name that this instance has after a restart too")
    if options["alert_webhook"] and not options["alerts"]:
        raise ConfigError("alert-webhook: with --no-alerts there are none to post")
    same = ("start", "guarantee", "format", "series_limit", "waiting_limit", "short_series", "static")
    config = ServeConfig(
        topic=topic,
        output=options["output"] or "",
        group=options["group"] or group_name(topic, model),
        instance=instance or "",
        late_topic=options["late_topic"] or "",
        lateness=parse_duration_option("lateness", options["lateness"]),
        idle=parse_duration_option("idle", options["idle"]),
        follow_s=parse_seconds_option("follow", options["follow"]) or 0,
        on_data_loss=options["on_lost"],
        **_grading(options),
        paths=decode_paths(options["bootstrap"]),
        **{name: options[name] for name in same},
    )
    names = ("model", "shadow", "alert_webhook", "device", "bootstrap", "tracking_uri")
    http = options["http"] and Listener.parse("http", options["http"], options["token_file"])
    return config, Connections(http=http or None, **{name: options[name] for name in names})


def _grading(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is made of actual values, as ServeConfig has it."""
    every = options["score_every"]
    return {
        "coverage": parse_share("coverage", options["coverage"]),
        "scores": every != OFF,
        "score_every": None if every == OFF else parse_duration_option("score-every", every),
        "alerts": options["alerts"],
    }
