"""The commands about a service: serve, check."""

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from deploy.cli.data_options import LatenessOptions
from deploy.cli.options import (
    ConfigOptions,
    DeviceOptions,
    JsonOptions,
    LogOptions,
    RegistryOptions,
    ServiceOptions,
    option,
)
from deploy.cli.signature import takes
from deploy.console import finish
from deploy.settings.files import decode_paths
from deploy.settings.serve import SERVE_DEFAULTS, Guarantee, ServeConfig, ShortSeries, Start, group_name
from deploy.settings.values import Device, parse_duration_option, parse_seconds_option
from tidecast.errors import ConfigError

COMMON = (DeviceOptions, LogOptions, RegistryOptions, JsonOptions, ConfigOptions)


class DeliveryOptions:
    """How a service delivers, and what it keeps."""

    instance: Annotated[
        str | None,
        option("--instance", "This instance's name, the same after a restart; one that no other has if left out."),
    ] = None
    start: Annotated[Start, option("--from", "Where a new consumer group starts.")] = SERVE_DEFAULTS["start"]
    guarantee: Annotated[
        Guarantee, option("--guarantee", "exactly-once makes each batch's output and offsets one transaction.")
    ] = SERVE_DEFAULTS["guarantee"]
    idle: Annotated[
        str | None, option("--idle", "Drop series silent for this long in event time, as 7d; never if left out.")
    ] = None
    series_limit: Annotated[
        int, option("--series-limit", "Most series in a partition; events of others are dead letters.", min=1)
    ] = SERVE_DEFAULTS["series_limit"]
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


@takes(ServiceOptions, LatenessOptions, DeliveryOptions, *COMMON)
def serve(
    context: typer.Context,
    model: str,
    shadow: str | None,
    instance: str | None,
    static: bool,
    device: Device,
    bootstrap: str,
    tracking_uri: str,
    as_json: bool,
) -> None:
    """Serve a model: forecasts for events, or labels for texts.

    When the model's alias moves, the new version is verified, tried, and loaded between two micro-batches; if anything
    is wrong with it, the old one keeps serving.

    An event that fills a window is forecast. Outputs have their events' partitions, forecasts are keyed by series, and
    a restart continues where the last run stopped. Invalid records go to GROUP-dead-letters. SIGTERM finishes the
    current batch.
    """
    from deploy.serving.run import Connections
    from deploy.serving.run import serve as run

    if static and instance is None:
        raise ConfigError("instance: --static needs the name that this instance has after a restart too")
    options = context.params
    config = _serve_config(
        options,
        instance=instance or "",
        idle=parse_duration_option("idle", options["idle"]),
        follow_s=parse_seconds_option("follow", options["follow"]) or 0,
        **{name: options[name] for name in ("start", "guarantee", "series_limit", "short_series", "static")},
    )
    connections = Connections(model=model, shadow=shadow, device=device, bootstrap=bootstrap, tracking_uri=tracking_uri)
    finish(run(config, connections), as_json)


@takes(ServiceOptions, LatenessOptions, *COMMON)
def check(context: typer.Context, model: str, device: Device, bootstrap: str, tracking_uri: str, as_json: bool) -> int:
    """Check a configuration before it is served.

    Looks at the topics, their retention and replication, the model, the group's state, and the newest records: their
    keys, timestamps and partitions. Writes nothing and joins no group. Exits with 78 if something is wrong; warnings
    exit with 0.
    """
    from deploy.operations.check import check as run

    config = _serve_config(context.params, instance="check", start="earliest")
    found = run(config, model, device, bootstrap, tracking_uri, as_json=as_json)
    finish(found, as_json)
    return os.EX_CONFIG if found["wrong"] else 0


def _serve_config(options: Mapping[str, Any], **own: Any) -> ServeConfig:
    """A service's configuration by the options that its commands share, and those of one command."""
    topic, model = options["topic"], options["model"]
    return ServeConfig(
        topic=topic,
        output=options["output"] or "",
        group=options["group"] or group_name(topic, model),
        late_topic=options["late_topic"] or "",
        lateness=parse_duration_option("lateness", options["lateness"]),
        on_data_loss=options["on_lost"],
        paths=decode_paths(options["bootstrap"]),
        waiting_limit=options["waiting_limit"],
        **own,
    )
