"""A first try of a model file, in a process of its own: there it may crash, hang or eat memory, and harm nobody."""

import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.serving.model_loading import load_onnx
from deploy.serving.predictor import Predictor
from model.card import Array, Card

MEMORY, CPU_S, WALL_S = 8 << 30, 60, 120
"""What a try may use: bytes of address space, seconds of a processor, seconds."""
BATCH, ROUNDS = 64, 5
SLOWER, FAST_ENOUGH_S = 8.0, 0.001
"""A model that takes so many times as long as the one that serves is refused, unless a batch is answered that fast."""


def refusal(candidate: Path, serving: Path) -> str:
    """Why a file can't take over from another; empty if it can."""
    command = [sys.executable, "-P", "-m", "deploy.serving.canary", str(candidate), str(serving)]
    try:
        tried = subprocess.run(  # noqa: S603 - this Python, our own module
            command, capture_output=True, text=True, timeout=WALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it had not answered after {WALL_S} s"
    if tried.returncode < 0:
        return f"the process that tried it ended by signal {-tried.returncode}"
    lines = tried.stdout.splitlines() or tried.stderr.splitlines()
    return "" if tried.returncode == 0 else lines[-1] if lines else f"it ended with {tried.returncode}"


def main(candidate: str, serving: str) -> int:
    """Try a file beside the one that serves, within limits; what is wrong on stdout, and 1."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        wrong = _wrong(load_onnx(Path(candidate), "it", "cpu"), load_onnx(Path(serving), "the one that serves", "cpu"))
    except Exception as error:  # this is where it may go wrong
        wrong = (str(error).splitlines() or [type(error).__name__])[0]
    if wrong:
        print(wrong)  # noqa: T201
    return 1 if wrong else 0


def _wrong(candidate: Predictor, serving: Predictor) -> str:
    rows = SyntheticInput(candidate)
    for size in (1, 7, BATCH):
        for given in candidate.predict(SyntheticInput(candidate, size)):
            if not np.isfinite(given).all():
                return "its output is not finite"
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for predictor in (candidate, serving):
            begun = time.perf_counter()
            list(predictor.predict(rows if predictor is candidate else SyntheticInput(serving)))
            times.setdefault(predictor.label, []).append(time.perf_counter() - begun)
    mine, theirs = (median(times[predictor.label]) for predictor in (candidate, serving))
    if mine > max(SLOWER * theirs, FAST_ENOUGH_S):
        return f"{BATCH} of its answers take {mine * 1000:.1f} ms, {mine / theirs:.0f} times as long as now"
    return ""


class SyntheticInput:
    """Inputs made up for a model: values from the ranges it has learned from, and ones."""

    def __init__(self, predictor: Predictor, size: int = BATCH) -> None:
        self._card, self._size = predictor.card, size

    def __len__(self) -> int:
        return self._size

    def arrays(self, start: int, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """All of it, however much of it is asked for: it is one batch."""
        return {name: self._array(name, array) for name, array in self._card.inputs.items()}

    def _array(self, name: str, array: Array) -> npt.NDArray[Any]:
        shape = [{"batch": self._size}.get(str(size), 3) if isinstance(size, str) else size for size in array.shape]
        if array.dtype != "float32" or not isinstance(self._card, Card):
            return np.ones(shape, array.dtype) * (3 if name == "lengths" else 1)
        ranges = [self._card.ranges.get(feature, (-1.0, 1.0)) for feature in self._card.input.features]
        low, high = np.array(ranges).T
        return np.random.default_rng(0).uniform(low, np.maximum(high, low), shape).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
