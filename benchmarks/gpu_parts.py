"""What gpu.py tries on a GPU, part by part. `device` is cuda, or in tests cpu: then the CPU is compared with itself."""

import contextlib
import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from serving import Bench, broker
from swaps import TOPIC, newest, resident, swapped
from torch import nn

from deploy.data import read_measurements
from deploy.models.loading import load_onnx
from deploy.settings.serve import window_config
from model.artifacts.export import export
from model.card import AnyCard, Array, InputSpec, OutputSpec
from model.networks.forecast import build_network
from model.networks.text import build_classifier, build_next_token
from model.training.classification import ClassifyConfig, classifier_card
from model.training.forecast_config import ForecastConfig, forecast_card
from model.training.forecasting import fit
from model.training.loop import supports_bf16
from model.training.next_token import NextTokenConfig, next_token_card
from pipeline.datasets.columns import Columns
from pipeline.datasets.history import from_frame, windows
from pipeline.datasets.tables import read_table
from pipeline.log.connect import connect
from pipeline.windows.sliding import SlidingWindows

TOLERANCE = 1e-5
"""The greatest difference between GPU and CPU, relative to the greatest value of an output."""
SIZES = (1, 7, 64, 300)
BATCHES, WIDTHS = (1, 16, 64, 256, 2048), (64, 256, 512)
SWAPS, SETTLED = 20, 4
"""How often the model is swapped, and after how many swaps memory must not grow any more."""
LEFT_MIB = 32.0
"""What memory may differ by without being a leak."""
RECORDS = 100_000
WORSE = 1.25
"""How many times the CPU's validation error a training may have: few epochs differ by their random numbers."""
INPUTS, OUTPUTS = InputSpec(seq_len=96, freq="1h"), OutputSpec(horizon=24)
TAXI, TAXI_OUT = InputSpec(seq_len=336, freq="30m"), OutputSpec(horizon=48)
Feed = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is tried: the device, and an empty folder."""

    device: Literal["cuda", "cpu"]
    folder: Path


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a part's table; `wrong` says what must not be so."""

    cells: tuple[str, ...]
    wrong: str = ""


def machine(place: Place) -> Iterator[Row]:
    """What it is tried on."""
    yield Row(("day", time.strftime("%Y-%m-%d")))
    yield Row(("Python, processor", f"{platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"))
    yield Row(("torch, onnxruntime", f"{torch.__version__}, {ort.__version__}"))
    if place.device == "cuda":
        gpu, (_, total) = torch.cuda.get_device_name(), torch.cuda.mem_get_info()
        yield Row(("GPU, driver", f"{gpu}, {total / 2**30:.0f} GiB, {_driver()}"))
        yield Row(("torch's CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}"))  # type: ignore[no-untyped-call]


def _driver() -> str:
    program = shutil.which("nvidia-smi")
    command = [str(program), "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False) if program else None
    return found.stdout.split("\n")[0].strip() if found and found.returncode == 0 else "unknown"


def parity(place: Place) -> Iterator[Row]:
    """Every kind of model, with weights from random numbers, on both devices."""
    for kind, model, card in _kinds():
        path = _exported(model, card, place.folder / f"{kind}.onnx")
        ours, theirs = (load_onnx(path, kind, device).session for device in (place.device, "cpu"))
        feeds = [_feed(card, size) for size in SIZES]
        worst = max(_difference(ours.run(None, feed), theirs.run(None, feed)) for feed in feeds)
        yield Row((kind, f"{worst:.1e}"), "" if worst <= TOLERANCE else f"{kind} differs by {worst:.1e}")
    auto = load_onnx(path, "auto", "auto")
    wrong = "" if auto.device == place.device else f"auto is {auto.device}: {auto.device_reason}"
    yield Row(("--device auto", f"{auto.device}: {auto.device_reason}"), wrong)


def _kinds() -> Iterator[tuple[str, nn.Module, AnyCard]]:
    """Each kind of model, as large as it is by default."""
    torch.manual_seed(0)
    for arch in ("blend", "segment", "lstm"):
        card = forecast_card(INPUTS, OUTPUTS, ForecastConfig(arch=arch), arch, span=3000, windows=2000)
        yield arch, build_network(card), card
    labels = classifier_card(("a", "b", "c"), {}, 1000, ClassifyConfig(), "classifier")
    yield "classifier", build_classifier(labels), labels
    text = next_token_card({}, 60, NextTokenConfig(), "next_token")
    yield "next_token", build_next_token(text), text


def _exported(model: nn.Module, card: AnyCard, path: Path) -> Path:
    """A model's file, none of its weights zero."""
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.05)
    export(model, card, path)
    return path


def _feed(card: AnyCard, size: int, steps: int = 24) -> Feed:
    """Inputs from random numbers: so many rows, of texts up to so many tokens."""
    numbers = np.random.default_rng(size)
    return {name: _array(name, array, card, size, steps, numbers) for name, array in card.inputs.items()}


def _array(
    name: str, array: Array, card: AnyCard, size: int, steps: int, numbers: np.random.Generator
) -> npt.NDArray[Any]:
    shape = [{"batch": size, "steps": steps}[each] if isinstance(each, str) else each for each in array.shape]
    if array.dtype == "float32":
        made = numbers.normal(100, 20, shape) if name == "x" else numbers.normal(0, 1, shape)
        return made.astype(np.float32)
    least, end = {"lengths": (1, steps + 1), "step": (0, 500_000)}.get(name, (1, getattr(card, "tokens", 2)))
    return numbers.integers(least, end, shape)


