"""The one place for where things lie and what they are called, unless a setting says otherwise."""

from pathlib import Path

HOME = Path(".tidecast")
DEFAULT_LOG = f"sqlite:{HOME / 'log.db'}"
DEFAULT_TRACKING = f"sqlite:///{HOME / 'mlflow.db'}"
MODELS = HOME / "models"
"""The cache of downloaded models."""
CONFIG_FILE = Path("tidecast.toml")
