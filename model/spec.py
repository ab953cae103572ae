"""Shapes as data: what a model takes and gives, and the card that every model file carries about itself.

Without torch and onnxruntime, so that serving can read a model's needs before it loads anything.
"""

import re
from typing import Self

import msgspec

FORMAT = 1
"""The version of the card's layout; a file with another is refused."""
INPUTS = ("x", "observed", "step")
"""Every input a windower supplies; a model names those it takes."""
MODEL_FILE = "model.onnx"
"""What a model's file is called in its folder, and among the artifacts of its run."""
_FREQ = re.compile(r"[1-9]\d*(ms|s|m|h|d|w|mo|y)")

Setting = int | float | str
"""A hyperparameter's value."""


class ShapeError(ValueError):
    """Arrays, or a file and its card, whose shapes do not fit each other."""


class InputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes: windows of `seq_len` steps of `features`, x (B,S,F) float32 in raw units."""

    seq_len: int
    """S, steps in a window."""
    features: tuple[str, ...] = ("value",)
    """The columns of x, in order."""
    freq: str | None = None
    """The spacing of steps, such as 30m, 1h or 1mo; None: each event is a step."""
    max_gap: int = 3
    """The longest hole, in missing steps, that is filled; without meaning where freq is None."""
    inputs: tuple[str, ...] = ("x",)
    """The file's inputs, in order, by the names in INPUTS."""

    def __post_init__(self) -> None:
        if self.seq_len < 2:
            raise ValueError(f"seq_len: {self.seq_len} is less than 2")
        if self.max_gap < 0:
            raise ValueError(f"max_gap: {self.max_gap} is negative")
        if self.freq is not None and not _FREQ.fullmatch(self.freq):
            raise ValueError(f"freq: {self.freq!r} is not like 30m, 1h, 1d or 1mo")
        _check_names("features", self.features)
        _check_names("inputs", self.inputs)
        if self.inputs[0] != "x" or not set(self.inputs) <= set(INPUTS):
            raise ValueError(f"inputs: {self.inputs} are not x and some of {INPUTS[1:]}")


class OutputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a model gives: the `horizon` steps after the window, (B,K,O) float32 in raw units."""

    horizon: int
    """K, steps of a forecast."""
    targets: tuple[str, ...] = ("value",)
    """The forecast columns, in order: features of the input."""

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon: {self.horizon} is less than 1")
        _check_names("targets", self.targets)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a model file says about itself, as JSON under the key `tidecast` of its metadata."""

    format: int = FORMAT
    """The layout of this card."""
    name: str
    """The model's name."""
    input: InputSpec
    output: OutputSpec
    arch: str
    """The network: `lstm` or `segment`."""
    hyperparameters: dict[str, Setting] = {}
    """What `model.lstm.build` needs to make the same network again."""
    ranges: dict[str, tuple[float, float]] = {}
    """Each feature's least and greatest value in the data it was trained and chosen on, raw units."""
    trained_until: int
    """The time of the last target seen, by training or validation; epoch milliseconds."""
    metrics: dict[str, float] = {}
    """The scores at the end of training."""

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format: {self.format}, this version reads {FORMAT}")
        missing = set(self.output.targets) - set(self.input.features)
        if missing:
            raise ValueError(f"targets: {sorted(missing)} are not among the features {list(self.input.features)}")

    @property
    def target_columns(self) -> list[int]:
        """Where each target lies among the features."""
        return [self.input.features.index(name) for name in self.output.targets]

    def to_json(self) -> str:
        """The card as one line of JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The card in a file's metadata. Raises ValueError naming the field that is wrong."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as error:
            raise ValueError(f"the model's card: {error}") from None


def _check_names(field: str, names: tuple[str, ...]) -> None:
    if not names or not all(names) or len(set(names)) != len(names):
        raise ValueError(f"{field}: {names} must be different names, at least one")
