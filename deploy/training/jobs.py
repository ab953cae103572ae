"""What is asked of a forecaster's training."""

from dataclasses import dataclass, field

from model.artifacts.versions import check_name
from model.card import Precision
from model.training.forecast_config import ForecastConfig
from pipeline.windows.choices import Aggregate
from tidecast.errors import ConfigError
from tidecast.freq import Offset

ALIGNED = "none"
"""The offset of steps that are counted from 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """A forecaster to train; None is inferred from the data."""

    name: str
    """The registered model's name."""
    features: tuple[str, ...] = ("value",)
    """The values of an event."""
    targets: tuple[str, ...] | None = None
    """The features that are forecast; None is the first."""
    known: tuple[str, ...] = ()
    """The features that are known for the horizon too; none of them is forecast."""
    non_negative: bool | tuple[str, ...] | None = None
    """Whether no forecast may be below zero, or of which targets; None is of those that never were."""
    freq: str | None = None
    """The spacing of steps, such as 30m; None is the most common one in the data."""
    offset: str | None = None
    """Where steps lie, such as 30m, 2mo or -1d, or ALIGNED: as counted from 1970; None is where the data's are."""
    horizon: int | None = None
    """Steps to forecast; None is a day of them, or of longer steps the next season (a week, a year); fewer if gaps
    leave too few windows."""
    max_gap: int | None = None
    """The longest gap, in missing steps, that is filled; None is the default of InputSpec, and more if that leaves too
    few windows."""
    aggregate: Aggregate | None = None
    """How several events in a step are aggregated; needs a freq."""
    lateness: int | None = None
    """Milliseconds of stream time for which a step waits for events that are out of order; None is 0."""
    seq_len: int | None = None
    """Steps to look back; None is a quarter of the longest series (up to half, for three seasons), up to 720 or 15
    seasons, in whole seasons, and short enough to fit between gaps."""
    season: int | None = None
    """The season in steps; None is that of the data, if it has a clearer one than the calendar's."""
    precision: Precision | None = None
    """Of the registered file's LSTMs; None: as the champion's, float32 without one."""
    config: ForecastConfig = field(default_factory=ForecastConfig)
    """The network and its training."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.offset not in (None, ALIGNED):
            Offset.parse(self.offset)
        if self.aggregate is not None and self.freq is None:
            raise ConfigError("aggregate: needs --freq, the spacing of the steps that events are aggregated in")
        if unknown := sorted(set(self.targets or ()) - set(self.features)):
            raise ConfigError(f"targets: {unknown[0]!r} is not one of the features {', '.join(self.features)}")
        if wrong := sorted(set(self.known) - set(self.features) | set(self.known) & set(self.forecast)):
            raise ConfigError(f"known: {wrong[0]!r} must be one of the features, and not one that is forecast")
        if self.known and self.aggregate is not None:
            raise ConfigError("known: future values come one a step, so they take no aggregate")
        for option, names in (("features", self.features), ("known", self.known)):
            if len(set(names)) < len(names):
                raise ConfigError(f"{option}: {', '.join(names)} must be different names")

    @property
    def forecast(self) -> tuple[str, ...]:
        """The features that are forecast."""
        return self.targets or self.features[:1]
