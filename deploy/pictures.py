"""The picture that a command ends with: where it goes, and what is said where it can't be saved."""

import logging
from collections.abc import Callable
from pathlib import Path

from deploy.settings.locations import home, share, writable
from tidecast.errors import NotPermitted

logger = logging.getLogger(__name__)


class Picture:
    """A command's picture, at the option's path or as HOME/FOLDER/NAME.png. Without it the command's work is done too.

    That it can't be saved is said before the work, and fails the command after its results.
    """

    def __init__(self, option: Path | None, folder: str) -> None:
        self._option, self._folder = option, home() / folder if option is None else option.parent
        self._failure: OSError | NotPermitted | None = None
        if not writable(self._folder):
            text = f"{self._folder}: no permission to save the picture there"
            self._failure = NotPermitted(f"{text}; --plot FILE or --home DIR names another place")
            logger.warning(f"{text}; the results will be printed without it")

    def save(self, name: str, draw: Callable[[Path], object], table: Path | None = None) -> str | None:
        """Draw it, and say where it is; its path, or None if it can't be saved. `table` holds all that it shows."""
        path = self._option or self._folder / f"{name}.png"
        if self._failure is None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                draw(path)
            except OSError as error:
                self._failure = error
        if self._failure is None and self._option is not None:
            share(path)
        saved = [f"plot: {path}"] if self._failure is None else []
        tables = [f"all forecasts: {table}"] if table else []
        if saved or tables:
            logger.info("; ".join(saved + tables))
        return str(path) if saved else None

    def confirm(self) -> None:
        """Raises what kept it from being saved; to be called last."""
        if self._failure is not None:
            raise self._failure
