"""The data-shaping protocol: the shapes of data on its way through a network. Names carry them as suffixes.

B batch   S steps of a window, or tokens of a text   F features   K horizon steps   O targets, outputs of the head
E width of an encoded step   H hidden   L layers   V tokens   C labels   M horizon segments   N rows the head sees

             forecast                                    classify                      next_token
   x         (B,S,F) float32, raw units                  (B,S) int64, padded right     (B,S) int64
   encode    normalise, then steps or segments (B,S',E)  embedding or one-hot (B,S,E)  the same
   core      LSTM (B,S',H), and its state (L,B,H) at     the same                      the same, from the state
             the last real step                                                        where the last batch ended
   decode    none, or one LSTM step a horizon segment    none                          none
   select    last (B,H), or all (B*M,H)                  last | mean_max (B,2H)        all (B*S,H)
   head      Linear (N,H) -> (N,O), never a third dimension
   loss      squared error against y (B,K,O)             BCE with logits (B,), or      cross-entropy on (B*S,V)
                                                         cross-entropy on (B,C)
Equal shapes are enforced, never broadcast.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.card import Task
from tidecast.errors import ShapeError, TrainingConfigError

Selection = Literal["all", "last", "mean_max", "last_padded"]
SELECTIONS: tuple[Selection, ...] = ("all", "last", "mean_max", "last_padded")
IGNORED = -100
"""The target that next_token's loss ignores."""
State = tuple[Tensor, Tensor]
"""An LSTM's h and c, (L,B,H) each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B windows or texts with their targets; one type for all tasks."""

    task: Task
    x: Tensor
    """forecast: (B,S,F) float32, raw units; else (B,S) int64 tokens, 0 padding on the right, 1 unknown."""
    y: Tensor
    """forecast: (B,K,O) float32. classify: (B,) int64 labels, or of two labels (B,) float32. next_token: (B,S) int64,
    IGNORED where there is none."""
    lengths: Tensor | None = None
    """(B,) int64, 1 to S: each row's real steps; None: all are."""
    observed: Tensor | None = None
    """forecast: (B,K,O) bool, which targets were observed; the loss ignores the others."""
    step: Tensor | None = None
    """forecast: (B,) int64, the grid index of each window's last step."""
    future: Tensor | None = None
    """forecast: (B,K,C) float32, raw units, the future covariates."""
    scale: Tensor | None = None
    """forecast: (B,1,O) float32, each series' standard deviation in training; used only in the loss."""
    weight: Tensor | None = None
    """classify: (B,) float32, each row's weight in the loss."""
    smoothing: float = 0.0
    """classify: label smoothing."""
    carried: bool = False
    """next_token: whether each row continues the same row of the previous batch."""


class Model(Protocol):
    """A trainable model: `forward` takes the file's named inputs in order and returns its outputs."""

    def outputs(self, batch: Batch, state: State | None) -> tuple[Tensor, State | None]:
        """The input of `loss`, and the state after the batch if there is one."""


