"""What bench.py measures, part by part; each gives its figures round by round."""

import argparse
import contextlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from contenders import ALL, FAST, UNGRADED, Contender, quix_python, supported
from recovery import ready_again
from serving import GIVE_UP_S, MINUTE_MS, PARTITIONS, ROOT, START, TIDECAST, Bench, Seen, broker, running, say, seq_len

from pipeline.formats.columnar.points import Chunk
from pipeline.ingest.publish import publish_columns
from pipeline.log import EventLog
from pipeline.log.connect import connect

RATES, KEYS = (500, 2_000), 100
LATENCY_OF = ("Tidecast", "Tidecast, one process", "Tidecast, kafka-python", "JVM loop", "Kafka Streams", "Quix")
FLEET = 4_000
"""Series of columnar messages."""
SIZES = (100, 10_000, 1_000_000)
A_SERIES, LEAST = 3, 400_000
"""Records of each series in the comparison of fleets, and of all of them at least."""
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is measured, and what is asked for."""

    log: EventLog
    bootstrap: str
    asked: argparse.Namespace
    contenders: dict[str, Contender]


def speed(place: Place) -> Iterator[Figures]:
    """Records a second by model and contender; who goes first changes with every round.

    A first run does not count: a new broker is slow until its JVM has compiled what it does.
    """
    bench = Bench(place.log, place.bootstrap, place.asked.records)
    bench.fill()
    next(iter(place.contenders.values())).speed(bench, place.asked.files[0])
    for model in place.asked.files:
        for number in range(place.asked.rounds):
            for name in list(place.contenders)[:: -1 if number % 2 else 1]:
                found = place.contenders[name].speed(bench, model)
                say(f"{model.stem}, round {number + 1}: {name} {found:,.0f}/s")
                yield {model.stem: {name: [round(found)]}}


def stages(place: Place) -> Iterator[Figures]:
    """Microseconds a record in each stage of one process's loop; those of poll hold its waits."""
    options = supported((*FAST, *UNGRADED))
    bench = Bench(place.log, place.bootstrap, place.asked.records)
    bench.fill()
    for model in place.asked.files:
        for _ in range(place.asked.rounds):
            seen = Seen()
            bench.tidecast(model, options=options, seen=seen)
            us = {name: round(1e6 * seconds / bench.records, 2) for name, seconds in seen.stages.items()}
            say(f"{model.stem}: {', '.join(f'{name} {each}' for name, each in us.items())} us a record")
            yield {model.stem: {name: [each] for name, each in us.items()}}


