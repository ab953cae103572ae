"""The canary check of a new model, in a process of its own: there it may crash, hang or exhaust memory safely.

The process is isolated: Tidecast's four packages are those of this process, everything else is from where Python is
installed, or last from where this process has it; nothing is from the working folder, and PYTHONPATH is ignored.
"""

import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from deploy.models.loading import load_bytes
from deploy.models.predictor import Predictor, first_line
from deploy.models.synthetic import BATCH, SyntheticInput
from tidecast.errors import ModelUnavailable

MEMORY_BYTES, CPU_S, TIMEOUT_S = 8 << 30, 60, 120
"""Limits of the canary process: address space, CPU time, wall-clock time."""
ROUNDS = 5
MAX_SLOWDOWN, FAST_ENOUGH_S = 8.0, 0.1
"""A model that takes this many times as long as the serving one is rejected, unless a batch takes at most this time, as
one of any blend does: beside a naive champion each is slow, and a refusal holds for every group."""
CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGXCPU)
"""Signals that a process brings on itself; any other came from outside."""
ATTEMPTS = 2
"""A model is rejected for a crash only if it crashes every time."""
OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "bad allocation", "Failed to allocate memory")
OURS = ("tidecast", "pipeline", "model", "deploy")
OTHERS = ("filelock", "google.protobuf", "ml_dtypes", "msgspec", "numpy", "onnx", "onnxruntime")
START = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
from os.path import dirname
count = int(sys.argv[1])
sys.path += sys.argv[2 + 2 * count:]
for name, file in zip(sys.argv[2:2 + count], sys.argv[2 + count:2 + 2 * count]):
    spec = spec_from_file_location(name, file, submodule_search_locations=[dirname(file)])
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
from deploy.models.canary import main
main()
"""


class Question(msgspec.Struct, array_like=True):
    """What a canary process reads: the two files."""

    candidate: bytes
    serving: bytes | None


class Answer(msgspec.Struct):
    """What it writes: why the candidate must not serve; empty if it may."""

    reason: str


def rejection_reason(candidate: bytes, serving: bytes | None) -> str:
    """Why a model file must not replace the serving one, or serve if there is none; empty if it may.

    Raises ModelUnavailable if that can't be said now: the process was killed, was too slow, or could not run.
    """
    crash = ""
    for _ in range(ATTEMPTS):
        ended = _run(msgspec.msgpack.encode(Question(candidate, serving)))
        with suppress(msgspec.DecodeError, IndexError):
            return msgspec.json.decode(ended.stdout.splitlines()[-1], type=Answer).reason
        if -ended.returncode not in CRASHES:
            break
        crash = f"its canary process crashed: {signal.Signals(-ended.returncode).name}"
    else:
        return crash
    lines = list(filter(None, map(str.strip, ended.stderr.decode(errors="replace").splitlines())))
    how = f"killed by {signal.Signals(-ended.returncode).name}" if ended.returncode < 0 else f"{ended.returncode}"
    raise ModelUnavailable(f"its canary process ended without an answer: {lines[-1] if lines else how}")


def _run(question: bytes) -> "subprocess.CompletedProcess[bytes]":
    specs = [find_spec(name) for name in OURS]
    files = [str(spec.origin) for spec in specs if spec]
    folders = {str(Path(place).parents[name.count(".")]) for name in OTHERS if (place := _folder(name))}
    command = [sys.executable, "-I", "-c", START, str(len(OURS)), *OURS, *files, *sorted(folders)]
    try:
        return subprocess.run(  # noqa: S603 - this Python, our own module
            command, input=question, capture_output=True, timeout=TIMEOUT_S, check=False, cwd="/"
        )
    except subprocess.TimeoutExpired:
        raise ModelUnavailable(f"its canary process did not finish within {TIMEOUT_S} s") from None
    except OSError as error:
        raise ModelUnavailable(f"its canary process did not start: {error.strerror}") from None


def _folder(package: str) -> str:
    spec = find_spec(package)
    return next(iter(spec.submodule_search_locations or ()), "") if spec else ""


def main() -> None:
    """Answer the question on stdin, within limits. Without memory for it, where we do not set the limit, no answer."""
    ours = [
        _limit(resource.RLIMIT_AS, MEMORY_BYTES),
        _limit(resource.RLIMIT_CPU, CPU_S),
        _limit(resource.RLIMIT_FSIZE, 0),
    ]
    question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Question)
    serving = None if question.serving is None else load_bytes(question.serving, "the serving model", "cpu")
    try:
        candidate = load_bytes(question.candidate, "the candidate", "cpu")
        reason = wrong_outputs(candidate) or (_check_speed(candidate, serving) if serving else "")
    except OSError:  # of this process, not of the model
        raise
    except Exception as error:  # anything may go wrong with an untested model
        reason = first_line(error)
        if not all(ours) and any(sign in f"{type(error).__name__} {error}" for sign in OUT_OF_MEMORY):
            raise
    sys.stdout.write(msgspec.json.encode(Answer(reason)).decode())


def _limit(what: int, most: int) -> bool:
    """Set a limit of this process; False if a lower one is there already."""
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY and hard < most:
        return False
    resource.setrlimit(what, (most, hard))
    return True


def wrong_outputs(candidate: Predictor) -> str:
    """Why a model must not serve, by its outputs for made-up inputs; empty if it may. Raises what the model raises."""
    for size in (1, 7, BATCH):
        for outputs in candidate.predict(SyntheticInput(candidate.card, size)):
            if not np.isfinite(outputs).all():
                return "its output is not finite"
    return ""


def _check_speed(candidate: Predictor, serving: Predictor) -> str:
    """Compare the models' CPU time: on a busy machine any process takes long."""
    models = (candidate, serving)
    inputs = [SyntheticInput(model.card) for model in models]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for model, batch, durations in zip(models, inputs, seconds, strict=True):
            start = time.thread_time()
            list(model.predict(batch))
            durations.append(time.thread_time() - start)
    candidate_s, serving_s = map(median, seconds)
    if candidate_s > max(MAX_SLOWDOWN * serving_s, FAST_ENOUGH_S):
        slowdown = f"{candidate_s / serving_s:.0f} times as long as the serving model"
        return f"a batch of {BATCH} takes {candidate_s * 1000:.1f} ms, {slowdown}"
    return ""
