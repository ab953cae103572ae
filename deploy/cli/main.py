"""The command line: its commands, in the order of the help."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer

from deploy.cli.config_file import SettingsCommand
from deploy.cli.dashboard import dashboard
from deploy.cli.ending import code_of, end_with, fail, interrupt, open_standard_streams
from deploy.cli.models import models, promote, retrain, rollback, schedule
from deploy.cli.options import ConfigOptions, LogOptions, RegistryOptions, option
from deploy.cli.serve import bench, check, serve
from deploy.cli.signature import takes
from deploy.cli.topics import dead_letters, explain, ingest, score, tail
from deploy.cli.train import backtest, forecast, generate, replay, trace, train
from deploy.logs import configure_logging, log_in_background
from deploy.settings.files import decode_paths
from deploy.settings.locations import CONFIG_FILE
from tidecast.errors import ConfigError

logger = logging.getLogger(__name__)

STARTED = time.monotonic()
SERVICES = ("serve", "schedule")
"""Commands that run until they are stopped, and never wait for stderr."""

app = typer.Typer(
    name="tidecast",
    help="Forecasts on every event: measurements in from Kafka, a forecast out for each, from an LSTM of your own.",
    epilog="Every option can be set as TIDECAST_<OPTION> and in tidecast.toml too, for one command alone as "
    "TIDECAST_<COMMAND>_<OPTION> and in its table [command]; a flag comes before its variable, and that before the "
    "file. To see it all: tidecast demo",
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


@takes(LogOptions, RegistryOptions, ConfigOptions)
def demo(
    context: typer.Context,
    bootstrap: str,
    tracking_uri: str,
    once: Annotated[bool, option("--once", "Exit after the replay instead of waiting for Ctrl-C.")] = False,
) -> None:
    """See the whole life cycle of a forecast in about a minute.

    Publish, train, register, serve, score, on seven months of New York taxi rides, included in the package: the first
    70 % are published and trained on, the rest is replayed into the running service. Shown in the terminal, and on the
    page of tidecast dashboard.
    """
    from deploy.demo import INTRODUCTION, group_of, new_topic
    from deploy.demo.processes import run_dashboard

    topic, config = new_topic(), context.params["settings"] or CONFIG_FILE
    if decode_paths(bootstrap):
        raise ConfigError(
            f"{config}: the demo's events are its own, and have no use for [decode]: --config names another"
        )
    shown = ["--bootstrap", bootstrap, "--config", str(config), "--topic", topic, "--group", group_of(topic)]
    with run_dashboard(shown, tracking_uri) as where:
        for line in (where, *INTRODUCTION):
            logger.info(line)
        from deploy.demo.run import demo as run

        run(bootstrap, tracking_uri, config, topic, stay=not once, began=STARTED)


COMMANDS: tuple[Callable[..., int | None], ...] = (
    *(ingest, tail, dead_letters, train, backtest, forecast, serve, check, bench, retrain, schedule),
    *(score, dashboard, models, promote, rollback, replay, explain, generate, trace, demo),
)
"""In the order of the help."""
for _command in COMMANDS:
    app.command(cls=SettingsCommand)(_command)


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and an exit code from sysexits."""
    open_standard_streams()
    configure_logging()
    if sys.argv[1:2] and sys.argv[1] in SERVICES:
        log_in_background()
    else:
        signal.signal(signal.SIGTERM, interrupt)
    end_with(_run)


def _run() -> int:
    if os.environ.get("WORLD_SIZE", "1") != "1" and sys.argv[1:2] != ["train"]:
        return fail("torchrun starts tidecast train, and nothing else", os.EX_USAGE)
    return code_of(lambda: app(sys.argv[1:] or ["--help"], prog_name="tidecast", standalone_mode=False) or 0)
