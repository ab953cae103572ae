"""Seed 004: the LSTM written out, by I. Dabbura's annotated implementation, and held against torch's.

What it did: a cell, and two layers of it over 8 steps of a batch of 64, hidden 100, with the weights of an nn.LSTM;
then the norms of what the two differ by, 0.0 each.

What is wrong: it can't learn. The stack writes each step's output into one tensor and each layer's last state into
the caller's, so that backward finds what it needs overwritten and raises, and the caller has lost the state to begin
with; the states returned are cut off whether asked for or not; the hidden size of 100 is written into the cell; the
dropout spoken of isn't there.

parity shows it: the document's stack, its backward, and the caller's state. honest holds the gradients of this
project's own, model/cell.py, against torch's as well, and lets it learn for some seconds: one step ahead in the
package's taxi series (or the first series of a --data file), by truncated back-propagation, the state carried from
chunk to chunk. The series' last fifth is scored and not learnt from.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
from cell import LSTM, NAMES, Weights, cell, detached
from seeds import finished, options, run, say
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import deploy
from model.networks.protocol import Head, State
from pipeline.datasets.measurements import read_file

TAXI = Path(deploy.__file__).parent / "data" / "nyc_taxi.csv"
STEPS, BATCH, INPUTS, HIDDEN, LAYERS = 8, 64, 20, 100, 2
STREAMS, CHUNK, EPOCHS = 16, 48, 10
"""Of what is learnt: pieces of the series side by side, and the steps that a gradient goes back."""
Result = tuple[Tensor, State]
"""Every step's output, and the state (L,B,H) after the last one."""


def in_place(x_SBE: Tensor, state: State, layers: Sequence[Weights]) -> Result:
    """The document's stack, steps first: all outputs are written into one tensor, end states over the caller's."""
    h_LBH, c_LBH = state
    out_SBH = torch.zeros(*x_SBE.shape[:2], h_LBH.shape[2])
    for layer, weights in enumerate(layers):
        below, end = out_SBH if layer else x_SBE, (h_LBH[layer], c_LBH[layer])
        for step in range(len(below)):
            end = cell(below[step], end, weights)
            out_SBH[step] = end[0]
        h_LBH[layer], c_LBH[layer] = end
    return out_SBH, detached(state)


def example(seed: int) -> tuple[LSTM, nn.LSTM, Tensor, State]:
    """The project's LSTM and torch's with the same weights, an input (B,S,E), and a state to begin with."""
    torch.manual_seed(seed)
    own, torchs = LSTM(INPUTS, HIDDEN, LAYERS), nn.LSTM(INPUTS, HIDDEN, LAYERS, batch_first=True)
    own.load_state_dict(torchs.state_dict())
    state = torch.randn(LAYERS, BATCH, HIDDEN), torch.randn(LAYERS, BATCH, HIDDEN)
    return own, torchs, torch.randn(BATCH, STEPS, INPUTS), state


def weights_of(own: LSTM) -> list[Weights]:
    """Each layer's weights."""
    found = [[getattr(own, f"{name}_l{layer}") for name in NAMES] for layer in range(own.layers)]
    return [(w_ih, w_hh, b_ih, b_hh) for w_ih, w_hh, b_ih, b_hh in found]


def gradients(lstm: nn.Module, result: Result) -> tuple[Tensor, ...]:
    """The weights' gradients of the squares of every output and both end states, a mean over the batch."""
    out, (h, c) = result
    total = out.square().sum() + h.square().sum() + c.square().sum()
    return torch.autograd.grad(total / BATCH, list(lstm.parameters()))


def backward_error(result: Result) -> str:
    """What backward through the outputs raises; nothing where it works."""
    try:
        result[0].sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return str(error).partition(":")[0]
    return ""


def largest(these: Sequence[Tensor], those: Sequence[Tensor]) -> float:
    """The greatest absolute difference of all."""
    return max((this - that).abs().max().item() for this, that in zip(these, those, strict=True))


