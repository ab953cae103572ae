"""`tidecast demo`: publish, train, register, serve, replay and score, on one screen."""

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import polars as pl
from rich.live import Live

from deploy.console import console, progress
from deploy.data import DataSource
from deploy.demo import NAME, group_of
from deploy.demo.processes import mlflow_page, program, run_service
from deploy.demo.scoreboard import FREQ, HORIZON, Scoreboard
from deploy.models.loading import load_model
from deploy.models.predictor import Predictor
from deploy.operations.ingest import publish_frame
from deploy.settings.files import open_log
from deploy.settings.locations import HOME, default_log, default_tracking, home
from deploy.training.forecasting import train
from deploy.training.jobs import TrainJob
from model.artifacts.registry import Registry
from model.training.forecast_config import ForecastConfig
from pipeline.datasets.history import read_topic
from pipeline.datasets.measurements import read_file
from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.formats.scores import SeriesScores
from pipeline.log import EventLog
from tidecast.errors import UnknownTopic

logger = logging.getLogger(__name__)

Message = TypeVar("Message", Forecast, SeriesScores)

SERIES = "nyc_taxi"
"""The series' name: that of the file."""
SEQ_LEN = 336
TRAINING_SHARE = 0.7
EVENTS_PER_TICK = 40
TICK_S = 0.1
FORECAST_TIMEOUT_S = 60.0
"""How long to wait for a missing forecast before it counts as lost."""


class TopicReader(Generic[Message]):
    """Reads a topic of messages with one partition from its start."""

    def __init__(self, log: EventLog, topic: str, message: type[Message]) -> None:
        self._log, self.topic, self._position = log, topic, 0
        self._decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(message)

    def read_new(self) -> list[Message]:
        """The messages since the last call; none before the topic exists."""
        try:
            end = self._log.bounds(self.topic)[0].end
        except UnknownTopic:
            return []
        batches = self._log.read(self.topic, 0, self._position, end)
        messages = [self._decoder.decode(record.value or b"") for records in batches for record in records]
        self._position = end
        return messages


def demo(bootstrap: str, tracking_uri: str, config: Path, topic: str, *, stay: bool, began: float) -> None:
    """Run the demo on a new topic and print the JSON object it ends with. `began` is the command's start, monotonic
    seconds.

    `config` is the settings file; the service reads its Kafka connection settings from it too.
    With `stay` the service and MLflow's page keep running until interrupted.
    """
    log, registry = open_log(bootstrap), Registry(tracking_uri)
    logger.info(f"on {log.label}")
    taxi = _taxi()
    cut = round(TRAINING_SHARE * len(taxi))
    logger.info(f"1. publish the first {cut:,} half hours to the topic {topic}")
    with progress("publish", cut) as report:
        publish_frame(taxi[:cut], log, topic, partitions=1, on_progress=lambda done, _: report(done))
    segment = ForecastConfig(arch="segment", dropout=0.1)  # a single network, as the demo should take a minute
    job = TrainJob(name=NAME, freq=FREQ, horizon=HORIZON, seq_len=SEQ_LEN, config=segment)
    logger.info(f"2. train a network on them: {HORIZON} half hours ahead from the {SEQ_LEN} before, about 20 seconds")
    history = read_topic(log, topic)
    dataset = DataSource(topic=topic, bootstrap=bootstrap).dataset(history)
    model = train(history, job, registry, dataset).version
    predictor = load_model(model.label, tracking_uri)
    board = Scoreboard(taxi["value"].to_numpy(), taxi["ts"].to_numpy(), cut)
    forecasts = TopicReader(log, f"{topic}-forecasts", Forecast)
    scores = TopicReader(log, f"{topic}-forecasts-scores", SeriesScores)
    options = ["--bootstrap", bootstrap, "--config", str(config), "--topic", topic, "--model", model.label]
    options += ["--output", forecasts.topic, "--group", group_of(topic), "--from", "earliest", "--device", "auto"]
    logger.info(f"3. serve {model.label}: it forecasts the history first, then each new event")
    with run_service(options, tracking_uri) as check_running:
        _wait_for_first_forecasts(forecasts, check_running)
        logger.info(f"4. replay the other {len(taxi) - cut:,} half hours, and score each forecast when its day is over")
        first = _replay(log, topic, board, forecasts, scores, check_running)
        print(json.dumps(_summary(board, predictor, forecasts.topic, first - began)), flush=True)  # noqa: T201
        with mlflow_page(registry, model, stay) as page:
            _print_next_steps(bootstrap, registry, topic, page)
            if stay:
                _wait_for_interrupt()


