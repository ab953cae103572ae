"""The model card: a model's inputs and outputs, hyperparameters and metrics, stored in every model file."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

from model.residuals import Residuals
from model.seasons import seasonal_lags
from tidecast.errors import ConfigError, DataError
from tidecast.freq import Freq, Offset

FORMAT = 1
"""The version of the card's format; files with another version are rejected."""
INPUTS = ("x", "observed", "step", "future")
"""All inputs that a windower supplies; a model lists those it takes."""

Setting = bool | int | float | str
Aggregate = Literal["mean", "sum", "last", "count", "min", "max"]
"""How several events in one step are aggregated."""
Precision = Literal["float32", "int8", "fp16"]
"""Of the LSTMs in a file."""
Task = Literal["forecast", "classify", "next_token"]


class Array(NamedTuple):
    """The dtype and shape of a model's input or output; a dimension of any length has a name instead of a number."""

    dtype: Literal["float32", "int64", "bool"]
    shape: tuple[int | str, ...]


Arrays = Mapping[str, Array]


class InputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The input of a model: windows of `seq_len` steps of `features`, x (B,S,F) float32 in raw units."""

    seq_len: int
    """S, steps in a window."""
    features: tuple[str, ...] = ("value",)
    """The columns of x, in order."""
    freq: str | None = None
    """The spacing of steps, such as 30m, 1h or 1mo; None: each event is a step."""
    offset: str | None = None
    """Where steps of `freq` lie, such as 30m, 2mo or -1d; None: as counted from 1970."""
    max_gap: int = 3
    """The longest gap, in missing steps, that is filled; ignored without a freq."""
    aggregate: Aggregate | None = None
    """How several events in one step are aggregated; None: the first one is taken."""
    lateness: int = 0
    """Milliseconds of event time that a step waits for out-of-order events."""
    season: int | None = None
    """The season found in the data, in steps; None: it has none but the calendar's."""
    known: tuple[str, ...] = ()
    """The C future covariates, features whose values are known for the horizon too; the columns of `future`."""
    inputs: tuple[str, ...] = ("x",)
    """The file's inputs, in order, by the names in INPUTS."""

    def __post_init__(self) -> None:
        for name, least in {"seq_len": 2, "max_gap": 0, "lateness": 0, "season": 2}.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise ConfigError(f"{name}: {value} is less than {least}")
        if self.aggregate is not None and self.freq is None:
            raise ConfigError("aggregate: needs a freq, the steps to aggregate events in")
        if self.freq is not None:
            Freq.parse(self.freq)
        if self.offset is not None:
            Offset.parse(self.offset)
        _check_names("features", self.features)
        _check_names("inputs", self.inputs)
        if self.inputs[0] != "x" or not set(self.inputs) <= set(INPUTS):
            raise ConfigError(f"inputs: {self.inputs} are not x and some of {INPUTS[1:]}")
        self._check_known()

    def _check_known(self) -> None:
        if unknown := sorted(set(self.known) - set(self.features)):
            raise ConfigError(f"known: {unknown[0]!r} is none of the features {', '.join(self.features)}")
        if "future" in self.inputs and not self.known:
            raise ConfigError("inputs: future needs features that are known ahead, and there are none")
        if self.known:
            _check_names("known", self.known)
            if self.freq is None:
                raise ConfigError("known: future covariates need a freq")

    @property
    def lags(self) -> dict[str, int]:
        """The lags of its seasons in steps, by name: that found in the data first, then the calendar's, ascending."""
        calendar = {name: lag for name, lag in seasonal_lags(self.freq).items() if lag != self.season}
        return calendar if self.season is None else {"season": self.season, **calendar}

    @property
    def season_lag(self) -> int:
        """The lag of its first season; 1 if there is none, so that the seasonal naive is the last value."""
        return next(iter(self.lags.values()), 1)

    @property
    def scoring_lag(self) -> int:
        """The calendar's first season, which all versions of a model have; else that found in the data, or 1."""
        return next(iter(seasonal_lags(self.freq).values()), self.season or 1)

    def arrays(self, horizon: int) -> Arrays:
        """The file's inputs for this horizon."""
        window = ("batch", self.seq_len, len(self.features))
        every = {
            "x": Array("float32", window),
            "observed": Array("bool", window),
            "step": Array("int64", ("batch",)),
            "future": Array("float32", ("batch", horizon, len(self.known))),
        }
        return {name: every[name] for name in self.inputs}


class OutputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The output of a model: the `horizon` steps after the window, (B,K,O) float32 in raw units."""

    horizon: int
    """K, steps of a forecast."""
    targets: tuple[str, ...] = ("value",)
    """The forecast features, in order."""
    non_negative: bool | tuple[str, ...] = False
    """Whether negative forecasts are clipped to zero, or of which targets they are."""

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ConfigError(f"horizon: {self.horizon} is less than 1")
        _check_names("targets", self.targets)

    @property
    def clipped(self) -> tuple[bool, ...]:
        """(O,): which targets' forecasts are clipped to zero."""
        of = self.non_negative
        return tuple(of if isinstance(of, bool) else name in of for name in self.targets)

    @property
    def arrays(self) -> Arrays:
        """The file's output."""
        return {"forecast": Array("float32", ("batch", self.horizon, len(self.targets)))}


