"""Seed 002, regression: next month's passengers, after W. Neill's notebook (the source of A. M. Sefidian's post).

The document: flights, 144 months, the last 12 held out; LSTM(1,100) with a linear layer on every step; windows of 12
months, each one step of Adam with a learning rate of .0005, the target being the same window one month later; 500
epochs.

Its mistakes: the held-out months are scaled by their own minimum and maximum, which are not known in advance; the state
is carried from window to window, though consecutive windows overlap in all but one month, so most months are read 12
times and the last one never; the training loss is a sum, and its "mean" is the mean of a single number; the post's
target of a single eighth day would silently broadcast against all B*S outputs.

--mode honest trains with this project's own forecaster: scale, weights, the best epoch and the location (the previous
month, or the same month a year before) are chosen on the training months only, validated on the last of them. The last
11 months are evaluated once, one step ahead, next to the last-value and seasonal naive forecasts.

The default data is daily totals of the bundled taxi series; flights.csv (year, month, passengers) and dowjones.csv
(Date, Price) go to --data. parity's 500 epochs of flights take a minute or two on one core.
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
from seeds import log_line, parse_options, print_result, run_script
from torch import Tensor, nn

import deploy
from deploy.settings.serve import window_config
from model.card import InputSpec, OutputSpec
from model.evaluation.baselines import baselines
from model.evaluation.metrics import mse
from model.evaluation.splits import targets
from model.networks.protocol import Core, Head, Select, State, squared_error
from model.seasons import seasonal_lags
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import fit, forecast
from pipeline.datasets.history import from_frame, windows
from pipeline.datasets.measurements import read_file
from pipeline.datasets.spacing import infer_freq

TAXI = Path(deploy.__file__).parent / "demo" / "data" / "nyc_taxi.csv"
DAY = 86_400_000
HELD_OUT = 12
"""Held-out points at the end; all but the first are forecast."""
WINDOW, HIDDEN, EPOCHS, LEARNING_RATE = 12, 100, 500, 5e-4
"""The hyperparameters of the notebook."""
SEQ_LEN = 36
CONFIG = ForecastConfig(arch="lstm", hidden=32, dropout=0.1, epochs=100, patience=30)
LOCATIONS: tuple[Literal["last", "season"], ...] = ("last", "season")
"""Ways to normalize a window; the better one on the validation months is used."""


class EveryStepNetwork(nn.Module):
    """An LSTM with a linear layer on every step, (B,S,F) -> (B*S,O): the post's Data Flow Protocol."""

    def __init__(self, features: int, hidden: int, layers: int, outputs: int) -> None:
        super().__init__()
        self.core, self.select, self.head = Core(features, hidden, layers), Select("all"), Head(hidden, outputs)

    def forward(self, x_BSF: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The output of the head (B*S,O), and the state after the last step."""
        out_BSH, after = self.core(x_BSF, state)
        return self.head(self.select(out_BSH)), after

    def flow(self, x_BSF: Tensor) -> list[tuple[int, ...]]:
        """The shapes of the input, the LSTM's output, and the linear layer's input and output."""
        out_BSH, _ = self.core(x_BSF)
        rows_NH = self.select(out_BSH)
        return [tuple(tensor.shape) for tensor in (x_BSF, out_BSH, rows_NH, self.head(rows_NH))]


def read_series(path: Path) -> pl.DataFrame:
    """The only series of a file, sorted by time; as daily totals if it has several values per day.

    Raises ValueError for a file of several series.
    """
    frame = read_file(str(path)).frame.sort("ts")
    if frame["series"].n_unique() > 1:
        raise ValueError(f"{path}: {frame['series'].n_unique()} series, and this script takes one")
    daily = frame.group_by("series", pl.col("ts") // DAY * DAY, maintain_order=True).agg(pl.col("value").sum())
    if len(daily) < len(frame):
        log_line(f"{path.name}: {len(frame):,} values as {len(daily)} daily totals")
    return daily


def min_max_scale(values_T: Tensor) -> Tensor:
    """(T,) -> (T,1), scaled to [-1, 1] by its own minimum and maximum."""
    low, high = values_T.aminmax()
    return ((values_T - low) / (high - low) * 2 - 1).unsqueeze(1)


def sliding_windows(values_T1: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Every window (1,S,1), and its target, the window one step later (S,1)."""
    for start in range(len(values_T1) - WINDOW):
        stop = start + WINDOW
        yield values_T1[start:stop].unsqueeze(0), values_T1[start + 1 : stop + 1]


def mean_squared_error(rows_NO: Tensor, y_NO: Tensor) -> Tensor:
    """The mean squared error. Raises ShapeError if the shapes differ: nothing is broadcast."""
    observed, scale = torch.ones_like(y_NO, dtype=torch.bool), torch.ones(())
    return squared_error(rows_NO, y_NO, observed, scale) / y_NO.numel()


def run_epoch(
    network: EveryStepNetwork, optimiser: torch.optim.Optimizer, train_T1: Tensor
) -> tuple[float, State | None]:
    """Trains for one epoch; the sum of the windows' losses, and the state carried through them."""
    total, state = 0.0, None
    for x, y in sliding_windows(train_T1):
        optimiser.zero_grad()
        rows, (h, c) = network(x, state)
        state = h.detach(), c.detach()
        loss = mean_squared_error(rows, y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.item()
    return total, state


def parity(values: npt.NDArray[np.float32], epochs: int, seed: int) -> float:
    """Trains as the notebook does; the rmse on the held-out points after the last epoch, in the unit of the data."""
    torch.manual_seed(seed)
    train, held_out = (min_max_scale(torch.from_numpy(part)) for part in (values[:-HELD_OUT], values[-HELD_OUT:]))
    unit, error = float(np.ptp(values[-HELD_OUT:])) / 2, math.nan
    network = EveryStepNetwork(1, HIDDEN, 1, 1)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    for epoch in range(epochs):
        total, state = run_epoch(network, optimiser, train)
        with torch.no_grad():
            error = float(mean_squared_error(network(held_out[:-1].unsqueeze(0), state)[0], held_out[1:]))
        if epoch % 100 == 0 or epoch == epochs - 1:
            rmse = math.sqrt(error) * unit
            log_line(f"epoch {epoch}: training loss {total:.4f} (a sum), validation loss {error:.4f} (rmse {rmse:.4g})")
    return math.sqrt(error) * unit


def honest(frame: pl.DataFrame, config: ForecastConfig) -> dict[str, float]:
    """The rmse on the last points, each forecast one step ahead: of the model, and of the naive forecasts."""
    inputs, outputs = InputSpec(seq_len=SEQ_LEN, freq=infer_freq(frame)), OutputSpec(horizon=1)
    train = windows(from_frame(frame[:-HELD_OUT]), window_config(inputs))
    locations = LOCATIONS if seasonal_lags(inputs.freq) else LOCATIONS[:1]
    found = [fit(train, inputs, outputs, replace(config, location=at), "seed-002") for at in locations]
    fitted = min(found, key=lambda one: one.card.metrics["validation_mse"])
    best, at = int(fitted.card.metrics["best_epoch"]), fitted.card.hyperparameters["location"]
    sizes = f"{len(fitted.split.train)} training windows, {len(fitted.split.validation)} validation windows"
    log_line(f"{sizes}; best: epoch {best}, location {at}")
    data = windows(from_frame(frame), window_config(inputs))
    ends = data.ends[-HELD_OUT:-1]
    actual, _ = targets(data, ends, 1, [0])
    naive = baselines(data, ends, 1, [0], {"last": 1, **inputs.lags})
    forecasts = {"the model": forecast(fitted.model, data, ends)} | {f"naive, {name}": y for name, y in naive.items()}
    return {name: math.sqrt(mse(values, actual, 1.0)) for name, values in forecasts.items()}


def main() -> None:
    """Runs the chosen mode."""
    options = parse_options(__doc__ or "", str(TAXI))
    shapes = EveryStepNetwork(1, 100, 2, 1).flow(torch.zeros(4, 7, 1))
    log_line("7 days, the shapes of the post: " + " -> ".join(map(str, shapes)))
    torch.set_num_threads(1)
    with print_result(options) as result:
        frame = read_series(options.data)
        if options.mode == "parity":
            values = frame["value"].to_numpy().astype(np.float32)
            result["rmse"] = parity(values, options.epochs or EPOCHS, options.seed)
        else:
            scores = honest(frame, replace(CONFIG, seed=options.seed, epochs=options.epochs or CONFIG.epochs))
            log_line(
                f"rmse on the last {HELD_OUT - 1}: " + ", ".join(f"{name} {rmse:.4g}" for name, rmse in scores.items())
            )
            result["rmse"] = scores["the model"]


if __name__ == "__main__":
    run_script(main)
