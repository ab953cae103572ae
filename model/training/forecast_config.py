"""How a forecasting model is configured, and the card of one that is not trained yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from model.card import Card, InputSpec, OutputSpec, Setting
from model.networks.forecast import (
    ARCHITECTURES,
    LOCATIONS,
    default_segment,
)
from model.seasons import calendar_cycles, step_length
from model.training.ensemble import recipe
from model.training.loop import TrainConfig
from tidecast.errors import TrainingConfigError

BLEND = "blend"
"""The arch of an ensemble, a weighted mean of several networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastConfig(TrainConfig):
    """The training settings of a forecasting model. The only place for these defaults."""

    dropout: float = 0.3
    epochs: int | None = None
    """Maximum number of epochs; None: 30, or with short epochs as many as make 5,000 steps, with patience in
    proportion."""
    arch: Literal["blend", "lstm", "segment", "linear", "naive"] = "blend"
    """The network; a blend is a weighted mean of several, each with its own location and skip, weighted on validation
    errors."""
    segment: int | None = None
    """Steps in a segment; None: the longest suitable divisor of the horizon. Only for arch segment."""
    location: Literal["last", "mean", "season"] = "last"
    """What is subtracted from a window and added back to the forecast; season: the value one season earlier (seasonal
    differencing), by the first of the input's seasons."""
    epoch_windows: int = 16_384
    """Maximum number of windows in an epoch and in validation; more are sampled."""
    winsorise: bool = True
    """Whether a few readings far from all others of their series or window are replaced by the nearest of these."""
    validation: float = 1 / 7
    """The fraction of the data, the latest, that is used for validation."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        if self.arch not in (BLEND, *ARCHITECTURES):
            raise TrainingConfigError(f"arch: {self.arch!r} is none of {(BLEND, *ARCHITECTURES)}")
        if not self.epoch_windows > 0:
            raise TrainingConfigError(f"epoch_windows: {self.epoch_windows} is not positive")
        if self.location not in LOCATIONS:
            raise TrainingConfigError(f"location: {self.location!r} is none of {LOCATIONS}")
        if not 0 < self.validation < 1:
            raise TrainingConfigError(f"validation: {self.validation} is not in (0, 1)")

    def settings(self, inputs: InputSpec, outputs: OutputSpec) -> dict[str, Setting]:
        """The hyperparameters for `model.networks.forecast.build_member`, for any arch but blend."""
        settings: dict[str, Setting] = {} if self.arch in ("linear", "naive") else self.network()
        settings["location"] = self.location
        lag = inputs.season_lag if self.location == "season" and inputs.lags else 0
        if lag:
            settings["lag"] = lag
        if self.arch == "segment":
            settings["segment"] = self.segment or default_segment(inputs.seq_len - lag, outputs.horizon)
        return settings


def forecast_card(
    inputs: InputSpec, outputs: OutputSpec, config: ForecastConfig, name: str, span: int = 0, windows: int = 0
) -> Card:
    """The card of an untrained model, for a history of `span` steps and this number of training windows."""
    if config.arch == BLEND:
        settings: dict[str, Setting] = {}
        seen, learnt = (steps * step_length(inputs.freq) // 2 for steps in (inputs.seq_len, span))
        cycles = [cycle for cycle, length in calendar_cycles(inputs.freq).items() if seen < length <= learnt]
        members = recipe(inputs, outputs, config.network(), cycles, windows)
    else:
        settings, members = config.settings(inputs, outputs), ()
    return Card(
        name=name,
        input=with_inputs_of(inputs, members or ({"arch": config.arch},)),
        output=outputs,
        arch=config.arch,
        hyperparameters=settings,
        members=members,
        trained_until=0,
    )


def with_inputs_of(inputs: InputSpec, networks: Sequence[Mapping[str, Setting]]) -> InputSpec:
    """The spec with only the inputs that these networks take."""
    if inputs.known and any(each["arch"] in ("lstm", "segment") for each in networks):
        return msgspec.structs.replace(inputs, inputs=("x", "step", "future"))
    takes = ("x", "step") if any("calendar" in each for each in networks) else ("x",)
    return msgspec.structs.replace(inputs, inputs=takes)
