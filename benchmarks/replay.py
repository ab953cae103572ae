"""The time machine's speed: `tidecast replay` on a million points, beside onnxruntime alone on the same windows.

    python benchmarks/replay.py model.onnx measurements.csv          [--points 1000000] [--rounds 3]

The measurements, of one series, are repeated to so many points and written to a Parquet archive. Windows a second: ours
from the command's start to its end, reading, scoring and drawing included, and while it forecasts; onnxruntime's with
the windows in memory and nothing done with what it gives, in the fastest of several ways to use all cores.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort
import polars as pl
from serving import ROOT, TIDECAST, say

from deploy.evaluation.comparison import WindowRows
from deploy.models.loading import load_onnx
from deploy.settings.serve import window_config
from model.card import Card
from model.evaluation.splits import complete_ends
from pipeline.datasets.columns import Columns
from pipeline.datasets.history import History, from_frame, windows
from pipeline.datasets.measurements import read_file

SAMPLE = 100_000
"""Windows, at most, that onnxruntime alone is timed on."""


def repeated(data: Path, points: int) -> pl.DataFrame:
    """A file's series again and again, to so many points."""
    frame = read_file(str(data), Columns()).frame.sort("ts")
    step = frame["ts"].diff().mode()[0]
    times = -(-points // len(frame))
    once = frame["value"].to_numpy()
    ts = frame["ts"][0] + step * np.arange(points)
    return pl.DataFrame({"series": frame["series"][0], "ts": ts, "value": np.tile(once, times)[:points]})


def ours(model: Path, archive: Path) -> tuple[float, float]:
    """Windows a second of the whole command, and while it forecasts."""
    command = [*TIDECAST, "replay", "--data", str(archive), "--model", str(model), "--json"]
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=archive.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    (facts,) = found["models"].values()
    return found["windows"] / (time.monotonic() - began), facts["windows_per_s"]


def alone(model: Path, history: History) -> float:
    """Windows a second of onnxruntime, in the fastest of several ways."""
    predictor = load_onnx(model, "alone", "cpu")
    assert isinstance(predictor.card, Card)
    data = windows(history, window_config(predictor.card.input))
    rows = WindowRows(data, complete_ends(data, predictor.card.output.horizon)[:SAMPLE])
    speeds = {}
    for size in (256, 1024):
        parts = [rows.arrays(start, start + size) for start in range(0, len(rows), size)]
        feeds = [{name: part[name] for name in predictor.card.inputs} for part in parts]
        for threads in {1, os.cpu_count() or 1}:
            options = ort.SessionOptions()
            options.intra_op_num_threads = (os.cpu_count() or 1) // threads
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            speeds[size, threads] = len(rows) / timed(lambda feed: session.run(None, feed), feeds, threads)  # noqa: B023
    (size, threads), speed = max(speeds.items(), key=lambda each: each[1])
    say(f"onnxruntime alone: {speed:,.0f} windows/s, {size} at once, {threads} calls side by side")
    return speed


def timed(run: Callable[[dict[str, np.ndarray]], object], feeds: list[dict[str, np.ndarray]], threads: int) -> float:
    """Seconds for all of them."""
    run(feeds[0])
    with ThreadPoolExecutor(threads) as pool:
        began = time.monotonic()
        for _ in pool.map(run, feeds):
            pass
        return time.monotonic() - began


def main() -> None:
    """In turn, round after round; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    frame = repeated(asked.data, asked.points)
    found: dict[str, list[float]] = {"command": [], "forecasting": [], "onnxruntime": []}
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive.parquet"
        frame.write_parquet(archive)
        for _ in range(asked.rounds):
            found["onnxruntime"].append(alone(asked.model, from_frame(frame)))
            for name, speed in zip(("command", "forecasting"), ours(asked.model.resolve(), archive), strict=True):
                found[name].append(speed)
            say(", ".join(f"{name} {speeds[-1]:,.0f} windows/s" for name, speeds in found.items()))
    medians = {name: median(speeds) for name, speeds in found.items()}
    ratios = {f"{name} to onnxruntime": medians[name] / medians["onnxruntime"] for name in ("command", "forecasting")}
    print(json.dumps({name: round(value, 3) for name, value in (medians | ratios).items()}))


if __name__ == "__main__":
    main()
