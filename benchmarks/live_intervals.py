"""Intervals through the service: streams from a Kafka topic, `tidecast serve`, and what its messages say, scored.

    python benchmarks/live_intervals.py nyc_taxi.csv taylor.csv pedestrian.csv   [--bootstrap HOST:PORT] [--keep FOLDER]

For each file a model learns from the first half, a day ahead, and the service forecasts the whole stream, once for each
coverage, from a broker of its own ($KAFKA_HOME) or an existing one. Scores, and the other kinds of intervals, are those
of benchmarks/intervals.py: of the second half alone, after the warm-up. `--keep` keeps models and what was forecast.
"""

import argparse
import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from intervals import HEAD, Errors, Floats, errors_of, fitted_before, lines, middle, table_of
from serving import GIVE_UP_S, TIDECAST, broker, last_json, running, say

from deploy.settings.serve import window_config
from deploy.training.forecasting import forecast_candidate
from model.artifacts.export import save
from model.online.steps import scored_steps
from pipeline.datasets.history import before, from_frame, windows
from pipeline.formats.forecasts import Forecast
from pipeline.log import EventLog
from pipeline.log.connect import connect

MOST = 0.85
"""Of another kind's Winkler score, what ours is to be at most."""
NEAR = 0.02
"""How far a coverage may be from what was asked."""


def trained(path: Path, frame: pl.DataFrame, freq: str, budget: float, folder: Path) -> Path:
    """The ONNX file of a model of the first half."""
    if not (folder / "model.onnx").exists():
        learnt = before(from_frame(frame), middle(frame))
        fitted = fitted_before(from_frame(frame), middle(frame), path.stem, freq, budget).fitted
        candidate = forecast_candidate(fitted, windows(learnt, window_config(fitted.card.input)), learnt)
        save(candidate.model, candidate.card, folder, candidate.examples)
    return folder / "model.onnx"


def publish(log: EventLog, frame: pl.DataFrame) -> str:
    """A new topic with all values of a table, by time."""
    topic = f"streams-{time.time_ns()}"
    log.create_topic(topic, 1)
    with contextlib.closing(log.producer()) as producer:
        for series, ts, value in frame.drop_nulls().sort("ts").select("series", "ts", "value").iter_rows():
            producer.send(topic, 0, series.encode(), b'{"ts":%d,"value":%r}' % (ts, value))
        producer.flush()
    return topic


def served(log: EventLog, bootstrap: str, topic: str, model: Path, coverage: float) -> list[Forecast]:
    """What the service writes, until it has committed the whole topic."""
    output = f"{topic}-{coverage}"
    command = [*TIDECAST, "serve", "--bootstrap", bootstrap, "--topic", topic, "--output", output, "--group", output]
    command += ["--model", str(model), "--device", "cpu", "--coverage", str(coverage), "--json"]
    deadline, end = time.monotonic() + GIVE_UP_S, log.bounds(topic)[0].end
    with running(command) as service:
        while (at := log.committed(output, topic).get(0)) is None or at.offset < end:
            if service.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"tidecast serve has not read {topic}: exit {service.poll()}")
            time.sleep(0.5)
        service.send_signal(signal.SIGTERM)
        say(f"{model.parent.name} {coverage:.0%}: {last_json(service)}")
    bounds = log.bounds(output)[0]
    found = log.read(output, 0, bounds.start, bounds.end)
    return [msgspec.json.decode(record.value or b"", type=Forecast) for records in found for record in records]


def joined(frame: pl.DataFrame, freq: str, made: Sequence[Forecast]) -> Iterator[tuple[Errors, Floats]]:
    """What each series' forecasts missed, and their margins (T,H,2) by the step that was forecast."""
    spacing, cut = made[0].step, middle(frame)
    for (name,), rows in frame.drop_nulls().group_by("series", maintain_order=True):
        numbers = rows["ts"].to_numpy() // spacing
        first, last = int(numbers.min()), int(numbers.max())
        actual = np.full(last - first + 1, np.nan)
        actual[numbers - first] = rows["value"].to_numpy()
        own = [each for each in made if each.series == name and each.ts // spacing <= last]
        at = np.array([each.ts // spacing - first for each in own])
        steps = np.array(scored_steps(len(own[0].forecast)))
        said = np.full((3, len(actual), len(steps)), np.nan)
        said[:, at] = np.array([[each.forecast, each.lower, each.upper] for each in own]).swapaxes(0, 1)[..., steps - 1]
        margins = np.full((*said.shape[1:], 2), np.nan)
        for place, h in enumerate(steps):
            margins[h:, place, 0] = (said[0] - said[1])[:-h, place]
            margins[h:, place, 1] = (said[2] - said[0])[:-h, place]
        start = -(-cut // spacing) - first
        yield errors_of(str(name), freq, actual, said[0], start, first), margins


def kept(path: Path) -> list[Forecast]:
    """The messages of an earlier run, none if there was none."""
    return msgspec.json.decode(path.read_bytes(), type=list[Forecast]) if path.exists() else []


def main() -> None:
    """Print a line for each series, coverage and step, and how many reach what is asked of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--budget", type=float, default=60, help="seconds to train each model")
    parser.add_argument("--bootstrap", help="an existing broker; default: one is started from $KAFKA_HOME")
    parser.add_argument("--keep", type=Path, help="a folder for models and messages")
    given = parser.parse_args()
    found: dict[float, list[tuple[float, ...]]] = {0.9: [], 0.8: []}
    with contextlib.ExitStack() as stack:
        keep = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bootstrap = given.bootstrap or stack.enter_context(broker())
        log = stack.enter_context(contextlib.closing(connect(bootstrap)))
        print(HEAD)
        for path in given.data:
            frame, freq = table_of(path)
            model = trained(path, frame, freq, given.budget, keep / path.stem)
            topic = publish(log, frame)
            for coverage, ratios in found.items():
                messages = model.with_name(f"{coverage}.json")
                if not (made := kept(messages)):
                    made = served(log, bootstrap, topic, model, coverage)
                    messages.write_bytes(msgspec.json.encode(made))
                for data, margins in joined(frame, freq, made):
                    for line, each in lines(data, coverage, margins):
                        print(line, flush=True)
                        ratios.append(each)
    for coverage, ratios in found.items():
        covered, window, naive, worst = np.array(ratios).T
        near, below = (abs(covered - coverage) <= NEAR).sum(), [(each <= MOST).sum() for each in (window, naive)]
        print(
            f"{coverage:.0%}, of {len(ratios)}: coverage within {NEAR} {near}, Winkler at most {MOST} of the window's"
            f" {below[0]}, of the naive's {below[1]}, worst week better than the window's {(worst < 1).sum()}"
        )


if __name__ == "__main__":
    main()
