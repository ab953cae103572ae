"""All figures of speed, ours and others', in turn on one machine: what `make bench` runs.

    python benchmarks/bench.py --anchors DIR                        a broker of its own from $KAFKA_HOME
    python benchmarks/bench.py --anchors DIR --only speed --who "Tidecast;JVM loop" --models segment64
    python benchmarks/bench.py --bootstrap HOST:PORT my.onnx        an existing broker, ours alone

Records a second from the first record read to the last one committed, by each one's own clock; start-up is left out
for all, and a first run warms the broker. `--anchors` is a folder with jvm/anchor.jar and jvm/libs, quix/quix_app.py,
latency.py and models/*.onnx, run by the `java` on PATH and in an environment that is made for Quix. Each process has
one onnxruntime thread. Ratios are of medians over all rounds; with --save a file keeps what was measured, the picture
beside it shows it, and the next run with that file adds its rounds. Topics are left on an existing broker.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import bench_parts
from bench_report import draw, ratios, table
from contenders import Contender, everyone
from serving import ROOT, broker, say

from pipeline.log.connect import connect

Results = dict[str, Any]
"""By part what was measured."""


def machine() -> dict[str, object]:
    """Where and when."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    found = {"day": time.strftime("%Y-%m-%d"), "commit": commit.stdout.strip(), "python": platform.python_version()}
    return {**found, "cores": os.cpu_count(), "processor": name}


def kept(path: Path | None) -> Results:
    """What earlier runs measured on this machine."""
    results: Results = json.loads(path.read_text()) if path and path.is_file() else {}
    return results


def add(results: Results, more: Results) -> None:
    """Adds to a tree of figures those of another round: lists grow, anything else is replaced."""
    for name, value in more.items():
        if isinstance(value, dict):
            add(results.setdefault(name, {}), value)
        elif isinstance(value, list):
            results.setdefault(name, []).extend(value)
        else:
            results[name] = value


def store(results: Results, path: Path | None) -> None:
    """Writes the file and its picture."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
        if "speed" in results:
            draw(results, path.with_suffix(".png"))


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="MODEL.onnx", help="default: those of the anchors")
    parser.add_argument("--bootstrap", help="an existing broker; default: one is started from $KAFKA_HOME")
    anchors = os.environ.get("TIDECAST_ANCHORS")
    parser.add_argument("--anchors", type=Path, default=anchors, help="default: $TIDECAST_ANCHORS")
    parser.add_argument("--only", action="append", choices=list(bench_parts.PARTS), help="some parts; may be repeated")
    parser.add_argument("--who", type=names, help="some contenders: names with ; between")
    parser.add_argument("--models", type=names, help="some models, by their files' names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--seconds", type=int, default=120, help="of each measurement of latency")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="what is measured is added to this file's")
    parser.add_argument("--json", action="store_true", help="the last line is all of it as one object")
    asked = parser.parse_args()
    asked.anchors = asked.anchors and asked.anchors.resolve()
    files = asked.files or sorted((asked.anchors or ROOT).glob("models/*.onnx"))
    asked.files = [path.resolve() for path in files if not asked.models or path.stem in asked.models]
    if not asked.files:
        parser.error("give a MODEL.onnx, or --anchors")
    return asked


def names(text: str) -> list[str]:
    """Several, with semicolons between: some have a comma."""
    return text.split(";")


def chosen(who: list[str] | None, all_of_them: dict[str, Contender]) -> dict[str, Contender]:
    """Those that are asked for. Raises SystemExit for a name that is none."""
    if unknown := set(who or ()) - set(all_of_them):
        raise SystemExit(f"--who: {', '.join(sorted(unknown))}: there are {', '.join(all_of_them)}")
    return {name: each for name, each in all_of_them.items() if not who or name in who}


def main() -> None:
    """Measure part by part; what is measured is stored after each."""
    asked = arguments()
    contenders = chosen(asked.who, everyone(asked.anchors))
    results = kept(asked.save)
    results["machine"] = machine()
    with contextlib.ExitStack() as stack:
        bootstrap = asked.bootstrap or stack.enter_context(broker(delay_ms=1000))
        log = stack.enter_context(contextlib.closing(connect(bootstrap)))
        place = bench_parts.Place(log, bootstrap, asked, contenders)
        for name in asked.only or bench_parts.PARTS:
            say(f"{name}:")
            for more in bench_parts.PARTS[name](place):
                add(results, {name: more})
                store(results, asked.save)
    if "speed" in results:
        results["ratios"] = ratios(results["speed"])
        store(results, asked.save)
    print(table(results))
    if asked.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