class Core(nn.LSTM):
    """The LSTM, batch first: (B,S,E) -> (B,S,H)."""

    def __init__(self, width: int, hidden: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def forward(  # type: ignore[override]
        self, x_BSE: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """The output at every step, and the final state.

        With `lengths` (B,) the state is that of each row's last real step, and the output on padding is zero; it takes
        more than twice as long. The output at real steps is the same. On a GPU it is float32 under autocast too.
        """
        if x_BSE.is_cuda and torch.is_autocast_enabled("cuda"):
            # Autocast to bfloat16 makes cuDNN's LSTM float16, in which small gradients vanish.
            with torch.autocast("cuda", enabled=False):
                before = None if state is None else (state[0].float(), state[1].float())
                return self.forward(x_BSE.float(), before, lengths)
        if lengths is None:
            out_BSH, after = super().forward(x_BSE, state)
        else:
            packed = pack_padded_sequence(x_BSE, lengths.cpu(), batch_first=True, enforce_sorted=False)
            out, after = super().forward(packed, state)
            out_BSH, _ = pad_packed_sequence(out, batch_first=True, total_length=x_BSE.shape[1])
        return out_BSH, after


class Select(nn.Module):
    """Which of the core's outputs the head sees, (B,S,H) -> (N,H) or (N,2H); padding beyond `lengths` (B,) is ignored.

    `all`: every real step, row after row. `last`: each row's last real step. `mean_max`: the mean and the maximum of
    its real steps, side by side. `last_padded`: the last step, padding or not, for
    comparison.
    """

    def __init__(self, mode: Selection) -> None:
        super().__init__()
        if mode not in SELECTIONS:
            raise TrainingConfigError(f"select: {mode!r} is none of {SELECTIONS}")
        self.mode = mode

    def forward(self, out_BSH: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The rows for the head."""
        if self.mode == "last_padded" or (self.mode == "last" and lengths is None):
            return out_BSH[:, -1]
        if lengths is None:
            return self._all_real(out_BSH)
        ends = torch.arange(out_BSH.shape[0], device=out_BSH.device), lengths - 1
        if self.mode == "last":
            return out_BSH[ends]
        real_BS = torch.arange(out_BSH.shape[1], device=out_BSH.device) < lengths.unsqueeze(1)
        if self.mode == "all":
            return out_BSH[real_BS]
        # cumsum: the summation order of a plain sum, and so its bits, would depend on the padding of the batch.
        mean_BH = out_BSH.cumsum(1)[ends] / lengths.unsqueeze(1)
        return torch.cat([mean_BH, torch.where(real_BS.unsqueeze(2), out_BSH, -torch.inf).amax(1)], dim=1)

    def _all_real(self, out_BSH: Tensor) -> Tensor:
        if self.mode == "all":
            return out_BSH.reshape(-1, out_BSH.shape[2])
        return torch.cat([out_BSH.mean(1), out_BSH.amax(1)], dim=1)


class Head(nn.Linear):
    """The output layer, (N,H) -> (N,O). Raises ShapeError for a third dimension."""

    def forward(self, rows_NH: Tensor) -> Tensor:
        """(N,H) -> (N,O)."""
        if rows_NH.dim() != 2:
            raise ShapeError(f"the head takes (N,H), not {tuple(rows_NH.shape)}")
        return super().forward(rows_NH)


def loss(output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The summed loss of a batch and its number of targets (or sum of weights): scalars. Raises ShapeError."""
    if batch.task == "forecast":
        assert batch.observed is not None
        assert batch.scale is not None
        return squared_error(output, batch.y, batch.observed, batch.scale), batch.observed.sum()
    if batch.task == "next_token":
        _check_equal(logits=output[..., 0], targets=batch.y)
        logits_NV, y_N = output.reshape(-1, output.shape[-1]), batch.y.reshape(-1)
        return cross_entropy(logits_NV, y_N), (y_N != IGNORED).sum()
    weight = torch.ones(len(batch.y), device=output.device) if batch.weight is None else batch.weight
    if not batch.y.is_floating_point():
        return cross_entropy(output, batch.y, weight, batch.smoothing), weight.sum()
    y_N = batch.y * (1 - batch.smoothing) + batch.smoothing / 2
    return binary_cross_entropy(output, y_N, weight), weight.sum()


def squared_error(forecast: Tensor, y: Tensor, observed: Tensor, scale: Tensor) -> Tensor:
    """The summed squared error of the observed targets of (B,K,O), relative to each series' variance: a scalar.

    Raises ShapeError unless forecast, y and observed have one shape.
    """
    _check_equal(forecast=forecast, targets=y, observed=observed)
    error = torch.where(observed, forecast - y, 0.0) / scale
    return error.square().sum()


def cross_entropy(logits_NC: Tensor, y_N: Tensor, weight_N: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """The summed cross-entropy, in nats, of the labels (int64); IGNORED ones are skipped. Raises ShapeError."""
    if logits_NC.dim() != 2:
        raise ShapeError(f"logits must be (N,C), not {tuple(logits_NC.shape)}")
    _check_equal(logits=logits_NC[:, 0], targets=y_N)
    if weight_N is None:
        return functional.cross_entropy(
            logits_NC, y_N, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
        )
    _check_equal(targets=y_N, weight=weight_N)
    loss_N = functional.cross_entropy(logits_NC, y_N, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing)
    return (loss_N * weight_N).sum()


def binary_cross_entropy(logits_N: Tensor, y_N: Tensor, weight_N: Tensor | None = None) -> Tensor:
    """The summed binary cross-entropy, in nats, from logits; y is float32, 0 to 1. Raises ShapeError."""
    weight_N = torch.ones_like(logits_N) if weight_N is None else weight_N
    if logits_N.dim() != 1:
        raise ShapeError(f"logits must be (N,), not {tuple(logits_N.shape)}")
    _check_equal(logits=logits_N, targets=y_N, weight=weight_N)
    return functional.binary_cross_entropy_with_logits(logits_N, y_N, weight_N, reduction="sum")


def _check_equal(**tensors: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ShapeError(", ".join(f"{name} {shape}" for name, shape in shapes.items()) + " must have one shape")
