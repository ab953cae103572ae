"""The commands of a model's life cycle: retrain, schedule, models, promote, rollback."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploy.cli.config_file import closest
from deploy.cli.data_options import ColumnOptions, HistoryFileOptions, HistoryTopicOptions
from deploy.cli.options import ConfigOptions, DeviceOptions, JsonOptions, LogOptions, Name, RegistryOptions, option
from deploy.cli.signature import refuse_without, takes
from deploy.cli.training_options import ExportOptions, ForecastNetworkOptions, NetworkOptions
from deploy.console import finish
from deploy.settings.values import parse_duration_option, parse_span
from tidecast.errors import ConfigError

if TYPE_CHECKING:
    from deploy.lifecycle.drift import DriftCheck

COMMON = (RegistryOptions, JsonOptions, ConfigOptions)


class RetrainOptions:
    """A retraining of a registered model."""

    name: Name
    since: Annotated[
        str | None, option("--since", "Only what was written since then: 2026-01-31, or as 90d, so long ago.")
    ] = None
    start: Annotated[
        Literal["fresh", "warm"], option("--start", "warm initialises networks with the champion's weights.")
    ] = "fresh"


class DriftOptions:
    """A retraining only where the served forecasts have become worse."""

    on_drift: Annotated[
        bool,
        option("--on-drift", "Only if a service's alerts say that forecasts drift, and on data from after the change."),
    ] = False
    output: Annotated[
        str | None,
        option("--output", "With --on-drift: the service's output, whose OUTPUT-alerts are read; TOPIC-forecasts."),
    ] = None
    drift_share: Annotated[
        float, option("--drift-share", "With --on-drift: the least share of the series that drift.")
    ] = 0.2
    at_most_every: Annotated[
        str, option("--at-most-every", "With --on-drift: how old the newest version is before another is trained.")
    ] = "1d"


RETRAINING = (
    *(RetrainOptions, DriftOptions, HistoryTopicOptions, HistoryFileOptions, ForecastNetworkOptions, NetworkOptions),
    *(ExportOptions, ColumnOptions, DeviceOptions, LogOptions, *COMMON),
)


@takes(*RETRAINING)
def retrain(
    context: typer.Context,
    as_json: bool,
    until: Annotated[
        str | None, option("--until", "Only what was written before then, such as 2026-01-31T12:00; now if left out.")
    ] = None,
    first_only: Annotated[
        bool, option("--first-only", "Train the name's first version, its champion; with a champion do nothing.")
    ] = False,
) -> None:
    """Train a challenger, and promote it if it is surely better.

    The challenger is a new version, the champion the one that services of NAME@champion serve. They and the naive
    forecasts (the last value, the values a season before) are compared at the same origins, the times that forecasts
    start from, all later than any data that either model was trained on. The challenger is registered with the
    promotion decision and a plot of it; it becomes champion if its error is surely more than 1 % lower. Where a naive
    forecast is better than the trained model, it is registered as the challenger instead. With too little new data
    nothing is trained, and it says how many steps are missing. For cron, a Kubernetes CronJob or Airflow: idempotent,
    also after it was killed at any point. Exits with 75 if another retraining of the name is running.
    """
    drift = _drift_check(context)
    if first_only and drift is not None:
        raise ConfigError("first-only: --on-drift needs a champion; give one of the two")
    finish(_retrain(context, until, drift, first_only=first_only), as_json)


@takes(*RETRAINING)
def schedule(
    context: typer.Context,
    name: str,
    as_json: bool,
    cron: Annotated[str | None, option("--cron", "When, as a cron expression: '0 */6 * * *'.")] = None,
    every: Annotated[str | None, option("--every", "Or at this interval, from now on, such as 6h.")] = None,
) -> None:
    """Retrain a model on a schedule, until Ctrl-C or SIGTERM.

    Each run is what `tidecast retrain` does; a failure is logged, and the next run tries again.
    """
    from deploy.lifecycle.schedule import repeat, trigger
    from deploy.settings.locations import check_home

    check_home()
    drift = _drift_check(context)
    repeat(trigger(cron, every), lambda: finish(_retrain(context, None, drift), as_json), name)


def _retrain(
    context: typer.Context, until: str | None, drift: "DriftCheck | None", *, first_only: bool = False
) -> dict[str, object]:
    """One retraining, by the options of a command."""
    from deploy.lifecycle.retrain import RetrainJob, run_retraining
    from deploy.training.options import TrainOptions, data_source, forecast_job

    options = TrainOptions.of(context.params | closest(context, "topic", "data"))
    source = data_source(options, *parse_span("since", context.params["since"], "until", until))
    job = RetrainJob(train=forecast_job(options), start=context.params["start"])
    return run_retraining(job, source, options.tracking_uri, drift, first_only=first_only)


def _drift_check(context: typer.Context) -> "DriftCheck | None":
    """What --on-drift looks at; None without it.

    Raises ConfigError, also for an option on the command line that has no effect without it.
    """
    from deploy.lifecycle.drift import DriftCheck

    options = context.params | closest(context, "topic", "data")
    if not options["on_drift"]:
        refuse_without("on-drift", context, DriftOptions)
        return None
    output = options["output"] or (options["topic"] and f"{options['topic']}-forecasts")
    if not output:
        raise ConfigError("output: --on-drift reads OUTPUT-alerts; give the output topic of the service")
    every = parse_duration_option("at-most-every", options["at_most_every"])
    return DriftCheck(
        bootstrap=options["bootstrap"],
        output=output,
        share=options["drift_share"],
        at_most_every=every or 0,
    )


@takes(*COMMON)
def models(
    tracking_uri: str,
    as_json: bool,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One model's versions; all names if left out.")
    ] = None,
) -> None:
    """Show the registered models, their versions and scores."""
    from deploy.lifecycle.versions import print_versions

    finish(print_versions(name, tracking_uri), as_json)


@takes(*COMMON)
def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME/VERSION or NAME@ALIAS.")],
    tracking_uri: str,
    as_json: bool,
) -> None:
    """Make a version the champion. Services of NAME@champion load it within their next poll."""
    from deploy.lifecycle.versions import promote as run

    finish(run(model, tracking_uri), as_json)


@takes(*COMMON)
def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The registered model's name.")],
    tracking_uri: str,
    as_json: bool,
) -> None:
    """Make the previous champion the champion again."""
    from deploy.lifecycle.versions import rollback as run

    if "/" in name or "@" in name:
        raise ConfigError(f"name: {name!r} names a version; tidecast promote makes that the champion")
    finish(run(name, tracking_uri), as_json)
