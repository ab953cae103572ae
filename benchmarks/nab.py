"""The Numenta Anomaly Benchmark: 58 files, the standard, low-FP and low-FN scores of our anomaly score.

    python benchmarks/nab.py ../shared/data/series/nab/corpus.zip          [--files]

The scorer is checked first: from the anomaly scores that the benchmark publishes for windowedGaussian it must get the
39.65 that the benchmark publishes. A score is 0 for a detector that finds nothing, 100 for a perfect one; one threshold
for all files, the best one, as in NAB.

Every file goes step by step through the class that serves. The forecasts that it needs are those of a ridge regression
on the last 24 values and the values a day before, fitted to the first 15 % (at most 750 rows), which NAB doesn't score;
the naive forecast is the value a day before. Nothing is set per file but the steps of a day, from the times.
"""

import argparse
import csv
import io
import json
import math
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.online.anomalies.anomalies import Anomalies
from model.online.tracks import TrackStore

Floats = npt.NDArray[np.float64]
PUBLISHED = 39.65
PROBATION, MOST_PROBATION = 0.15, 750
DAY_S = 86_400
LAGS, PENALTY, CLIPPED = 24, 1.0, 0.995


@dataclass
class File:
    """One file's values, and what each row is worth to a detector that reports it."""

    name: str
    times: Floats
    values: Floats
    windows: int
    worth: list[tuple[int, float] | None]
    """(window, its score) or (-1, minus the cost of a false alarm) by row; None: not scored."""
    scores: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def day(self) -> int:
        """Steps of a day."""
        return max(1, round(DAY_S / float(np.median(np.diff(self.times)))))


def sigmoid(x: float) -> float:
    """NAB's scaled sigmoid."""
    return -1.0 if x > 3 else 2 / (1 + math.exp(5 * x)) - 1


def probation(rows: int) -> int:
    """Rows that are learnt from, and not scored."""
    return min(math.floor(PROBATION * rows), MOST_PROBATION)


def worth(times: Floats, windows: list[tuple[int, int]]) -> list[tuple[int, float] | None]:
    """By row: within a window the earlier the better; behind one a false alarm costs more and more."""
    result: list[tuple[int, float] | None] = []
    inside = {row: at for at, (begin, end) in enumerate(windows) for row in range(begin, end + 1)}
    last: tuple[int, int] | None = None
    for row in range(len(times)):
        if row < probation(len(times)):
            result.append(None)
        elif row in inside:
            begin, end = windows[inside[row]]
            result.append((inside[row], sigmoid(-(end - row + 1) / (end - begin + 1)) / sigmoid(-1.0)))
        elif last is None:
            result.append((-1, -1.0))
        else:
            begin, end = last
            result.append((-1, sigmoid((row - end) / max(1, end - begin))))
        last = next((window for window in windows if window[1] == row), last)
    return result


def read(corpus: zipfile.ZipFile) -> list[File]:
    """All files, by name."""
    files = []
    for name, labelled in sorted(json.loads(corpus.read("labels/combined_windows.json")).items()):
        times, values = columns(corpus, f"data/{name}", "value")
        edges = [(seconds(begin), seconds(end)) for begin, end in labelled]
        rows = [np.flatnonzero((times >= begin) & (times <= end)) for begin, end in edges]
        windows = [(int(part[0]), int(part[-1])) for part in rows if len(part)]
        files.append(File(name, times, values, len(windows), worth(times, windows)))
    return files


def columns(corpus: zipfile.ZipFile, name: str, column: str) -> tuple[Floats, Floats]:
    """The times and a column of a CSV file."""
    rows = list(csv.DictReader(io.TextIOWrapper(corpus.open(name))))
    return np.array([seconds(row["timestamp"]) for row in rows]), np.array([float(row[column]) for row in rows])


def seconds(time: str) -> float:
    """NAB's times have no zone; here they are UTC."""
    return datetime.fromisoformat(time + "+00:00").timestamp()


def score(files: list[File], false_alarm: float, missed: float) -> tuple[float, float]:
    """NAB's score of the files' scores at the best threshold, and that threshold."""
    events, windows = [], 0
    for file in files:
        for value, once in zip(file.scores.tolist(), file.worth, strict=True):
            if once and value > 0:
                at, gain = once
                events.append((value, at + windows if at >= 0 else -1, gain if at >= 0 else gain * false_alarm))
        windows += file.windows
    events.sort(key=lambda event: -event[0])
    found: dict[int, float] = {}
    total, best, threshold = -missed * windows, -missed * windows, math.inf
    for at, (value, window, gain) in enumerate(events):
        if window < 0:
            total += gain
        elif gain > found.get(window, -missed):
            total += gain - found.get(window, -missed)
            found[window] = gain
        if total > best and (at + 1 == len(events) or events[at + 1][0] < value):
            best, threshold = total, value
    return 100 * (best + missed * windows) / (windows + missed * windows), threshold


