"""Seed 002, regression: the next month's passengers, by W. Neill's notebook that A. M. Sefidian's post goes back to.

What it did: flights, 144 months, the last 12 held out; LSTM(1,100), a linear layer on every step; windows of 12 months,
each a step of Adam at .0005 towards the same window one month later; 500 epochs.

What is wrong: the months held out are scaled by their own least and greatest value, which nobody has beforehand; the
state is carried from window to window, though each begins only a month after the one before, so most months are read 12
times over, and the last never; the training loss is a sum, and the mean taken of it is that of one number; the
post's single eighth day would broadcast against all B*S outputs without a word.

honest mends it: the project's own forecasting path, where scale, weights, the best epoch, and whether a month is taken
from the one before or from that of the year before, come from the training months alone, the later part of them
validating. The last 11 months are looked at once, one step ahead, beside what the last value and the one a season ago
say.

By itself it takes daily totals of the taxi series that the package carries; flights.csv (year, month, passengers) and
dowjones.csv (Date, Price) are for --data. parity's 500 epochs of flights take a minute or two on one core.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from seeds import finished, options, run, say
from torch import Tensor, nn

import deploy
from deploy.settings.serve import window_config
from model.card import InputSpec, OutputSpec
from model.evaluation.baselines import baselines
from model.evaluation.metrics import mse
from model.evaluation.splits import targets
from model.networks.protocol import Core, Head, Select, State, squared_error
from model.seasons import seasonal_lags
from model.training.forecasting import ForecastConfig, fit, forecast
from pipeline.datasets.history import from_frame, infer_freq, windows
from pipeline.datasets.measurements import read_file

TAXI = Path(deploy.__file__).parent / "data" / "nyc_taxi.csv"
DAY = 86_400_000
HELD_OUT = 12
"""Points at the end that are not for training; all but the first are forecast."""
WINDOW, HIDDEN, EPOCHS, LEARNING_RATE = 12, 100, 500, 5e-4
"""The notebook's."""
SEQ_LEN = 36
CONFIG = ForecastConfig(arch="lstm", hidden=32, dropout=0.1, epochs=100, patience=30)
LOCATIONS: tuple[Literal["last", "season"], ...] = ("last", "season")
"""What is taken off a window; the training months' later part says which is better."""


