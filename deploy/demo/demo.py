"""The whole life of a forecast on one screen: publish, train, register, serve, replay, score."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import plotext
import polars as pl
from rich.console import Group
from rich.live import Live
from rich.text import Text

from deploy.console import console, progress, say
from deploy.serving.predictor import Predictor, load_model
from deploy.settings.defaults import DEFAULT_LOG, DEFAULT_TRACKING, HOME
from deploy.settings.files import open_log
from deploy.training.forecasting import TrainJob, train
from model.artifacts.registry import Registry
from model.evaluation.baselines import seasonal_naive
from model.evaluation.metrics import mse
from model.seasons import seasonal_lags
from model.training.forecasting import ForecastConfig
from pipeline.datasets.history import read_topic
from pipeline.datasets.measurements import publish, read_file
from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.log import EventLog
from tidecast.errors import ConfigError, UnknownTopic

NAME = "nyc-taxi"
SERIES = "nyc_taxi"
"""What a file of this name is called as a series."""
FREQ = "30m"
HORIZON = 48
SEQ_LEN = 336
TRAINING_SHARE = 0.7
EVENTS_A_TICK = 40
TICK_S = 0.1
PATIENCE_S = 60.0
"""How long a missing forecast is waited for before it counts as lost."""
SERVICE_LOG = HOME / "demo-service.log"
PAGE_LOG = HOME / "demo-mlflow.log"
SHOWN_STEPS = 192
"""How much of the past the plot shows: four days."""


@dataclass(slots=True)
class Scoreboard:
    """The replayed part of a series, the forecasts for it so far, and both errors on the same windows.

    `values` (T,) is the whole series, `times` (T,) its epoch milliseconds; the replay begins at row `cut`. Errors are
    z-scored by what lies before.
    """

    values: npt.NDArray[np.float64]
    times: npt.NDArray[np.int64]
    cut: int
    forecasts: npt.NDArray[np.float32] = field(init=False)
    sent: int = 0

    def __post_init__(self) -> None:
        self.forecasts = np.full((len(self.values) - self.cut, HORIZON), np.nan, np.float32)

    def note(self, forecast: Forecast) -> None:
        """Keep a forecast, if it is for a replayed event; a repeated one changes nothing."""
        row = int(np.searchsorted(self.times, forecast.ts)) - self.cut
        if row >= 0 and isinstance(forecast.forecast, list):
            self.forecasts[row] = forecast.forecast

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N,): which replayed events have a forecast."""
        return ~np.isnan(self.forecasts[:, 0])

    def errors(self) -> tuple[float, float]:
        """The forecasts' error, and the better seasonal naive's, where all targets have been sent; nan before."""
        rows = np.flatnonzero(self.known[: max(self.sent - HORIZON, 0)])
        ends, scale = rows + self.cut, float(self.values[: self.cut].std())
        actual = self.values[ends[:, None] + np.arange(1, HORIZON + 1)]
        first = np.zeros_like(ends)
        naives = [
            seasonal_naive(self.values[:, None], ends, first, HORIZON, lag)[..., 0]
            for lag in seasonal_lags(FREQ).values()
        ]
        return mse(self.forecasts[rows], actual, scale), min(mse(naive, actual, scale) for naive in naives)

    def picture(self, width: int) -> Group:
        """The newest stretch: what happened, and the last forecast over what is to come."""
        now, first = self.cut + self.sent, max(self.cut + self.sent - SHOWN_STEPS, 0)
        plotext.clf()
        plotext.theme("clear")
        plotext.plotsize(width, 16)
        past = list(range(first - now + 1, 1))
        plotext.plot(past, self.values[first:now].tolist(), label="actual", marker="braille", color="default")
        newest = int(np.flatnonzero(self.known)[-1]) if self.known.any() else -1
        for label, made, color in (("forecast a day ago", newest - HORIZON, "orange"), ("forecast", newest, "cyan+")):
            if made >= 0 and self.known[made]:
                ahead = np.arange(1, HORIZON + 1) + self.cut + made + 1 - now
                row = self.forecasts[made].tolist()
                plotext.plot(ahead.tolist(), row, label=label, marker="braille", color=color)
        plotext.xlim(-SHOWN_STEPS, HORIZON)
        plotext.ylim(0, 1.1 * float(self.values[: self.cut].max()))
        days = range(-SHOWN_STEPS, HORIZON + 1, HORIZON)
        plotext.xticks(list(days), [f"{step // HORIZON:+} d" if step else "now" for step in days])
        return Group(Text.from_ansi(plotext.build()), Text(self.line()))

    def line(self) -> str:
        """The running score in words."""
        ours, naive = self.errors()
        total = len(self.forecasts)
        score = f"error {ours:.3f}, seasonal naive {naive:.3f}" if ours == ours else "no forecast is a day old yet"
        return f"{self.sent:,} of {total:,} events sent, {int(self.known.sum()):,} forecasts back; {score}"


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
    say(f"Tidecast: New York taxi rides by half hours, on {log.label}")
    taxi = _taxi()
    cut = round(TRAINING_SHARE * len(taxi))
    topic = f"{NAME}-{time.strftime('%Y%m%d-%H%M%S')}"
    with progress("publish the past", cut) as report:
        publish(taxi[:cut], log, topic, partitions=1, on_progress=lambda done, _: report(done))
    segment = ForecastConfig(arch="segment", dropout=0.1)  # one network: a minute is all there is
    job = TrainJob(name=NAME, freq=FREQ, horizon=HORIZON, seq_len=SEQ_LEN, config=segment)
    model = train(read_topic(log, topic), job, registry).version
    predictor = load_model(model.label, tracking_uri)
    board = Scoreboard(taxi["value"].to_numpy(), taxi["ts"].to_numpy(), cut)
    forecasts = Forecasts(log, f"{topic}-forecasts")
    options = ["--bootstrap", bootstrap, "--config", str(config), "--topic", topic, "--model", model.label]
    options += ["--output", forecasts.topic, "--group", f"tidecast-{topic}", "--from", "earliest", "--device", "auto"]
    with _service(options, tracking_uri) as running:
        _wait_for_past(forecasts, running)
        first = _replay(log, topic, board, forecasts, running)
        print(json.dumps(_result(board, predictor, forecasts.topic, first - began)), flush=True)  # noqa: T201
        with _page(registry, stay) as page:
            _explain(bootstrap, registry, topic, page)
            if stay:
                _stay()


