"""Time to accuracy: how soon our training is as good as neuralforecast's LSTM and darts' BlockRNN get, and they when.

    python benchmarks/training.py ETTh1.csv --rivals ~/rivals/bin/python

`--rivals` is a Python that has neuralforecast and darts. Everybody gets the same column, the same parts to train and
validate on, look-back and horizon, and two cores; in turn, round after round. Theirs have their defaults. Errors are
mean squares in z-scores over all validation windows, seconds from the beginning of the fit.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from model.card import InputSpec, OutputSpec
from model.evaluation.splits import Cuts
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import fit
from model.training.loop import Epoch
from pipeline.windows.grid import WindowConfig
from pipeline.windows.sliding import sliding_windows

TRAINED, VALIDATED = 8640, 2880
Curve = list[tuple[float, float]]
"""Seconds, and the validation error then."""


def ours(values: np.ndarray, times: np.ndarray, look_back: int, horizon: int) -> Curve:
    """The default recipe's first network, epoch by epoch; the others only make it better."""
    config = WindowConfig(seq_len=look_back, freq="1h")
    data = sliding_windows(["OT"] * len(values), times, values[:, None], config)
    seen: Curve = []
    began = time.monotonic()

    def note(done: int, total: int, history: list[Epoch]) -> None:
        if len(history) > len(seen):
            seen.append((time.monotonic() - began, history[-1].validation_loss))

    inputs, outputs = InputSpec(seq_len=look_back, freq="1h"), OutputSpec(horizon=horizon)
    fit(data, inputs, outputs, ForecastConfig(arch="segment"), "OT", note, Cuts(int(times[TRAINED])))
    return seen


def theirs(python: str, who: str, table: Path, look_back: int, horizon: int) -> tuple[Curve, float]:
    """A rival's curve, and the seconds of its whole fit."""
    script = Path(__file__).with_name("rival_training.py")
    numbers = map(str, (TRAINED, VALIDATED, look_back, horizon))
    done = subprocess.run([python, script, who, table, *numbers], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return [(float(at), float(error)) for at, error in found["seen"]], float(found["seconds"])


def until(curve: Curve, error: float) -> float:
    """When a curve is first as good; infinite if it never is."""
    return next((at for at, reached in curve if reached <= error), float("inf"))


def main() -> None:
    """Measure, and print a line a rival."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rivals", required=True, help="a Python with neuralforecast and darts")
    parser.add_argument("--column", default="OT")
    parser.add_argument("--look-back", type=int, default=96)
    parser.add_argument("--horizon", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    known = pl.read_csv(given.data, try_parse_dates=True)[: TRAINED + VALIDATED]
    raw, moments = known[given.column].to_numpy(), known["date"].dt.epoch("ms").to_numpy()
    z = (raw - raw[:TRAINED].mean()) / raw[:TRAINED].std()
    with TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        pl.DataFrame({"ds": known["date"], "y": z}).write_csv(table)
        for who in ("neuralforecast", "darts"):
            ratios = []
            for number in range(given.rounds):
                curve, whole = theirs(given.rivals, who, table, given.look_back, given.horizon)
                best = min(error for _, error in curve)
                mine = ours(z, moments, given.look_back, given.horizon)
                reached = until(mine, best)
                ratios.append(whole / reached)
                print(
                    f"{who}, round {number + 1}: best {best:.4f} after {until(curve, best):.1f} s of {whole:.1f} s; "
                    f"ours as good after {reached:.1f} s, best {min(error for _, error in mine):.4f}",
                    flush=True,
                )
            print(f"{who}: its fit takes {median(ratios):.1f} times as long as ours to its error", flush=True)


if __name__ == "__main__":
    main()
