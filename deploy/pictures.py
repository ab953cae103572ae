"""The paths of plots."""

import logging
from pathlib import Path

from deploy.settings.locations import HOME

logger = logging.getLogger(__name__)


def plot_path(option: Path | None, folder: str, name: str) -> Path:
    """The option's path, or .tidecast/FOLDER/NAME.png; its parent is created."""
    path = option or HOME / folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def say_where(plot: Path, table: Path | None = None) -> None:
    """Say where the plot is, and the whole table, if it was written to a file."""
    logger.info(f"plot: {plot}{f'; all forecasts: {table}' if table else ''}")
