"""Seed 004: the LSTM from scratch, after I. Dabbura's annotated implementation, compared with torch's.

The document: a cell, and two layers of it over 8 steps of a batch of 64, hidden size 100, with the weights of an
nn.LSTM; then the norms of the differences, 0.0 each.

Its mistakes: it cannot be trained. It writes each step's output into one tensor and each layer's last state into the
caller's tensors, so that backward finds saved values overwritten and raises, and the caller's initial state is lost;
the returned states are always detached; the hidden size of 100 is hard-coded in the cell; the dropout it mentions is
not implemented.

--mode parity shows this: the document's implementation, its backward pass, and the caller's state. --mode honest also
compares the gradients of this project's implementation, examples/cell.py, with torch's, and trains it for a few
seconds: one step ahead on the bundled taxi series (or the first series of a --data file), with truncated
backpropagation through time, the state carried from chunk to chunk. The last fifth of the series is the test set.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
from cell import LSTM, PARAMETERS, Weights, cell, detach_state
from seeds import log_line, parse_options, print_result, run_script
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import deploy
from model.networks.protocol import Head, State
from pipeline.datasets.measurements import read_file

TAXI = Path(deploy.__file__).parent / "demo" / "data" / "nyc_taxi.csv"
STEPS, BATCH, INPUTS, HIDDEN, LAYERS = 8, 64, 20, 100, 2
STREAMS, CHUNK, EPOCHS = 16, 48, 10
"""Training: parallel streams of the series, the steps of a truncated gradient, and passes over the data."""
Result = tuple[Tensor, State]
"""The output of every step, and the state (L,B,H) after the last one."""


def in_place_lstm(x_SBE: Tensor, state: State, layers: Sequence[Weights]) -> Result:
    """The document's LSTM, sequence first: writes outputs into one tensor, and final states over the caller's state."""
    h_LBH, c_LBH = state
    out_SBH = torch.zeros(*x_SBE.shape[:2], h_LBH.shape[2])
    for layer, weights in enumerate(layers):
        below, end = out_SBH if layer else x_SBE, (h_LBH[layer], c_LBH[layer])
        for step in range(len(below)):
            end = cell(below[step], end, weights)
            out_SBH[step] = end[0]
        h_LBH[layer], c_LBH[layer] = end
    return out_SBH, detach_state(state)


def make_example(seed: int) -> tuple[LSTM, nn.LSTM, Tensor, State]:
    """The project's LSTM and torch's with the same weights, an input (B,S,E), and an initial state."""
    torch.manual_seed(seed)
    own, torchs = LSTM(INPUTS, HIDDEN, LAYERS), nn.LSTM(INPUTS, HIDDEN, LAYERS, batch_first=True)
    own.load_state_dict(torchs.state_dict())
    state = torch.randn(LAYERS, BATCH, HIDDEN), torch.randn(LAYERS, BATCH, HIDDEN)
    return own, torchs, torch.randn(BATCH, STEPS, INPUTS), state


def layer_weights(own: LSTM) -> list[Weights]:
    """The weights of each layer."""
    found = [[getattr(own, f"{name}_l{layer}") for name in PARAMETERS] for layer in range(own.layers)]
    return [(w_ih, w_hh, b_ih, b_hh) for w_ih, w_hh, b_ih, b_hh in found]


def gradients(lstm: nn.Module, result: Result) -> tuple[Tensor, ...]:
    """The gradients, by weight, of the sum of squares of all outputs and the final state, averaged over the batch."""
    out, (h, c) = result
    total = out.square().sum() + h.square().sum() + c.square().sum()
    return torch.autograd.grad(total / BATCH, list(lstm.parameters()))


def backward_error(result: Result) -> str:
    """The error that backward through the outputs raises; empty if it works."""
    try:
        result[0].sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return str(error).partition(":")[0]
    return ""


def max_abs_difference(these: Sequence[Tensor], those: Sequence[Tensor]) -> float:
    """The largest absolute difference between corresponding tensors."""
    return max((this - that).abs().max().item() for this, that in zip(these, those, strict=True))


def compare(name: str, result: Result, reference: Result) -> float:
    """Prints the document's check, the norms of the differences; returns the largest absolute difference."""
    these, those = (result[0], *result[1]), (reference[0], *reference[1])
    out, h, c = ((this - that).norm().item() for this, that in zip(these, those, strict=True))
    log_line(f"{name} and nn.LSTM differ by norms of {out:.1e} in out, {h:.1e} in h and {c:.1e} in c")
    return max_abs_difference(these, those)


