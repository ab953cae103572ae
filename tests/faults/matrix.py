"""Every fault that delivery must survive, on three real brokers: the expected outcome of each, and the actual one.

    python tests/faults/matrix.py [--only WORDS ...] [--client NAME] [--workers N] [--list] [--json FILE]

Needs KAFKA_HOME (with bin/kafka, and a Java 17 on PATH), TOXIPROXY (a folder with toxiproxy-server), and Debian's
faketime. Ends with 0 only if all rows are as expected.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

from cluster import Cluster
from faults import TABLE, Fault, Outcome, run
from scenarios import brokers, killed, limits, members, processes, state, topics, versions
from untrained import tiny_model
from world import INTERRUPTED, World

from pipeline.log.settings import ClientName

SCENARIOS = (killed, brokers, members, state, topics, limits, processes, versions)
COLUMNS = ("fault", "expected", "seen", "figure", "ok")
AT_ONCE = 4
"""Worlds that run at the same time."""


class Matrix:
    """Runs faults on one cluster, each case in a world of its own."""

    def __init__(self, cluster: Cluster, model: Path, folder: Path, workers: int) -> None:
        self._cluster, self._model, self._folder, self._service_workers = cluster, model, folder, workers
        self._lock = threading.Lock()
        self._worlds = 0

    def run(self, faults: Sequence[Fault]) -> Iterator[tuple[Fault, Outcome]]:
        """Faults with their outcomes as they finish: first those that can share the brokers."""
        outcomes = {id(fault): Outcome() for fault in faults}
        for workers, alone in ((AT_ONCE, False), (1, True)):
            cases = [(each, case) for each in faults if each.alone == alone for case in each.cases]
            left = Counter(id(each) for each, _ in cases)
            for ended in self._ending(workers, cases, outcomes):
                left[id(ended)] -= 1
                if not left[id(ended)]:
                    yield ended, outcomes[id(ended)]

    def _ending(
        self, workers: int, cases: Sequence[tuple[Fault, Any]], outcomes: Mapping[int, Outcome]
    ) -> Iterator[Fault]:
        """The fault of each case that finishes."""
        with ThreadPoolExecutor(workers) as pool:
            running = {pool.submit(self._case, each, case, outcomes[id(each)]): each for each, case in cases}
            try:
                for future in as_completed(running):
                    future.result()
                    yield running[future]
            except BaseException:
                INTERRUPTED.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _case(self, fault: Fault, case: Any, outcome: Outcome) -> None:
        if fault.needs and shutil.which(fault.needs) is None:
            outcome.missing = fault.needs
            return
        with ExitStack() as stack:
            lane = stack.enter_context(self._cluster.lane()) if fault.lane else None
            with self._lock:
                self._worlds += 1
                name = f"{fault.scenario.__name__.replace('_', '-')}-{self._worlds}"
            folder = self._folder / name
            folder.mkdir()
            world = World(
                name,
                fault.guarantee,
                self._cluster.bootstrap,
                self._model,
                folder,
                cluster=self._cluster,
                lane=lane,
                workers=self._service_workers,
            )
            try:
                with world:
                    run(fault, world, case, outcome)
            except Exception as error:
                outcome.problems.append(f"{case or name}: {error}")
                outcome.problems += [f"{type(error).__name__}"] if not str(error) else []
                self._explain(fault, world)

    def _explain(self, fault: Fault, world: World) -> None:
        """Everything that went wrong, as text."""
        with self._lock:
            say(f"--- {fault.name}, {world.topic}")
            traceback.print_exc()
            for service in world.services:
                said = "\n".join(service.stderr.splitlines()[-20:])
                say(f"--- a service, ended {service.codes}\n{said}")
            say("---")


def say(line: str) -> None:
    """Print a progress line on stderr."""
    print(line, file=sys.stderr, flush=True)


def as_row(fault: Fault, outcome: Outcome) -> list[str]:
    """A row of the table, as text."""
    return [fault.name, fault.expected, outcome.seen, outcome.figure, "yes" if outcome.ok else "NO"]


def markdown(rows: list[list[str]]) -> str:
    """The table for the documentation."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def wanted(words: list[str]) -> list[Fault]:
    """The faults whose name, or whose scenario's name, contains one of the words."""
    return [
        each for each in TABLE if not words or any(word in f"{each.name} {each.scenario.__name__}" for word in words)
    ]


def on_a_cluster(use: Callable[[Matrix], None], workers: int) -> None:
    """Start brokers and proxies, and stop them afterwards."""
    kafka, toxiproxy = (os.environ.get(name) or sys.exit(f"set {name}") for name in ("KAFKA_HOME", "TOXIPROXY"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = tiny_model(folder / "tiny.onnx")
        with Cluster(folder / "kafka", Path(kafka), Path(toxiproxy)) as cluster:
            use(Matrix(cluster, model, folder, workers))


def main() -> None:
    """Run the table, or part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORDS", help="rows whose name has any of these")
    parser.add_argument("--client", choices=get_args(ClientName), default="kafka-python", help="that of the services")
    parser.add_argument("--list", action="store_true", help="name the rows, run none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the rows as a table")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes of each service")
    parser.add_argument("--trials", type=int, default=200, help="answers to EndTxn that are lost")
    parser.add_argument("--allow-missing", action="store_true", help="rows that need a program not here do not fail")
    asked = parser.parse_args()
    os.environ["TIDECAST_KAFKA_CLIENT"] = asked.client
    brokers.LOST_RESPONSES = asked.trials
    faults, rows, failed = wanted(asked.only), [], 0
    if asked.list:
        print("\n".join(each.name for each in faults))
        return

    def show(matrix: Matrix) -> None:
        nonlocal failed
        began = time.monotonic()
        for each, outcome in matrix.run(faults):
            rows.append(as_row(each, outcome))
            failed += not outcome.ok and not (outcome.missing and asked.allow_missing)
            print(f"{time.monotonic() - began:5.0f} s | {' | '.join(rows[-1])}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    on_a_cluster(show, asked.workers)
    if asked.json:
        asked.json.write_text(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows], indent=1) + "\n")
    if asked.markdown:
        asked.markdown.write_text(markdown(rows))
    print(f"{len(rows)} faults: {sum(row[-1] == 'yes' for row in rows)} as expected")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