def latency(place: Place) -> Iterator[Figures]:
    """Milliseconds from a record's sending to its forecast's arrival, by the anchors' latency.py; of one model."""
    asked = place.asked
    if not asked.anchors:
        say("left out: latency.py is one of --anchors")
        return
    model = next((path for path in asked.files if "segment" in path.stem), asked.files[0])
    for rate in RATES:
        for name in LATENCY_OF:
            command = place.contenders[name].command if name in place.contenders else None
            if command is None:
                continue
            bench = Bench(place.log, place.bootstrap, 0)
            place.log.create_topic(bench.topic, PARTITIONS)
            output = bench.new_output()
            with running(command(bench, model, output)) as service:
                _until_it_forecasts(bench, output, seq_len(model), service)
                probe = [str(quix_python()), str(asked.anchors / "latency.py"), place.bootstrap, bench.topic, output]
                numbers = map(str, (rate, asked.seconds, KEYS, seq_len(model)))
                done = subprocess.run([*probe, *numbers], stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            say(f"{rate}/s: {name} {found}")
            yield {str(rate): {name: [found]}}


def _until_it_forecasts(bench: Bench, output: str, steps: int, service: "subprocess.Popen[str]") -> None:
    """Send a series' whole window to each partition, and wait for their forecasts: then all has begun."""
    with contextlib.closing(bench.log.producer()) as producer:
        for partition, step in product(range(PARTITIONS), range(steps)):
            body = b'{"ts":%d,"value":1.5}' % (START + step * MINUTE_MS)
            producer.send(bench.topic, partition, b"first-%d" % partition, body)
        producer.flush()
    deadline = time.monotonic() + GIVE_UP_S
    while not all(bounds.end for bounds in bench.log.bounds(output).values()):
        if service.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{service.args!r} made no forecast")
        time.sleep(0.2)


def fleets(place: Place) -> Iterator[Figures]:
    """Records a second and the most memory of one process, by the number of series; all forecasts are naive ones."""
    options = supported((*FAST, *UNGRADED, "--short-series", "naive", "--series-limit", str(max(SIZES))))
    model, base = place.asked.files[0], math.nan
    for size in SIZES:
        bench = Bench(place.log, place.bootstrap, max(LEAST, A_SERIES * size), keys=size)
        bench.fill()
        for _ in range(place.asked.rounds):
            seen = Seen()
            found = bench.tidecast(model, options=options, seen=seen)
            base = seen.most_mib if math.isnan(base) else base
            bytes_each = round((seen.most_mib - base) * 2**20 / size)
            say(f"{size:,} series: {found:,.0f} records/s, {seen.most_mib:,.0f} MiB")
            yield {str(size): {"records_per_s": [round(found)], "mib": [round(seen.most_mib)], "bytes": [bytes_each]}}


def start(place: Place) -> Iterator[Figures]:
    """Seconds until 10,000 series are served again, after SIGTERM and SIGKILL, and of `tidecast --help`.

    The broker is another one, where a member that joins an empty group waits for no others.
    """
    model = place.asked.files[-1]
    with contextlib.ExitStack() as stack:
        bootstrap = place.asked.bootstrap or stack.enter_context(broker())
        log = stack.enter_context(contextlib.closing(connect(bootstrap)))
        yield from _starts(log, bootstrap, model, place.asked.rounds)


def _starts(log: EventLog, bootstrap: str, model: Path, rounds: int) -> Iterator[Figures]:
    for _ in range(rounds):
        began = time.monotonic()
        subprocess.run([*TIDECAST, "--help"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        yield {"help": [round(time.monotonic() - began, 3)]}
        for end, seconds in ready_again(log, bootstrap, model, 10_000):
            say(f"after {end}: {seconds:.2f} s")
            yield {end: [round(seconds, 2)]}


def columnar(place: Place) -> Iterator[Figures]:
    """Points and forecasts a second with columnar messages, in and out, each a step of a partition's series."""
    log, steps = place.log, 400
    options = [supported(("--format", "arrow", *FAST, *UNGRADED, *more)) for more in ((), ALL)]
    topic, names, noise = (
        f"bench-{time.time_ns()}",
        [f"series-{each}" for each in range(FLEET)],
        np.random.default_rng(0),
    )
    values = noise.normal(size=(steps, FLEET, 1))
    chunks = (Chunk(names, np.full(FLEET, START + step * MINUTE_MS), values[step]) for step in range(steps))
    publish_columns(chunks, log, topic, total=steps * FLEET, partitions=PARTITIONS)
    messages = sum(end for _, end in log.bounds(topic).values())
    bench = Bench(log, place.bootstrap, messages, topic=topic)
    for model in place.asked.files:
        for _ in range(place.asked.rounds):
            for name, each in zip(("one process", "all cores"), options, strict=True):
                summary = bench.served(model, options=each)
                found = {"points": steps * FLEET, "forecasts": summary["forecasts"]}
                figures = {what: [round(count / summary["seconds"])] for what, count in found.items()}
                say(f"{model.stem}, {name}: {figures}")
                yield {model.stem: {name: figures}}


def windows(place: Place) -> Iterator[Figures]:
    """Windows a second of the store and of training, memory a series: benchmarks/windows.py."""
    script = Path(__file__).with_name("windows.py")
    if not script.is_file():
        say("left out: there is no windows.py")
        return
    done = subprocess.run([sys.executable, str(script), "--json"], stdout=subprocess.PIPE, text=True, check=True)
    yield dict(json.loads(done.stdout.splitlines()[-1]))


PARTS: dict[str, Callable[[Place], Iterator[Figures]]] = {
    "speed": speed,
    "columnar": columnar,
    "latency": latency,
    "stages": stages,
    "windows": windows,
    "fleets": fleets,
    "start": start,
}
"""By the names of --only."""
