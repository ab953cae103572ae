"""How a command ends: a failure is one line and an exit code, a bug a traceback; that stdout takes no more is said."""

import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from typer.exceptions import TyperException

from deploy.cli.config_file import plain
from deploy.logs import LogFormat, LogLevel, configure_logging, finish_logging, log_in_background
from deploy.settings.locations import keep_private, set_home
from tidecast.errors import FORBIDDEN, TidecastError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from deploy.serving.workers.worker import Work

logger = logging.getLogger(__name__)

TRAINING_ONLY = ("apscheduler", "matplotlib", "onnxscript", "plotext", "polars", "safetensors", "torch")
"""Modules that the extra [train] installs."""
PAGE_ONLY = ("starlette", "uvicorn")
"""Modules that the extra [dashboard] installs."""


def work(home: Path, level: LogLevel, log_format: LogFormat, work: "Work", supervisor: "Connection") -> None:
    """The process of one of several workers, which ends as a service of its own does."""
    set_home(home)
    configure_logging(level, log_format, work.number)
    log_in_background()

    def serve() -> int:
        from deploy.serving.workers.worker import work as run

        run(work, supervisor)
        return 0

    end_with(lambda: code_of(serve))


def end_with(run: Callable[[], int]) -> NoReturn:
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


def interrupt(*_: object) -> None:
    """Handle SIGTERM."""
    raise Terminated


def open_standard_streams() -> None:
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
            return fail(f"stdout: {error.strerror}", code or os.EX_IOERR)
    return code


def code_of(run: Callable[[], int]) -> int:
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
            return fail(_usage(error), os.EX_USAGE)
        case TidecastError():
            return fail(str(error), error.exit_code)
        case ModuleNotFoundError():
            extras = dict.fromkeys(TRAINING_ONLY, "train") | dict.fromkeys(PAGE_ONLY, "dashboard")
            extra = f": install tidecast with its extra [{extras[error.name]}]" if error.name in extras else ""
            return fail(f"this needs {error.name}, which is not installed{extra}", os.EX_UNAVAILABLE)
        case UnicodeEncodeError() if any("\ud800" <= char <= "\udfff" for char in error.object):
            return fail(f"{error.object!r} is not UTF-8 text", os.EX_CONFIG)  # an argument, or a variable
        case OSError() if error.errno is not None:
            return fail(f"{error.filename or 'input or output'}: {error.strerror}", _exit_code(error))
    raise error


def _exit_code(error: OSError) -> int:
    if error.errno in FORBIDDEN:
        return os.EX_NOPERM
    return os.EX_IOERR if error.filename is None else os.EX_CANTCREAT


def _usage(error: TyperException) -> str:
    message, context = plain(error.format_message()), getattr(error, "ctx", None)
    takes_data = context is not None and any("--data" in each.opts for each in context.command.params)
    return f"{message}; a file is given with --data" if takes_data and "extra argument" in message else message


def fail(message: str, code: int) -> int:
    """Say why, and return the code."""
    logger.error(message)
    return code
