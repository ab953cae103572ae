"""How soon a service is ready again: 10,000 series of full windows, ended and started, until it forecasts.

    python benchmarks/recovery.py model.onnx            a broker of its own from $KAFKA_HOME

Seconds from the start of the process to the first forecast of a record that was waiting for it: after SIGTERM, and
after SIGKILL with --static.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from serving import TIDECAST, broker, running, say, seq_len

from pipeline.log import EventLog
from pipeline.log.connect import connect

PARTITIONS, MINUTE, START = 6, 60_000, 1_700_000_000_000


def send(log: EventLog, topic: str, series: int, steps: range) -> None:
    """So many steps of each series."""
    with contextlib.closing(log.producer()) as producer:
        for step in steps:
            for number in range(series):
                body = b'{"ts":%d,"value":%d.5}' % (START + step * MINUTE, (step * 7 + number) % 100)
                producer.send(topic, number % PARTITIONS, b"series-%d" % number, body)
        producer.flush()


def count(log: EventLog, topic: str) -> int:
    """How many offsets a topic has used."""
    return sum(bounds.end for bounds in log.bounds(topic).values())


def until(log: EventLog, topic: str, wanted: int, service: "subprocess.Popen[str]") -> None:
    """Wait for so many forecasts."""
    while count(log, topic) < wanted:
        if service.poll() is not None:
            raise SystemExit(f"the service ended with {service.returncode}")
        time.sleep(0.05)


def ready(log: EventLog, bootstrap: str, model: Path, series: int, end: signal.Signals) -> float:
    """Seconds until a service is ready again that was ended like this."""
    topic = f"recovery-{time.time_ns()}"
    output, length = f"{topic}-out", seq_len(model)
    log.create_topic(topic, PARTITIONS)
    log.create_topic(output, PARTITIONS)
    send(log, topic, series, range(length))
    command = [*TIDECAST, "serve", "--bootstrap", bootstrap, "--topic", topic, "--output", output]
    command += ["--model", str(model), "--group", topic, "--instance", "a", "--device", "cpu"]
    command += ["--static"] if end == signal.SIGKILL else []
    with running(command) as service:
        until(log, output, series, service)
        service.send_signal(end)
        service.wait(60)
    send(log, topic, PARTITIONS, range(length, length + 1))
    began = time.monotonic()
    with running(command) as service:
        until(log, output, series + 1, service)
        seconds = time.monotonic() - began
        until(log, output, series + PARTITIONS, service)
    return seconds


def ready_again(log: EventLog, bootstrap: str, model: Path, series: int) -> Iterator[tuple[str, float]]:
    """By each way to end it."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        yield end.name, ready(log, bootstrap, model, series, end)


def main() -> None:
    """Measure both, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an ONNX file with one feature")
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results: dict[str, list[float]] = {}
    with broker() as bootstrap, contextlib.closing(connect(bootstrap)) as log:
        for _ in range(options.rounds):
            for end, seconds in ready_again(log, bootstrap, options.model, options.series):
                say(f"after {end}: {seconds:.2f} s")
                results.setdefault(end, []).append(round(seconds, 2))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