def _taxi() -> pl.DataFrame:
    with as_file(files("deploy.demo") / "data" / f"{SERIES}.csv") as path:
        return read_file(str(path)).frame


def _wait_for_first_forecasts(forecasts: TopicReader[Forecast], check: Callable[[], None]) -> None:
    """Wait until the service has started to forecast the published history."""
    with console.status("starting the service and catching up with the history"):
        while not forecasts.read_new():
            check()
            time.sleep(TICK_S)


def _replay(
    log: EventLog,
    topic: str,
    board: Scoreboard,
    forecasts: TopicReader[Forecast],
    scores: TopicReader[SeriesScores],
    check: Callable[[], None],
) -> float:
    """Send the remaining events and collect their forecasts; when the first one arrived, in monotonic seconds."""
    producer, first, total = log.producer(), 0.0, len(board.forecasts)
    last_sent = time.monotonic()
    with _view(board) as refresh:
        while not board.received.all() and time.monotonic() < last_sent + FORECAST_TIMEOUT_S:
            check()
            tick_start = time.monotonic()
            for row in range(board.sent, min(board.sent + EVENTS_PER_TICK, total)):
                ts, value = int(board.times[board.cut + row]), float(board.values[board.cut + row])
                producer.send(topic, 0, SERIES.encode(), encode(Event(SERIES, ts, (value,))))
                board.sent, last_sent = row + 1, time.monotonic()
            producer.flush()
            for forecast in forecasts.read_new():
                board.add(forecast)
            for bucket in scores.read_new():
                board.add_scores(bucket)
            first = first or (time.monotonic() if board.received.any() else 0.0)
            refresh()
            time.sleep(max(0.0, tick_start + TICK_S - time.monotonic()))
    producer.close()
    for bucket in scores.read_new():
        board.add_scores(bucket)
    return first


@contextmanager
def _view(board: Scoreboard) -> Iterator[Callable[[], None]]:
    if not console.is_terminal:
        with progress("replay", len(board.forecasts)) as report:
            yield lambda: report(board.sent, board.score_line())
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda: live.update(board.render(min(console.width, 120)), refresh=True)


def _summary(board: Scoreboard, predictor: Predictor, output: str, first_forecast_s: float) -> dict[str, object]:
    model_mse, naive_mse = board.errors()
    windows, forecasts = len(board.forecasts), int(board.received.sum())
    return {
        "events": board.sent,
        "windows": windows,
        "forecasts": forecasts,
        "lost": windows - forecasts,
        "first_forecast_s": round(first_forecast_s, 2),
        "mse": round(model_mse, 4),
        "naive_mse": round(naive_mse, 4),
        **{name: value if value is None else round(value, 4) for name, value in board.graded.items()},
        "model": predictor.label,
        "device": predictor.device,
        "output_topic": output,
    }


def _print_next_steps(bootstrap: str, registry: Registry, topic: str, page: str) -> None:
    tidecast, log = program("tidecast"), "" if bootstrap == default_log() else f" --bootstrap {bootstrap}"
    log += "" if home() == HOME else f" --home {home()}"
    models = log if registry.tracking_uri == default_tracking() else f"{log} --tracking-uri {registry.redacted_uri}"
    lines = (
        "",
        f"The forecasts:  {tidecast} tail {topic}-forecasts{log}",
        f"Its scores:     {tidecast} score {topic}-forecasts{log}",
        f"Its alerts:     {tidecast} tail {topic}-forecasts-alerts{log}",
        f"Its training:   {page}",
        f"Your own data:  {tidecast} ingest FILE.csv --topic mine{log}",
        f"                {tidecast} train --topic mine --name my-model{models}",
        f"                {tidecast} serve --topic mine --model my-model@champion{models}",
    )
    for line in lines:
        console.print(line, soft_wrap=True)


def _wait_for_interrupt() -> None:
    logger.info("The service keeps running. Ctrl-C stops it.")
    with suppress(KeyboardInterrupt):
        signal.pause()