class EveryStep(nn.Module):
    """An LSTM with a linear layer on every step, (B,S,F) -> (B*S,O): the post's Data Flow Protocol."""

    def __init__(self, features: int, hidden: int, layers: int, outputs: int) -> None:
        super().__init__()
        self.core, self.select, self.head = Core(features, hidden, layers), Select("all"), Head(hidden, outputs)

    def forward(self, x_BSF: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The head's rows (B*S,O), and the state after the last step."""
        out_BSH, after = self.core(x_BSF, state)
        return self.head(self.select(out_BSH)), after

    def flow(self, x_BSF: Tensor) -> list[tuple[int, ...]]:
        """The shapes on the way: the input's, the LSTM's, the linear layer's before and after."""
        out_BSH, _ = self.core(x_BSF)
        rows_NH = self.select(out_BSH)
        return [tuple(tensor.shape) for tensor in (x_BSF, out_BSH, rows_NH, self.head(rows_NH))]


def series(path: Path) -> pl.DataFrame:
    """A file's only series by time; days' totals where it has several values a day."""
    frame = read_file(str(path)).frame.sort("ts")
    if frame["series"].n_unique() > 1:
        raise ValueError(f"{path}: it holds {frame['series'].n_unique()} series, and this takes one")
    daily = frame.group_by("series", pl.col("ts") // DAY * DAY, maintain_order=True).agg(pl.col("value").sum())
    if len(daily) < len(frame):
        say(f"{path.name}: {len(frame):,} values as {len(daily)} daily totals")
    return daily


def scaled(values_T: Tensor) -> Tensor:
    """(T,) -> (T,1), its least value -1 and its greatest 1."""
    low, high = values_T.aminmax()
    return ((values_T - low) / (high - low) * 2 - 1).unsqueeze(1)


def overlapping(values_T1: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Every window (1,S,1), and the same one step later (S,1)."""
    for start in range(len(values_T1) - WINDOW):
        stop = start + WINDOW
        yield values_T1[start:stop].unsqueeze(0), values_T1[start + 1 : stop + 1]


def mean_squared(rows_NO: Tensor, y_NO: Tensor) -> Tensor:
    """The mean squared error. Raises ShapeError where the shapes differ: nothing is broadcast."""
    observed, scale = torch.ones_like(y_NO, dtype=torch.bool), torch.ones(())
    return squared_error(rows_NO, y_NO, observed, scale) / y_NO.numel()


def one_pass(network: EveryStep, optimiser: torch.optim.Optimizer, train_T1: Tensor) -> tuple[float, State | None]:
    """An epoch: the sum of the windows' losses, and the state that was carried through them."""
    total, state = 0.0, None
    for x, y in overlapping(train_T1):
        optimiser.zero_grad()
        rows, (h, c) = network(x, state)
        state = h.detach(), c.detach()
        loss = mean_squared(rows, y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.item()
    return total, state


def parity(values: npt.NDArray[np.float32], epochs: int, seed: int) -> float:
    """Trains as the notebook does; the rmse of the points held out after the last epoch, in the data's units."""
    torch.manual_seed(seed)
    train, held_out = (scaled(torch.from_numpy(part)) for part in (values[:-HELD_OUT], values[-HELD_OUT:]))
    unit, error = float(np.ptp(values[-HELD_OUT:])) / 2, math.nan
    network = EveryStep(1, HIDDEN, 1, 1)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    for epoch in range(epochs):
        total, state = one_pass(network, optimiser, train)
        with torch.no_grad():
            error = float(mean_squared(network(held_out[:-1].unsqueeze(0), state)[0], held_out[1:]))
        if epoch % 100 == 0 or epoch == epochs - 1:
            rmse = math.sqrt(error) * unit
            say(f"epoch {epoch}: training loss {total:.4f} (a sum), validation loss {error:.4f} (rmse {rmse:.4g})")
    return math.sqrt(error) * unit


def honest(frame: pl.DataFrame, config: ForecastConfig) -> dict[str, float]:
    """The rmse of the last points, each forecast from those before it: the model's, then the naive forecasts'."""
    inputs, outputs = InputSpec(seq_len=SEQ_LEN, freq=infer_freq(frame)), OutputSpec(horizon=1)
    known = windows(from_frame(frame[:-HELD_OUT]), window_config(inputs))
    locations = LOCATIONS if seasonal_lags(inputs.freq) else LOCATIONS[:1]
    found = [fit(known, inputs, outputs, replace(config, location=at), "seed-002") for at in locations]
    fitted = min(found, key=lambda one: one.card.metrics["validation_mse"])
    best, at = int(fitted.card.metrics["best_epoch"]), fitted.card.hyperparameters["location"]
    say(f"{len(fitted.split.train)} windows to train on; {len(fitted.split.validation)} chose epoch {best}, from {at}")
    data = windows(from_frame(frame), window_config(inputs))
    ends = data.ends[-HELD_OUT:-1]
    actual, _ = targets(data, ends, 1, [0])
    naive = baselines(data, ends, 1, [0], inputs.freq)
    said = {"the model": forecast(fitted.model, data, ends)} | {f"naive, {name}": y for name, y in naive.items()}
    return {name: math.sqrt(mse(values, actual, 1.0)) for name, values in said.items()}


def main() -> None:
    """What was asked for."""
    asked = options(__doc__ or "", str(TAXI))
    say("7 days, the post's shapes: " + " -> ".join(map(str, EveryStep(1, 100, 2, 1).flow(torch.zeros(4, 7, 1)))))
    torch.set_num_threads(1)
    with finished(asked) as result:
        frame = series(asked.data)
        if asked.mode == "parity":
            values = frame["value"].to_numpy().astype(np.float32)
            result["rmse"] = parity(values, asked.epochs or EPOCHS, asked.seed)
        else:
            scores = honest(frame, replace(CONFIG, seed=asked.seed, epochs=asked.epochs or CONFIG.epochs))
            say(f"rmse of the last {HELD_OUT - 1}: " + ", ".join(f"{name} {rmse:.4g}" for name, rmse in scores.items()))
            result["rmse"] = scores["the model"]


if __name__ == "__main__":
    run(main)
