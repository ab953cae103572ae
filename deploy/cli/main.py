"""The command line: a failure is one line on stderr and an exit code; only a bug shows its traceback."""

import logging
import os
import sys

import typer
from typer.exceptions import TyperException

from deploy.cli.commands import app
from deploy.logs import configure_logging
from tidecast.errors import TidecastError

logger = logging.getLogger(__name__)

TRAINING_ONLY = ("apscheduler", "matplotlib", "onnxscript", "plotext", "polars", "safetensors", "torch")


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and an exit code from sysexits."""
    sys.exit(_run())


def _run() -> int:
    configure_logging()
    if os.environ.get("WORLD_SIZE", "1") != "1" and sys.argv[1:2] != ["train"]:
        return _fail("torchrun starts tidecast train, and nothing else", os.EX_USAGE)
    try:
        return app(sys.argv[1:] or ["--help"], prog_name="tidecast", standalone_mode=False) or 0
    except TyperException as error:
        return _fail(_usage(error), os.EX_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except TidecastError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        return 0
    except ModuleNotFoundError as error:
        extra = ": install tidecast with its extra [train]" if error.name in TRAINING_ONLY else ""
        return _fail(f"this needs {error.name}, which is not installed{extra}", os.EX_UNAVAILABLE)
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}", os.EX_CANTCREAT)


def _usage(error: TyperException) -> str:
    message, context = error.format_message(), getattr(error, "ctx", None)
    takes_data = context is not None and any("--data" in each.opts for each in context.command.params)
    return f"{message}; a file is given with --data" if takes_data and "extra argument" in message else message


def _fail(message: str, code: int) -> int:
    logger.error(message)
    return code
