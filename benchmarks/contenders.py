"""Who is measured by bench.py: Tidecast in its variants, onnxruntime alone, and the same job in other hands."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import onnxruntime as ort
from serving import ROOT, TIDECAST, Bench, last_json, running, say, seq_len

UNGRADED = ("--coverage", "off", "--score-every", "off", "--no-alerts")
"""No scores, intervals or alerts: the others have none."""
ALL = ("--workers", "auto")
FAST, SLOW = ("--client", "librdkafka"), ("--client", "kafka-python")
BATCH, ALONE_S = 256, 3.0
FOR_EVER = 10**9
"""Records after which a peer ends that is to run on."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the job."""

    speed: Callable[[Bench, Path], float]
    """Records a second of a model on a filled topic; of onnxruntime alone windows a second."""
    command: Callable[[Bench, Path, str], list[str]] | None = None
    """The same into that output topic, without an end."""


def ours(*options: str, guarantee: str = "at-least-once") -> Contender:
    """Tidecast with these options."""

    def command(bench: Bench, model: Path, output: str) -> list[str]:
        return [*bench.serve(model, output), "--guarantee", guarantee, *options]

    return Contender(lambda bench, model: bench.tidecast(model, guarantee, options), command)


def tidecast() -> dict[str, Contender]:
    """Ours, the best first; what this version has no options for is left out, and said to be."""
    variants: dict[str, tuple[tuple[str, ...], str]] = {
        "Tidecast": ((*FAST, *ALL, *UNGRADED), "at-least-once"),
        "Tidecast, one process": ((*FAST, *UNGRADED), "at-least-once"),
        "Tidecast, with scores and intervals": ((*FAST, *ALL), "at-least-once"),
        "Tidecast, exactly once": ((*FAST, *ALL, *UNGRADED), "exactly-once"),
        "Tidecast, kafka-python": ((*SLOW, *ALL, *UNGRADED), "at-least-once"),
        "Tidecast, kafka-python, one process": ((*SLOW, *UNGRADED), "at-least-once"),
    }
    known: dict[tuple[tuple[str, ...], str], str] = {}
    for name, (options, guarantee) in variants.items():
        known.setdefault((supported(options), guarantee), name)
    if lost := [name for name in variants if name not in known.values()]:
        say(f"this version of tidecast serve has no options for {'; '.join(lost)}: left out")
    return {name: ours(*options, guarantee=guarantee) for (options, guarantee), name in known.items()}


def supported(options: Sequence[str]) -> tuple[str, ...]:
    """These options, without --client and --workers where this version of `tidecast serve` has none."""
    lacking = {FAST[0], ALL[0]} - set(_help().split())
    return tuple(each for place, each in enumerate(options) if not lacking & {each, options[max(0, place - 1)]})


@cache
def _help() -> str:
    wide = os.environ | {"COLUMNS": "200"}
    done = subprocess.run([*TIDECAST, "serve", "--help"], capture_output=True, text=True, check=True, env=wide)
    return done.stdout


def alone(processes: int) -> Contender:
    """onnxruntime with windows in memory, in processes of one thread each: what no service can be faster than."""

    def speed(bench: Bench, model: Path) -> float:
        context = get_context("spawn")
        begin = context.Barrier(processes)
        queue = context.Queue()
        children = [context.Process(target=_infer, args=(str(model), begin, queue)) for _ in range(processes)]
        for child in children:
            child.start()
        windows = [queue.get(timeout=60) for _ in children]
        for child in children:
            child.join()
        return float(sum(windows))

    return Contender(speed)


def _infer(model: str, begin: Barrier, queue: "object") -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name, look_back = session.get_inputs()[0].name, seq_len(Path(model))
    windows = np.random.default_rng(0).random((BATCH, look_back, 1), np.float32)
    session.run(None, {name: windows})
    begin.wait()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < ALONE_S:
        session.run(None, {name: windows})
        done += BATCH
    queue.put(done / (time.perf_counter() - began))  # type: ignore[attr-defined]


def peer(line: Callable[[Bench, Path, str, int], Sequence[object]]) -> Contender:
    """Someone else's program, which ends after so many records with its speed as a JSON line."""

    def command(bench: Bench, model: Path, output: str) -> list[str]:
        return list(map(str, line(bench, model, output, FOR_EVER)))

    def speed(bench: Bench, model: Path) -> float:
        with running(list(map(str, line(bench, model, bench.new_output(), bench.records)))) as child:
            return float(last_json(child)["records_per_s"])

    return Contender(speed, command)


def peers(anchors: Path) -> dict[str, Contender]:
    """Kafka Streams and a plain consumer loop on the JVM, and Quix Streams, with one onnxruntime thread each.

    The loop flushes and commits after every poll and has no transactions.
    """

    def jvm(mode: str, guarantee: str) -> Contender:
        jars = f"{anchors / 'jvm' / 'anchor.jar'}:{anchors / 'jvm' / 'libs'}/*"
        start = ("java", "-Xmx1g", "-cp", jars, "Anchor", mode)
        return peer(lambda bench, model, output, records: (*start, *_job(bench, model, output, records), guarantee))

    def quix(guarantee: str) -> Contender:
        start = (quix_python(), anchors / "quix" / "quix_app.py")
        return peer(lambda bench, model, output, records: (*start, *_job(bench, model, output, records), guarantee))

    return {
        "JVM loop": jvm("loop", "at_least_once"),
        "Kafka Streams": jvm("streams", "at_least_once"),
        "Kafka Streams, exactly once": jvm("streams", "exactly_once_v2"),
        "Quix": quix("at-least-once"),
        "Quix, exactly once": quix("exactly-once"),
    }


def _job(bench: Bench, model: Path, output: str, records: int) -> tuple[object, ...]:
    return bench.bootstrap, bench.topic, output, model, seq_len(model), records


def quix_python() -> Path:
    """The Python of an environment with Quix Streams, made once; latency.py finds confluent-kafka in it too."""
    folder = ROOT / ".venv-quix"
    python = folder / "bin" / "python"
    if not (folder / ".installed").is_file():
        say(f"installing Quix Streams into {folder}, once")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "quixstreams", f"onnxruntime=={ort.__version__}"], check=True)
        (folder / ".installed").touch()
    return python


def everyone(anchors: Path | None) -> dict[str, Contender]:
    """All contenders, by name."""
    ceilings = {"onnxruntime alone": alone(1), "onnxruntime alone, all cores": alone(os.cpu_count() or 1)}
    return {**tidecast(), **(peers(anchors) if anchors else {}), **ceilings}
