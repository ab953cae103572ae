"""The command line: the commands, and how they end: a failure is one line and an exit code, a bug a traceback."""

import io
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from deploy.cli.config_file import SettingsCommand, plain
from deploy.cli.dashboard import dashboard
from deploy.cli.models import models, promote, retrain, rollback, schedule
from deploy.cli.options import ConfigOptions, LogOptions, RegistryOptions, option
from deploy.cli.serve import bench, check, serve
from deploy.cli.signature import takes
from deploy.cli.topics import dead_letters, explain, ingest, score, tail
from deploy.cli.train import backtest, forecast, generate, replay, trace, train
from deploy.logs import LogFormat, LogLevel, configure_logging, finish_logging, log_in_background
from deploy.settings.files import decode_paths
from deploy.settings.locations import CONFIG_FILE, keep_private, set_home
from tidecast.errors import FORBIDDEN, ConfigError, TidecastError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from deploy.serving.workers.worker import Work

logger = logging.getLogger(__name__)

STARTED = time.monotonic()
SERVICES = ("serve", "schedule")
"""Commands that run until they are stopped, and never wait for stderr."""
TRAINING_ONLY = ("apscheduler", "matplotlib", "onnxscript", "plotext", "polars", "safetensors", "torch")
"""Modules that the extra [train] installs."""
PAGE_ONLY = ("starlette", "uvicorn")
"""Modules that the extra [dashboard] installs."""

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
    _open_standard_streams()
    configure_logging()
    if sys.argv[1:2] and sys.argv[1] in SERVICES:
        log_in_background()
    else:
        signal.signal(signal.SIGTERM, _interrupt)
    _end_with(_run)


def work(home: Path, level: LogLevel, log_format: LogFormat, work: "Work", supervisor: "Connection") -> None:
    """The process of one of several workers, which ends as a service of its own does."""
    set_home(home)
    configure_logging(level, log_format, work.number)
    log_in_background()

    def serve() -> int:
        from deploy.serving.workers.worker import work as run

        run(work, supervisor)
        return 0

    _end_with(lambda: _code_of(serve))


def _end_with(run: Callable[[], int]) -> NoReturn:
    """Run, then exit with its code, once stdout and stderr have taken everything."""
    code, umask = 1, keep_private()
    try:
        code = _flushed(run())
    finally:
        if not finish_logging():
            os._exit(code)  # whatever else is to be said on stderr, a traceback for example, would wait forever
        os.umask(umask)
    sys.exit(code)


class Terminated(BaseException):
    """SIGTERM, which ends a command as Ctrl-C does: what it has begun, such as a run in MLflow, is ended too."""


def _interrupt(*_: object) -> None:
    raise Terminated


def _open_standard_streams() -> None:
    """Open those that are closed: a file opened later would take their numbers, and what is printed would go there."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(number, "r+" if number == 0 else "w", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # no encoding may lose a result for a sign in it


def _flushed(code: int) -> int:
    """The exit code, once stdout has taken all results: EX_IOERR, with a line, where it can't."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again when it ends
        if not isinstance(error, BrokenPipeError):
            return _fail(f"stdout: {error.strerror}", code or os.EX_IOERR)
    return code


def _run() -> int:
    if os.environ.get("WORLD_SIZE", "1") != "1" and sys.argv[1:2] != ["train"]:
        return _fail("torchrun starts tidecast train, and nothing else", os.EX_USAGE)
    return _code_of(lambda: app(sys.argv[1:] or ["--help"], prog_name="tidecast", standalone_mode=False) or 0)


def _code_of(run: Callable[[], int]) -> int:
    """What a command ends with; a failure is said."""
    try:
        return run()
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except Terminated:
        return 128 + signal.SIGTERM
    except (BrokenPipeError, SystemExit):  # the latter from libraries that print, where stdout is a broken pipe
        return 0
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Say a failure, and its exit code; a bug is raised."""
    match error:
        case TyperException():
            return _fail(_usage(error), os.EX_USAGE)
        case TidecastError():
            return _fail(str(error), error.exit_code)
        case ModuleNotFoundError():
            extras = dict.fromkeys(TRAINING_ONLY, "train") | dict.fromkeys(PAGE_ONLY, "dashboard")
            extra = f": install tidecast with its extra [{extras[error.name]}]" if error.name in extras else ""
            return _fail(f"this needs {error.name}, which is not installed{extra}", os.EX_UNAVAILABLE)
        case UnicodeEncodeError() if any("\ud800" <= char <= "\udfff" for char in error.object):
            return _fail(f"{error.object!r} is not UTF-8 text", os.EX_CONFIG)  # an argument, or a variable
        case OSError() if error.errno is not None:
            return _fail(f"{error.filename or 'input or output'}: {error.strerror}", _exit_code(error))
    raise error


def _exit_code(error: OSError) -> int:
    if error.errno in FORBIDDEN:
        return os.EX_NOPERM
    return os.EX_IOERR if error.filename is None else os.EX_CANTCREAT


def _usage(error: TyperException) -> str:
    message, context = plain(error.format_message()), getattr(error, "ctx", None)
    takes_data = context is not None and any("--data" in each.opts for each in context.command.params)
    return f"{message}; a file is given with --data" if takes_data and "extra argument" in message else message


def _fail(message: str, code: int) -> int:
    logger.error(message)
    return code
