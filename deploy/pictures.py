"""Where the picture lies that a command draws."""

from pathlib import Path

from deploy.console import say
from deploy.settings.defaults import HOME


def picture_path(option: Path | None, folder: str, name: str) -> Path:
    """The option's path, or NAME.png in a folder of the tool's own; the folder that it lies in is made."""
    path = option or HOME / folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def say_where(picture: Path, table: Path | None = None) -> None:
    """Where the picture is, and where the whole table is, if it was written to a file."""
    say(f"a picture of it: {picture}{f'; all of it: {table}' if table else ''}")