def _difference(ours: list[npt.NDArray[Any]], theirs: list[npt.NDArray[Any]]) -> float:
    """The greatest of any output, relative to its greatest value."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


def swaps(place: Place) -> Iterator[Row]:
    """A service on the SQLite log, whose model is swapped beside a shadow, and the memory it takes."""
    before = _used_mib() if place.device == "cuda" else 0.0
    memory, made = swapped(
        place.folder,
        SWAPS,
        ("--device", place.device, "--shadow", "m/2"),
        resident if place.device == "cpu" else lambda _: _used_mib(),
    )
    device, count = str(made["device"]), round(made["swaps"])
    yield Row(("served on", device), "" if device == place.device else f"the service ran on {device}")
    yield Row(("swaps", str(count)), "" if count == SWAPS else f"{count} swaps, not {SWAPS}")
    with contextlib.closing(connect(f"sqlite:{place.folder}/log.db")) as log:
        shadow = newest(log, f"{TOPIC}-forecasts-shadow")
    yield Row(("answers of the shadow", shadow or "none"), "" if shadow == "m/2" else "the shadow did not answer")
    settled, most = memory[SETTLED], max(memory[SETTLED + 1 :])
    words = f"{memory[0]:.0f}, {settled:.0f}, {most:.0f}"
    wrong = "" if most - settled <= LEFT_MIB else f"memory grew by {most - settled:.0f} MiB"
    yield Row((f"MiB: first model, after {SETTLED} swaps, most after those", words), wrong)
    if place.device == "cuda":
        left = _used_mib() - before
        wrong = "" if left <= LEFT_MIB else f"the service left {left:.0f} MiB behind"
        yield Row(("MiB left when it has ended", f"{left:.0f}"), wrong)


def _used_mib() -> float:
    """Of the whole GPU."""
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20


def serving(place: Place) -> Iterator[Row]:
    """Records a second of `tidecast serve`, on Kafka if there is one, by the width of a model."""
    with contextlib.ExitStack() as stack:
        kafka = "KAFKA_HOME" in os.environ
        bootstrap = stack.enter_context(broker()) if kafka else f"sqlite:{place.folder}/serving.db"
        log = stack.enter_context(contextlib.closing(connect(bootstrap)))
        bench = Bench(log, bootstrap, RECORDS)
        bench.fill()
        for width in WIDTHS[:2]:
            path = _segment(place.folder, width)
            speeds = [replace(bench, device=device).tidecast(path) for device in ("cpu", place.device)]
            yield Row(("Kafka" if kafka else "SQLite", str(width), *_compared(*speeds)))


def inference(place: Place) -> Iterator[Row]:
    """Windows a second of a session, without the service, by batch and width."""
    for width in WIDTHS:
        path = _segment(place.folder, width)
        card = load_onnx(path, "m", "cpu").card
        sessions = [load_onnx(path, "m", device).session for device in ("cpu", place.device)]
        for batch in BATCHES:
            feed = _feed(card, batch)
            yield Row((str(width), str(batch), *_compared(*(batch * _runs_per_s(each, feed) for each in sessions))))


def _segment(folder: Path, width: int) -> Path:
    path = folder / f"segment-{width}.onnx"
    if not path.is_file():
        minutes = InputSpec(seq_len=INPUTS.seq_len, freq="1m")  # as benchmarks/serving.py sends them
        card = forecast_card(minutes, OUTPUTS, ForecastConfig(arch="segment", hidden=width), "segment")
        _exported(build_network(card), card, path)
    return path


def _runs_per_s(session: ort.InferenceSession, feed: Mapping[str, npt.NDArray[Any]], seconds: float = 0.5) -> float:
    """After two that are not counted: kernels are chosen and memory is taken in them."""
    for _ in range(2):
        session.run(None, dict(feed))
    runs, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        session.run(None, dict(feed))
        runs += 1
    return runs / passed


def _compared(cpu: float, gpu: float) -> tuple[str, str, str]:
    return f"{cpu:,.0f}", f"{gpu:,.0f}", f"{gpu / cpu:.2f}"


def training(place: Place) -> Iterator[Row]:
    """A few epochs of a segment LSTM on New York's taxi rides, narrow and wide, without bfloat16 and with it."""
    data = _taxi()
    if place.device == "cuda":  # what starting CUDA costs is not an epoch's
        fit(data, TAXI, TAXI_OUT, ForecastConfig(arch="segment", epochs=1, epoch_windows=64, device="cuda"), "m")
    for width, batch, threads in ((64, 64, 1), (256, 256, min(8, os.cpu_count() or 1))):
        cpu = ForecastConfig(arch="segment", hidden=width, batch=batch, epochs=3, device="cpu", threads=threads)
        yield (first := _trained(data, cpu))
        gpu, limit = replace(cpu, device=place.device), WORSE * float(first.cells[-1])
        yield _trained(data, gpu, limit)
        if place.device == "cuda" or supports_bf16():
            yield _trained(data, replace(gpu, bf16=True), limit)


def _trained(data: SlidingWindows, config: ForecastConfig, limit: float = math.inf) -> Row:
    """How long a training takes, and the validation error it comes to, which must not be above a limit."""
    begun = time.perf_counter()
    error = fit(data, TAXI, TAXI_OUT, config, "m").card.metrics["validation_mse"]
    seconds = f"{time.perf_counter() - begun:.1f}"
    cells = (str(config.hidden), str(config.batch), config.device, "yes" if config.bf16 else "no", seconds)
    return Row((*cells, f"{error:.3f}"), "" if error <= limit else f"the error is {error:.3f}, past {limit:.3f}")


def _taxi() -> SlidingWindows:
    with as_file(files("deploy") / "demo" / "data" / "nyc_taxi.csv") as path:
        history = from_frame(read_measurements(read_table(str(path)), Columns(), "30m", "nyc_taxi").frame)
    return windows(history, window_config(TAXI))
