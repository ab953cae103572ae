"""A hundred swaps of the model under a service, and the memory of its process after each.

    python benchmarks/swaps.py          [--swaps 100]

Two versions of a model of 100 series a second take turns, by `promote`. One JSON object as the last line: the resident
memory after the tenth swap, the most and the last after it, in MiB.
"""

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from serving import ROOT, TIDECAST, last_json, running, say

from model.artifacts.export import export
from model.artifacts.registry import Registry
from model.card import Card, InputSpec, OutputSpec, Setting
from model.networks.forecast import build_network
from pipeline.formats.forecasts import Forecast
from pipeline.log import EventLog
from pipeline.log.connect import connect
from tidecast.errors import UnknownTopic

MINUTE, START, SERIES, TOPIC = 60_000, 1_700_000_040_000, 100, "events"


def model(path: Path) -> None:
    """An untrained one of minutes, a day's worth of which it looks back."""
    settings: dict[str, Setting] = {"hidden": 64, "layers": 1, "dropout": 0.0, "location": "last", "segment": 24}
    inputs, outputs = InputSpec(seq_len=96, freq="1m"), OutputSpec(horizon=24)
    card = Card(name="m", input=inputs, output=outputs, arch="segment", hyperparameters=settings, trained_until=0)
    export(build_network(card), card, path)


def send(log: EventLog, steps: range) -> None:
    """So many steps of each series."""
    with contextlib.closing(log.producer()) as producer:
        for step in steps:
            for number in range(SERIES):
                body = b'{"ts":%d,"value":%d.5}' % (START + step * MINUTE, (step * 7 + number) % 100)
                producer.send(TOPIC, 0, b"series-%d" % number, body)
        producer.flush()


def newest(log: EventLog, output: str = f"{TOPIC}-forecasts") -> str:
    """Which version made the last forecast."""
    try:
        start, end = log.bounds(output)[0]
    except UnknownTopic:
        return ""
    for records in log.read(output, 0, max(start, end - 1), end):
        return msgspec.json.decode(records[-1].value or b"", type=Forecast).model
    return ""


def resident(process: "subprocess.Popen[str]") -> float:
    """MiB of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def swapped(
    folder: Path,
    swaps: int,
    options: Sequence[str] = ("--device", "cpu"),
    memory_of: Callable[["subprocess.Popen[str]"], float] = resident,
) -> tuple[list[float], dict[str, float]]:
    """The memory, in MiB, with the first model and after each of so many swaps, and what the service says at its end.

    `options` are more of the service's. Its log, log.db, stays in the folder.
    """
    uri, bootstrap = f"sqlite:///{folder}/mlflow.db", f"sqlite:{folder}/log.db"
    registry = Registry(uri)
    for _ in range(2):
        (folder / "run").mkdir(exist_ok=True)
        model(folder / "run" / "model.onnx")
        with registry.run("m") as training:
            registry.register("m", training, folder / "run", tags={})
    versions = [registry.resolve(f"m/{number}") for number in (1, 2)]
    command = [*TIDECAST, "serve", "--topic", TOPIC, "--model", "m@champion", "--json"]
    command += ["--bootstrap", bootstrap, "--tracking-uri", uri, "--follow", "200ms", *options]
    with contextlib.closing(connect(bootstrap)) as log:
        log.create_topic(TOPIC, 1)
        send(log, range(100))
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        step, memory = 100, list[float]()
        with running(command, cwd=folder, env=env) as service:
            for number in range(swaps + 1):
                wanted = versions[number % 2]
                registry.promote(wanted)
                while newest(log) != wanted.label:
                    if service.poll() is not None:
                        raise SystemExit("the service ended")
                    send(log, range(step, step + 1))
                    step += 1
                    time.sleep(0.05)
                memory.append(memory_of(service))
                if number % 10 == 0 and number:
                    say(f"{number} swaps: {memory[-1]:.1f} MiB")
            service.terminate()
            return memory, last_json(service)


def growth(memory: Sequence[float], swaps: float) -> dict[str, float]:
    """How the memory went on after the tenth swap."""
    tenth, later = memory[10], memory[11:]
    most = max(later)
    return {"swaps": swaps, "tenth": tenth, "most": most, "last": memory[-1], "growth": most / tenth - 1}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory, made = swapped(Path(folder), asked.swaps)
        print(json.dumps({name: round(value, 3) for name, value in growth(memory, made["swaps"]).items()}))


if __name__ == "__main__":
    main()