def errors(file: File) -> tuple[Floats, Floats]:
    """Errors of the ridge regression's one-step forecasts, and of the value a day before; NaN where there is none."""
    values, rows, day = file.values, len(file.values), file.day
    learnt = probation(rows)
    lags = [*range(1, LAGS + 1), *((day - 1, day, day + 1) if learnt > 2 * day + LAGS + 50 else ())]
    first = max(lags) + 1
    past = np.stack([np.concatenate([np.full(lag, values[0]), values[:-lag]]) for lag in lags], 1)
    moves, inputs = values - past[:, 0], past[:, 1:] - past[:, :1]
    spread = values[:learnt].std() + 1e-9
    target = moves[first:learnt] / spread
    clip = np.quantile(np.abs(target), CLIPPED) + 1e-9
    seen = inputs[first:learnt] / spread
    weights = np.linalg.solve(seen.T @ seen + PENALTY * np.eye(seen.shape[1]), seen.T @ np.clip(target, -clip, clip))
    naive = np.concatenate([np.full(day, np.nan), values[day:] - values[:-day]])
    return moves - inputs @ weights, naive[:rows]


def stream(files: list[File]) -> None:
    """Score files with days of as many steps: each is a track of its own, whatever else is in a round."""
    anomalies = Anomalies(files[0].day)
    store = TrackStore(anomalies.fields, 1)
    rows = np.array([store.allocate() for _ in files])
    both = [errors(file) for file in files]
    for file in files:
        file.scores = np.zeros(len(file.values))
    for step in range(max(len(file.values) for file in files)):
        here = [at for at, file in enumerate(files) if step < len(file.values)]
        tracks = store.gather(rows[here])
        error, naive = (np.array([both[at][part][step] for at in here]) for part in range(2))
        values = np.array([files[at].values[step] for at in here])
        none, steps = np.full((len(here), 2), np.nan), np.full(len(here), step)
        scores, _ = anomalies.update(tracks, [len(here)], values, error, naive, none, steps, steps, steps * 0)
        store.scatter(rows[here], tracks)
        for at, value in zip(here, scores.tolist(), strict=True):
            files[at].scores[step] = value


def by_file(files: list[File], threshold: float) -> Iterator[str]:
    """A line for each file: its score at the threshold, its windows, its alarms outside of them."""
    for file in files:
        found: dict[int, float] = {}
        false = 0
        for value, once in zip(file.scores.tolist(), file.worth, strict=True):
            if once and value >= threshold:
                if once[0] < 0:
                    false += 1
                else:
                    found[once[0]] = max(found.get(once[0], -1.0), once[1])
        yield f"{file.name:60} {len(found)} of {file.windows} windows, {false} false alarms"


def main() -> None:
    """Check the scorer; print our scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--files", action="store_true", help="what is found in each file")
    options = parser.parse_args()
    with zipfile.ZipFile(options.corpus) as corpus:
        files = read(corpus)
        profiles = json.loads(corpus.read("config/profiles.json"))
        costs = {name: once["CostMatrix"] for name, once in profiles.items()}
        for file in files:
            folder, name = file.name.split("/")
            path = f"results/windowedGaussian/{folder}/windowedGaussian_{name}"
            file.scores = columns(corpus, path, "anomaly_score")[1]
    gaussian = score(files, costs["standard"]["fpWeight"], costs["standard"]["fnWeight"])[0]
    print(f"windowedGaussian, standard: {gaussian:.2f} (published: {PUBLISHED})")
    if round(gaussian, 2) != PUBLISHED:
        raise SystemExit("the scorer is wrong")
    groups: dict[int, list[File]] = defaultdict(list)
    for file in files:
        groups[file.day].append(file)
    for group in groups.values():
        stream(group)
    for name, cost in costs.items():
        ours, threshold = score(files, cost["fpWeight"], cost["fnWeight"])
        print(f"ours, {name}: {ours:.1f} at a threshold of {threshold:.3f}")
        if name == "standard" and options.files:
            print(*by_file(files, threshold), sep="\n")


if __name__ == "__main__":
    main()
