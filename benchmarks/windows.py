"""The speed and the memory of windows: points a second that a store takes by arrays and one by one, windows a second of
its own and of training's, and what a series takes in memory.

    python benchmarks/windows.py          [--series 10000] [--rounds 5] [--memory 1000,100000,1000000] [--json]

Seconds are those of the processor, of one core. Values are decimals of two digits, as a sensor has them; those of
`--values full` have all digits of a float64.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.formats.events import Event
from pipeline.windows.grid import Floats, Ints, WindowConfig
from pipeline.windows.sliding import sliding_windows
from pipeline.windows.streaming import WindowStore

SEQ_LEN, MINUTE, START = 96, 60_000, 1_700_000_040_000
CONFIG = WindowConfig(seq_len=SEQ_LEN, freq="1m")
POINTS = 200_000
"""Points of a round, at least."""


class Fleet:
    """So many series, one point of each a minute."""

    def __init__(self, series: int, digits: int | None) -> None:
        self.names = [f"sensor-{number:06d}" for number in range(series)]
        self._digits, self._minute, self._random = digits, 0, np.random.default_rng(1)

    def begin(self) -> None:
        """Begin again with the first minute."""
        self._minute = 0

    def minute(self) -> tuple[list[str], Ints, Floats, Ints]:
        """The next minute, as push_many takes it."""
        count = len(self.names)
        ts = START + self._minute * MINUTE + self._random.integers(0, MINUTE // 2, count)
        values = self._random.normal(20, 5, (count, 1))
        first, self._minute = self._minute * count, self._minute + 1
        values = values if self._digits is None else np.round(values, self._digits)
        return self.names, ts, values, np.arange(first, first + count)


def filled(fleet: Fleet) -> WindowStore:
    """A store in which every window is full."""
    store = WindowStore(CONFIG, limit=len(fleet.names))
    for _ in range(SEQ_LEN):
        store.push_many(*fleet.minute())
        store.take()
    return store


def by_arrays(store: WindowStore, fleet: Fleet, rounds: int) -> float:
    """Points a second, each with its window."""
    return _speed(store, fleet, rounds, store.push_many)


def one_by_one(store: WindowStore, fleet: Fleet, rounds: int) -> float:
    """Points a second, each with its window."""

    def push(names: list[str], ts: Ints, values: Floats, offsets: Ints) -> None:
        for name, at, (value,), offset in zip(names, ts.tolist(), values.tolist(), offsets.tolist(), strict=True):
            store.push(Event(name, at, (value,)), offset)

    return _speed(store, fleet, rounds, push)


def _speed(store: WindowStore, fleet: Fleet, rounds: int, push: Callable[..., object]) -> float:
    speeds, count = [], len(fleet.names)
    for _ in range(rounds):
        minutes = [fleet.minute() for _ in range(-(-POINTS // count))]
        began = time.process_time()
        for minute in minutes:
            push(*minute)
            windows = store.take()
            assert len(windows) == count
        speeds.append(len(minutes) * count / (time.process_time() - began))
    return median(speeds)


def of_training(fleet: Fleet, rounds: int) -> float:
    """Windows a second of a history, laid out and copied."""
    minutes = [fleet.minute() for _ in range(SEQ_LEN + POINTS // len(fleet.names))]
    names = [name for each, _, _, _ in minutes for name in each]
    ts, values = np.concatenate([each[1] for each in minutes]), np.concatenate([each[2] for each in minutes])
    speeds = []
    for _ in range(rounds):
        began = time.process_time()
        windows = sliding_windows(names, ts, values, CONFIG)
        for start in range(0, len(windows), 4096):
            windows.x(windows.ends[start : start + 4096])
        speeds.append(len(windows) / (time.process_time() - began))
    return median(speeds)


def bytes_a_series(series: int, digits: int | None) -> float:
    """What a store's full windows add to this process, by series: arrays, names and all."""
    filled(Fleet(1000, digits))
    before = resident()
    store, fleet = WindowStore(CONFIG, limit=series), Fleet(0, digits)
    for start in range(0, series, 1000):
        fleet.names = [f"sensor-{number:06d}" for number in range(start, min(start + 1000, series))]
        fleet.begin()
        for _ in range(SEQ_LEN):
            store.push_many(*fleet.minute())
            store.take()
    fleet.names = []
    return (resident() - before) / len(store)


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """All of it; with --json as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--memory", default="1000,100000,1000000", help="numbers of series; each in a process of its own"
    )
    parser.add_argument("--values", choices=("decimals", "full"), default="decimals")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bytes-of", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    digits = 2 if asked.values == "decimals" else None
    if asked.bytes_of:
        print(bytes_a_series(asked.bytes_of, digits))
        return
    fleet = Fleet(asked.series, digits)
    store = filled(fleet)
    found = {
        "points_per_s_by_arrays": by_arrays(store, fleet, asked.rounds),
        "points_per_s_one_by_one": one_by_one(store, fleet, asked.rounds),
        "training_windows_per_s": of_training(Fleet(asked.series, digits), asked.rounds),
    }
    for count in filter(None, asked.memory.split(",")):
        command = [sys.executable, __file__, "--bytes-of", count, "--values", asked.values]
        found[f"bytes_a_series_at_{count}"] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if asked.json:
        print(json.dumps({name: round(value, 1) for name, value in found.items()}))
    else:
        for name, value in found.items():
            print(f"{value:14,.0f}  {name.replace('_', ' ')}")


if __name__ == "__main__":
    main()