def _taxi() -> pl.DataFrame:
    with as_file(files("deploy.demo") / "data" / f"{SERIES}.csv") as path:
        return read_file(str(path)).frame


@contextmanager
def _service(options: list[str], tracking_uri: str) -> Iterator[Callable[[], None]]:
    """The real service, as a process of its own; yields a check that raises if it has ended."""
    HOME.mkdir(exist_ok=True)
    with SERVICE_LOG.open("w") as output:
        command = [sys.executable, "-P", "-m", "tidecast", "serve", *options]
        environment = os.environ | {"TIDECAST_TRACKING_URI": tracking_uri}  # a flag would show its password
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603

    def check() -> None:
        if process.poll() is not None:
            raise ConfigError(f"the service ended with {process.returncode}: {SERVICE_LOG.read_text().strip()[-500:]}")

    try:
        yield check
    finally:
        process.terminate()
        process.wait()


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
    tidecast, log = _program("tidecast"), "" if bootstrap == DEFAULT_LOG else f" --bootstrap {bootstrap}"
    models = log if registry.tracking_uri == DEFAULT_TRACKING else f"{log} --tracking-uri {registry.shown}"
    say("")
    say(f"The forecasts:  {tidecast} tail {topic}-forecasts{log}")
    say(f"MLflow's page:  {page}")
    say(f"Your own data:  {tidecast} ingest FILE.csv --topic mine{log}")
    say(f"                {tidecast} train --topic mine --name my-model{models}")
    say(f"                {tidecast} serve --topic mine --model my-model@champion{models}")


def _page(registry: Registry, stay: bool) -> AbstractContextManager[str]:
    """Where MLflow's page is: a server's address, one of our own while we stay, or the command that shows it."""
    if not registry.tracking_uri.startswith("sqlite"):
        return nullcontext(registry.shown)
    if stay:
        return _mlflow_page(registry.tracking_uri)
    return nullcontext(f"{_program('mlflow')} ui --backend-store-uri {registry.tracking_uri}")


def _program(name: str) -> str:
    """What to type to run a program of this environment."""
    return name if shutil.which(name) else os.path.relpath(Path(sys.executable).parent / name)


def _stay() -> None:
    say("The service goes on with what arrives on its topic. Ctrl-C ends it.")
    with suppress(KeyboardInterrupt):
        signal.pause()


@contextmanager
def _mlflow_page(tracking_uri: str) -> Iterator[str]:
    """MLflow's own page on a local store, as a process of its own; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with PAGE_LOG.open("w") as output:
        command += ["--backend-store-uri", tracking_uri]
        page = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603
    try:
        yield f"http://127.0.0.1:{port} (in a few seconds)"
    finally:
        page.terminate()
        page.wait()