def parity(own: LSTM, torchs: nn.LSTM, x_BSE: Tensor, state: State) -> float:
    """Runs the document's LSTM: its backward pass, the caller's state after it, and its check."""
    given = state[0].clone(), state[1].clone()
    result = in_place_lstm(x_BSE.transpose(0, 1), given, layer_weights(own))
    log_line(f"the document's backward: {backward_error(result) or 'works'}")
    log_line(f"the caller's state is {'unchanged' if torch.equal(given[0], state[0]) else 'overwritten'}")
    return compare("the document's LSTM", (result[0].transpose(0, 1), result[1]), torchs(x_BSE, state))


def one_step_loss(lstm: LSTM, head: Head, z_BS1: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """The mean squared error of forecasting each next step, and the state after the second-to-last step."""
    out_BSH, after = lstm(z_BS1[:, :-1], state)
    return mse_loss(head(out_BSH.flatten(0, 1)), z_BS1[:, 1:].flatten(0, 1)), after


def train(values_T: Tensor, epochs: int) -> tuple[float, float, float]:
    """The test error before and after training, and the last-value forecast's, in variances of the training part."""
    cut = len(values_T) * 4 // 5
    z_T1 = ((values_T - values_T[:cut].mean()) / values_T[:cut].std()).unsqueeze(1)
    streams, test = z_T1[: cut // STREAMS * STREAMS].view(STREAMS, -1, 1), z_T1[cut:].unsqueeze(0)
    lstm, head = LSTM(1, 32), Head(32, 1)
    optimiser = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=1e-2)
    before = one_step_loss(lstm, head, test)[0].item()
    for _ in range(epochs):
        state = None
        for start in range(0, streams.shape[1] - 1, CHUNK):
            loss, after = one_step_loss(lstm, head, streams[:, start : start + CHUNK + 1], state)
            state = detach_state(after)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return before, one_step_loss(lstm, head, test)[0].item(), mse_loss(test[:, :-1], test[:, 1:]).item()


def honest(own: LSTM, torchs: nn.LSTM, x_BSE: Tensor, state: State, values_T: Tensor, epochs: int) -> None:
    """Compares the gradients of the project's LSTM with torch's, and trains it on a series."""
    ours, theirs = gradients(own, own(x_BSE, state)), gradients(torchs, torchs(x_BSE, state))
    greatest = max(gradient.abs().max().item() for gradient in theirs)
    log_line(f"gradients of up to {greatest:.2g} differ by at most {max_abs_difference(ours, theirs):.1e}")
    before, after, naive = train(values_T, epochs)
    errors = f"{before:.4f} before training, {after:.4f} after; last value {naive:.4f}"
    log_line(f"one step ahead, mean squared error: {errors}")


def read_series(path: Path) -> Tensor:
    """The first series of a file, sorted by time: (T,) float32."""
    frame = read_file(str(path)).frame.sort("ts")
    first = frame.filter(pl.col("series") == frame["series"][0])
    return torch.tensor(first["value"].to_numpy(), dtype=torch.float32)


def main() -> None:
    """Runs the chosen mode."""
    options = parse_options(__doc__ or "", str(TAXI))
    torch.set_num_threads(1)
    with print_result(options) as result:
        own, torchs, x_BSE, state = pieces = make_example(options.seed)
        shapes = ", ".join(f"{name} {tuple(weight.shape)}" for name, weight in own.named_parameters())
        log_line(f"{sum(weight.numel() for weight in own.parameters()):,} parameters: {shapes}")
        result["max_abs"] = compare("examples/cell.py", own(x_BSE, state), torchs(x_BSE, state))
        if options.mode == "parity":
            result["max_abs"] = max(result["max_abs"], parity(*pieces))
        else:
            honest(*pieces, read_series(options.data), options.epochs or EPOCHS)


if __name__ == "__main__":
    run_script(main)
