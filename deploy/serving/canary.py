"""The canary check of a new model file, in a process of its own: there it may crash, hang or exhaust memory safely."""

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

MEMORY_BYTES, CPU_S, TIMEOUT_S = 8 << 30, 60, 120
"""Limits of the canary process: address space, CPU time, wall-clock time."""
BATCH, ROUNDS = 64, 5
MAX_SLOWDOWN, FAST_ENOUGH_S = 8.0, 0.001
"""A model that takes this many times as long as the serving one is rejected, unless a batch takes at most this time."""


def rejection_reason(candidate: Path, serving: Path) -> str:
    """Why a model file must not replace the serving one; empty if it may."""
    command = [sys.executable, "-P", "-m", "deploy.serving.canary", str(candidate), str(serving)]
    try:
        canary = subprocess.run(  # noqa: S603 - this Python, our own module
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"its canary process did not finish within {TIMEOUT_S} s"
    if canary.returncode < 0:
        return f"its canary process was killed by signal {-canary.returncode}"
    lines = canary.stdout.splitlines() or canary.stderr.splitlines()
    if canary.returncode == 0:
        return ""
    return lines[-1] if lines else f"its canary process exited with {canary.returncode}"


def main(candidate: str, serving: str) -> int:
    """Compare a model file with the serving one, within limits; the reason for a rejection on stdout, and 1."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        candidate_model = load_onnx(Path(candidate), "the candidate", "cpu")
        serving_model = load_onnx(Path(serving), "the serving model", "cpu")
        reason = _check_outputs(candidate_model) or _check_speed(candidate_model, serving_model)
    except Exception as error:  # anything may go wrong with an untested model
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    if reason:
        print(reason)  # noqa: T201
    return 1 if reason else 0


def _check_outputs(candidate: Predictor) -> str:
    for size in (1, 7, BATCH):
        for outputs in candidate.predict(SyntheticInput(candidate, size)):
            if not np.isfinite(outputs).all():
                return "its output is not finite"
    return ""


def _check_speed(candidate: Predictor, serving: Predictor) -> str:
    models = (candidate, serving)
    inputs = [SyntheticInput(model) for model in models]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for model, batch, durations in zip(models, inputs, seconds, strict=True):
            start = time.perf_counter()
            list(model.predict(batch))
            durations.append(time.perf_counter() - start)
    candidate_s, serving_s = map(median, seconds)
    if candidate_s > max(MAX_SLOWDOWN * serving_s, FAST_ENOUGH_S):
        slowdown = f"{candidate_s / serving_s:.0f} times as long as the serving model"
        return f"a batch of {BATCH} takes {candidate_s * 1000:.1f} ms, {slowdown}"
    return ""


class SyntheticInput:
    """One batch of random model input: values from the ranges in the model's card, and ones."""

    def __init__(self, predictor: Predictor, size: int = BATCH) -> None:
        self._card, self._size = predictor.card, size

    def __len__(self) -> int:
        return self._size

    def arrays(self, start: int, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """The whole batch; `start` and `stop` are ignored."""
        return {name: self._array(name, array) for name, array in self._card.inputs.items()}

    def _array(self, name: str, array: Array) -> npt.NDArray[Any]:
        shape = [{"batch": self._size}.get(str(size), 3) if isinstance(size, str) else size for size in array.shape]
        if array.dtype != "float32" or not isinstance(self._card, Card):
            return np.ones(shape, array.dtype) * (3 if name == "lengths" else 1)
        ranges = [self._card.ranges.get(feature, (-1.0, 1.0)) for feature in self._card.input.features]
        low, high = np.array(ranges).T
        return np.random.default_rng(0).uniform(low, np.maximum(high, low), shape)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