class _Card(msgspec.Struct, frozen=True, kw_only=True, tag_field="task"):
    """The fields of every card; stored as JSON under the key `tidecast` of the file's metadata."""

    format: int = FORMAT
    """The version of this card's format."""
    name: str
    """The model's name."""
    arch: str
    """The network: `lstm`, `segment`, or a `blend` of several."""
    hyperparameters: dict[str, Setting] = {}
    """What `model.networks` needs to build the same network again."""
    metrics: dict[str, float] = {}
    """The metrics at the end of training."""

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ConfigError(f"format: {self.format}, this version reads {FORMAT}")

    def to_json(self) -> str:
        """The card as one line of JSON, without what it has not."""
        given = {name: value for name, value in msgspec.to_builtins(self).items() if value is not None}
        return msgspec.json.encode(given).decode()


class Card(_Card, frozen=True, kw_only=True, tag="forecast"):
    """The card of a model that forecasts."""

    task: ClassVar[Task] = "forecast"
    input: InputSpec
    output: OutputSpec
    members: tuple[dict[str, Setting], ...] = ()
    """For arch `blend`: each network's settings."""
    ranges: dict[str, tuple[float, float]] = {}
    """Each feature's minimum and maximum in the training and validation data, raw units."""
    floors: dict[str, float] = {}
    """The least range of a window that counts, by feature, raw units: what is far from zero beside it is moved before
    it is cast to float32 (model/levels.py). Features that are not listed, as in earlier cards, are cast as they are."""
    spans: dict[str, float] = {}
    """The greatest range of one series in training, by feature, raw units: for winsorising (model/spikes.py)."""
    trained_until: int
    """The event time of the last target in training or validation; epoch milliseconds."""
    precision: Precision | None = None
    """In which its LSTMs compute; None: float32, as they were trained. `metrics` then has `precision_loss`, by which
    share of it the validation error grew."""
    residuals: Residuals | None = None
    """Its errors in validation; None in earlier cards, and those of models that were never validated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if missing := set(self.output.targets) - set(self.input.features):
            raise ConfigError(f"targets: {sorted(missing)} are not among the features {list(self.input.features)}")
        if both := sorted(set(self.output.targets) & set(self.input.known)):
            raise ConfigError(f"known: {both[0]!r} is forecast, so it can't be known ahead")
        if self.residuals is not None:
            self.residuals.check(self.output.horizon, self.output.targets)

    @property
    def best_naive(self) -> tuple[str, float]:
        """The naive forecast with the lowest validation error, and that error; nan if none was recorded."""
        scores = {name[6:-4]: score for name, score in self.metrics.items() if name.startswith("naive_")}
        return min(scores.items(), key=lambda each: each[1], default=("last", math.nan))

    @property
    def networks(self) -> tuple[dict[str, Setting], ...]:
        """The settings of each network in the file."""
        return self.members or ({"arch": self.arch, **self.hyperparameters},)

    @property
    def target_columns(self) -> list[int]:
        """The feature index of each target."""
        return [self.input.features.index(name) for name in self.output.targets]

    @property
    def known_columns(self) -> list[int]:
        """The feature index of each future covariate."""
        return [self.input.features.index(name) for name in self.input.known]

    @property
    def inputs(self) -> Arrays:
        """The file's inputs."""
        return self.input.arrays(self.output.horizon)

    @property
    def outputs(self) -> Arrays:
        """The file's output."""
        return self.output.arrays


class _TextCard(_Card, frozen=True, kw_only=True, tag_field="task"):
    vocabulary: dict[str, Any]
    """The tokeniser's configuration, in its own format."""
    tokens: int
    """V, vocabulary size, with the padding and the unknown token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 3:
            raise ConfigError(f"tokens: {self.tokens} is less than 3, with padding and the unknown token")


class ClassifierCard(_TextCard, frozen=True, kw_only=True, tag="classify"):
    """The card of a text classifier: right-padded tokens to the probability of each label."""

    task: ClassVar[Task] = "classify"
    labels: tuple[str, ...]
    """C labels, in the order of the output's columns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_names("labels", self.labels)
        if len(self.labels) < 2:
            raise DataError(f"labels: {self.labels} must be at least two")

    @property
    def inputs(self) -> Arrays:
        """The file's inputs."""
        return {"x": Array("int64", ("batch", "steps")), "lengths": Array("int64", ("batch",))}

    @property
    def outputs(self) -> Arrays:
        """The file's output."""
        return {"probability": Array("float32", ("batch", len(self.labels)))}


class NextTokenCard(_TextCard, frozen=True, kw_only=True, tag="next_token"):
    """The card of a language model: tokens and a state to the logits of each next token and the new state."""

    task: ClassVar[Task] = "next_token"

    @property
    def inputs(self) -> Arrays:
        """The file's inputs."""
        return {"x": Array("int64", ("batch", "steps")), "h": self._state, "c": self._state}

    @property
    def outputs(self) -> Arrays:
        """The file's outputs."""
        logits = Array("float32", ("batch", "steps", self.tokens))
        return {"logits": logits, "h_out": self._state, "c_out": self._state}

    @property
    def _state(self) -> Array:
        return Array("float32", (int(self.hyperparameters["layers"]), "batch", int(self.hyperparameters["hidden"])))


AnyCard = Card | ClassifierCard | NextTokenCard


class _Head(msgspec.Struct):
    task: Task = "forecast"


def read_card(text: str) -> AnyCard:
    """The card in a file's metadata. Raises DataError naming the wrong field."""
    kinds: dict[Task, type[AnyCard]] = {kind.task: kind for kind in (Card, ClassifierCard, NextTokenCard)}
    try:
        return msgspec.json.decode(text, type=kinds[msgspec.json.decode(text, type=_Head).task])
    except msgspec.DecodeError as error:
        raise DataError(f"the model's card: {error}") from None


def _check_names(field: str, names: tuple[str, ...]) -> None:
    if not names or not all(names) or len(set(names)) != len(names):
        raise ConfigError(f"{field}: {names} must be different names, at least one")
