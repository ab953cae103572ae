"""The whole life of a forecast on one screen: publish, train, register, serve, replay, score."""

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import as_file, files
from pathlib import Path

import msgspec
import polars as pl
from rich.live import Live
from rich.markup import escape

from deploy.console import console, progress
from deploy.demo.processes import mlflow_page, program, run_service
from deploy.demo.scoreboard import FREQ, HORIZON, Scoreboard
from deploy.operations.ingest import publish_frame
from deploy.serving.model_loading import load_model
from deploy.serving.predictor import Predictor
from deploy.settings.files import open_log
from deploy.settings.locations import DEFAULT_LOG, DEFAULT_TRACKING
from deploy.training.forecasting import train
from deploy.training.jobs import TrainJob
from model.artifacts.registry import Registry
from model.training.forecasting import ForecastConfig
from pipeline.datasets.history import read_topic
from pipeline.datasets.measurements import read_file
from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.log import EventLog
from tidecast.errors import UnknownTopic

logger = logging.getLogger(__name__)

NAME = "nyc-taxi"
SERIES = "nyc_taxi"
"""What a file of this name is called as a series."""
SEQ_LEN = 336
TRAINING_SHARE = 0.7
EVENTS_A_TICK = 40
TICK_S = 0.1
PATIENCE_S = 60.0
"""How long a missing forecast is waited for before it counts as lost."""


class Forecasts:
    """Follows a forecast topic of one partition from its start."""

    def __init__(self, log: EventLog, topic: str) -> None:
        self._log, self.topic, self._position = log, topic, 0
        self._decoder = msgspec.json.Decoder(Forecast)

    def new(self) -> list[Forecast]:
        """What has arrived since the last call; nothing before the topic is made."""
        try:
            end = self._log.bounds(self.topic)[0].end
        except UnknownTopic:
            return []
        batches = self._log.read(self.topic, 0, self._position, end)
        found = [self._decoder.decode(record.value or b"") for records in batches for record in records]
        self._position = end
        return found


def demo(bootstrap: str, tracking_uri: str, config: Path, *, stay: bool, began: float) -> None:
    """Run the demo and print the JSON object it ends with. `began` is the command's start, monotonic seconds.

    `config` is the settings file: it tells the service too how to connect to a Kafka.
    With `stay` the service goes on, beside MLflow's page, until interrupted.
    """
    log, registry = open_log(bootstrap), Registry(tracking_uri)
    logger.info(f"Tidecast: New York taxi rides by half hours, on {log.label}")
    taxi = _taxi()
    cut = round(TRAINING_SHARE * len(taxi))
    topic = f"{NAME}-{time.strftime('%Y%m%d-%H%M%S')}"
    with progress("publish the past", cut) as report:
        publish_frame(taxi[:cut], log, topic, partitions=1, on_progress=lambda done, _: report(done))
    segment = ForecastConfig(arch="segment", dropout=0.1)  # one network: a minute is all there is
    job = TrainJob(name=NAME, freq=FREQ, horizon=HORIZON, seq_len=SEQ_LEN, config=segment)
    model = train(read_topic(log, topic), job, registry).version
    predictor = load_model(model.label, tracking_uri)
    board = Scoreboard(taxi["value"].to_numpy(), taxi["ts"].to_numpy(), cut)
    forecasts = Forecasts(log, f"{topic}-forecasts")
    options = ["--bootstrap", bootstrap, "--config", str(config), "--topic", topic, "--model", model.label]
    options += ["--output", forecasts.topic, "--group", f"tidecast-{topic}", "--from", "earliest", "--device", "auto"]
    with run_service(options, tracking_uri) as running:
        _wait_for_past(forecasts, running)
        first = _replay(log, topic, board, forecasts, running)
        print(json.dumps(_result(board, predictor, forecasts.topic, first - began)), flush=True)  # noqa: T201
        with mlflow_page(registry, stay) as page:
            _explain(bootstrap, registry, topic, page)
            if stay:
                _stay()


def _taxi() -> pl.DataFrame:
    with as_file(files("deploy.demo") / "data" / f"{SERIES}.csv") as path:
        return read_file(str(path)).frame


def _wait_for_past(forecasts: Forecasts, check: Callable[[], None]) -> None:
    """Wait until the service has forecast what is past."""
    with console.status("the service starts, and catches up with the past"):
        while not forecasts.new():
            check()
            time.sleep(TICK_S)


def _replay(log: EventLog, topic: str, board: Scoreboard, forecasts: Forecasts, check: Callable[[], None]) -> float:
    """Send what comes after the past, and collect its forecasts; when the first one was back, monotonic seconds."""
    producer, first, total = log.producer(), 0.0, len(board.forecasts)
    latest = time.monotonic()
    with _view(board) as show:
        while not board.known.all() and time.monotonic() < latest + PATIENCE_S:
            check()
            begun = time.monotonic()
            for row in range(board.sent, min(board.sent + EVENTS_A_TICK, total)):
                ts, value = int(board.times[board.cut + row]), float(board.values[board.cut + row])
                producer.send(topic, 0, SERIES.encode(), encode(Event(SERIES, ts, (value,))))
                board.sent, latest = row + 1, time.monotonic()
            producer.flush()
            for forecast in forecasts.new():
                board.note(forecast)
            first = first or (time.monotonic() if board.known.any() else 0.0)
            show()
            time.sleep(max(0.0, begun + TICK_S - time.monotonic()))
    producer.close()
    return first


@contextmanager
def _view(board: Scoreboard) -> Iterator[Callable[[], None]]:
    if not console.is_terminal:
        with progress("replay", len(board.forecasts)) as report:
            yield lambda: report(board.sent, board.line())
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda: live.update(board.picture(min(console.width, 120)), refresh=True)


def _result(board: Scoreboard, predictor: Predictor, output: str, first_forecast_s: float) -> dict[str, object]:
    ours, naive = board.errors()
    windows, forecasts = len(board.forecasts), int(board.known.sum())
    return {
        "events": board.sent,
        "windows": windows,
        "forecasts": forecasts,
        "lost": windows - forecasts,
        "first_forecast_s": round(first_forecast_s, 2),
        "mse": round(ours, 4),
        "naive_mse": round(naive, 4),
        "model": predictor.label,
        "device": predictor.device,
        "output_topic": output,
    }


def _explain(bootstrap: str, registry: Registry, topic: str, page: str) -> None:
    tidecast, log = program("tidecast"), "" if bootstrap == DEFAULT_LOG else f" --bootstrap {bootstrap}"
    models = log if registry.tracking_uri == DEFAULT_TRACKING else f"{log} --tracking-uri {registry.redacted_uri}"
    lines = (
        "",
        f"The forecasts:  {tidecast} tail {topic}-forecasts{log}",
        f"MLflow's page:  {page}",
        f"Your own data:  {tidecast} ingest FILE.csv --topic mine{log}",
        f"                {tidecast} train --topic mine --name my-model{models}",
        f"                {tidecast} serve --topic mine --model my-model@champion{models}",
    )
    for line in lines:
        console.print(escape(line), soft_wrap=True)


def _stay() -> None:
    logger.info("The service goes on with what arrives on its topic. Ctrl-C ends it.")
    with suppress(KeyboardInterrupt):
        signal.pause()
