"""Tidecast in Python: forecasts of frames, and the errors that it raises.

from tidecast import Forecaster

model = Forecaster(horizon=24).fit(frame)  # unique_id, ds, y, in polars or pandas
model.predict()  # unique_id, ds, Tidecast, source

What is heavy is imported when it is first asked for. On the command line it is `tidecast`, or `python -m tidecast`.
"""

import os
from typing import TYPE_CHECKING

from tidecast.errors import (
    AddressInUse,
    ConfigError,
    ConsumerFenced,
    CorruptModel,
    CorruptState,
    DataError,
    LogError,
    LogUnavailable,
    ModelRejected,
    ModelUnavailable,
    NotAuthorized,
    NotPermitted,
    ParityError,
    PromotionConflict,
    RegistryError,
    RegistryUnavailable,
    RetrainingBusy,
    ShapeError,
    StateError,
    StateMismatch,
    TidecastError,
    TooShort,
    TrainingConfigError,
    UnknownModel,
    UnknownTopic,
    UnsafeModel,
)

if TYPE_CHECKING:
    from deploy.forecaster import Forecaster

    __version__: str
    """The installed version."""

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

__all__ = [
    "AddressInUse",
    "ConfigError",
    "ConsumerFenced",
    "CorruptModel",
    "CorruptState",
    "DataError",
    "Forecaster",
    "LogError",
    "LogUnavailable",
    "ModelRejected",
    "ModelUnavailable",
    "NotAuthorized",
    "NotPermitted",
    "ParityError",
    "PromotionConflict",
    "RegistryError",
    "RegistryUnavailable",
    "RetrainingBusy",
    "ShapeError",
    "StateError",
    "StateMismatch",
    "TidecastError",
    "TooShort",
    "TrainingConfigError",
    "UnknownModel",
    "UnknownTopic",
    "UnsafeModel",
    "__version__",
]

if not TYPE_CHECKING:  # a name that is not there stays an error of the type checker

    def __getattr__(name: str) -> object:
        """Raises ImportError where a file of the user's hides one of our packages."""
        if name == "Forecaster":
            from tidecast.shadowing import refuse_shadowed

            refuse_shadowed()
            from deploy.forecaster import Forecaster

            return globals().setdefault(name, Forecaster)
        if name == "__version__":
            from importlib.metadata import version

            return globals().setdefault(name, version("tidecast"))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
