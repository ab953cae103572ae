"""The one place for where things lie and what they are called, unless a setting says otherwise."""

import os
import stat
from pathlib import Path

from tidecast.errors import ConfigError, NotPermitted

CONFIG_FILE = Path("tidecast.toml")
HOME = Path(".tidecast")
"""Where Tidecast keeps its files, unless --home names another folder."""
DEFAULT_LOG = f"sqlite:{HOME / 'log.db'}"
DEFAULT_TRACKING = f"sqlite:///{HOME / 'mlflow.db'}"

_home = HOME


def set_home(folder: Path | None) -> None:
    """Keep files in this folder from now on, or in HOME. Raises ConfigError for a path that can be no folder's."""
    global _home
    if folder:
        _check_folder(folder)
    _home = folder or HOME


def home() -> Path:
    """Where Tidecast keeps its files; made when the first one is written."""
    return _home


def default_log() -> str:
    """The address of the embedded log."""
    return f"sqlite:{_home / 'log.db'}"


def default_tracking() -> str:
    """The URI of the local registry."""
    return f"sqlite:///{_home / 'mlflow.db'}"


def models() -> Path:
    """The cache of downloaded models."""
    return _home / "models"


def writable(folder: Path) -> bool:
    """Whether files can be written to a folder, which may be one that is still to be made."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if _exists(each))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # within a folder that may not even be looked into
        return False


def _check_folder(folder: Path) -> None:
    """Raises ConfigError if there is something else, or can be no folder. One that is still to be made is fine."""
    try:
        reason = "" if stat.S_ISDIR(folder.stat().st_mode) else "it is no folder"
    except PermissionError:
        reason = ""
    except FileNotFoundError:
        reason = "it is a link to what does not exist" if folder.is_symlink() else ""
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ConfigError(f"home: {folder}: {reason}; --home DIR names another folder")


def check_home() -> None:
    """Raises NotPermitted, ConfigError if files can't be kept in `home()`."""
    _check_folder(_home)
    if not writable(_home):
        raise NotPermitted(f"{_home}: no permission to keep files there; --home DIR names another folder")


_umask = 0o022


def keep_private() -> int:
    """Let only this user read what is made from now on; the umask before."""
    global _umask
    _umask = os.umask(0o077)
    return _umask


def share(path: Path) -> None:
    """Give a file that somebody asked for by its name the permissions of any new file of theirs."""
    path.chmod(0o666 & ~_umask)