def verified(name: str, result: Result, reference: Result) -> float:
    """The document's check, the norms of the differences, on stderr; the greatest difference."""
    these, those = (result[0], *result[1]), (reference[0], *reference[1])
    out, h, c = ((this - that).norm().item() for this, that in zip(these, those, strict=True))
    say(f"{name} and nn.LSTM differ by norms of {out:.1e} in out, {h:.1e} in h and {c:.1e} in c")
    return largest(these, those)


def parity(own: LSTM, torchs: nn.LSTM, x_BSE: Tensor, state: State) -> float:
    """The document's stack: its backward, what becomes of the state it was given, and its check."""
    given = state[0].clone(), state[1].clone()
    result = in_place(x_BSE.transpose(0, 1), given, weights_of(own))
    say(f"the document's backward: {backward_error(result) or 'works'}")
    say(f"the caller's state is {'as it was' if torch.equal(given[0], state[0]) else 'overwritten'}")
    return verified("the document's stack", (result[0].transpose(0, 1), result[1]), torchs(x_BSE, state))


def one_ahead(lstm: LSTM, head: Head, z_BS1: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """The mean squared error of each step's forecast of the next one, and the state before the last step."""
    out_BSH, after = lstm(z_BS1[:, :-1], state)
    return mse_loss(head(out_BSH.flatten(0, 1)), z_BS1[:, 1:].flatten(0, 1)), after


def learn(values_T: Tensor, epochs: int) -> tuple[float, float, float]:
    """The error in the last fifth, in variances of the rest: before and after learning from that; the last value's."""
    cut = len(values_T) * 4 // 5
    z_T1 = ((values_T - values_T[:cut].mean()) / values_T[:cut].std()).unsqueeze(1)
    streams, judged = z_T1[: cut // STREAMS * STREAMS].view(STREAMS, -1, 1), z_T1[cut:].unsqueeze(0)
    lstm, head = LSTM(1, 32), Head(32, 1)
    optimiser = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=1e-2)
    before = one_ahead(lstm, head, judged)[0].item()
    for _ in range(epochs):
        state = None
        for start in range(0, streams.shape[1] - 1, CHUNK):
            loss, after = one_ahead(lstm, head, streams[:, start : start + CHUNK + 1], state)
            state = detached(after)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return before, one_ahead(lstm, head, judged)[0].item(), mse_loss(judged[:, :-1], judged[:, 1:]).item()


def honest(own: LSTM, torchs: nn.LSTM, x_BSE: Tensor, state: State, values_T: Tensor, epochs: int) -> None:
    """The project's LSTM: its gradients, and what it learns of a series."""
    ours, theirs = gradients(own, own(x_BSE, state)), gradients(torchs, torchs(x_BSE, state))
    greatest = max(gradient.abs().max().item() for gradient in theirs)
    say(f"gradients of up to {greatest:.2g} differ by at most {largest(ours, theirs):.1e}")
    before, after, naive = learn(values_T, epochs)
    say(f"one step ahead, mean squared error: {before:.4f} before learning, {after:.4f} after; last value {naive:.4f}")


def series(path: Path) -> Tensor:
    """A file's first series by time, (T,) float32."""
    frame = read_file(str(path)).frame.sort("ts")
    first = frame.filter(pl.col("series") == frame["series"][0])
    return torch.tensor(first["value"].to_numpy(), dtype=torch.float32)


def main() -> None:
    """What was asked for."""
    asked = options(__doc__ or "", str(TAXI))
    torch.set_num_threads(1)
    with finished(asked) as result:
        own, torchs, x_BSE, state = pieces = example(asked.seed)
        shapes = ", ".join(f"{name} {tuple(weight.shape)}" for name, weight in own.named_parameters())
        say(f"{sum(weight.numel() for weight in own.parameters()):,} parameters: {shapes}")
        result["max_abs"] = verified("model/cell.py", own(x_BSE, state), torchs(x_BSE, state))
        if asked.mode == "parity":
            result["max_abs"] = max(result["max_abs"], parity(*pieces))
        else:
            honest(*pieces, series(asked.data), asked.epochs or EPOCHS)


if __name__ == "__main__":
    run(main)
