"""Training and serving that share nothing but an MLflow server."""

import json
import math
import re
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from mlflow import MlflowClient
from waiting import PATIENCE_S

from model.artifacts.registry import Registry
from model.artifacts.versions import sha256
from pipeline.formats.forecasts import Forecast
from pipeline.log import Record
from pipeline.log.connect import connect

Tidecast = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
UntilWritten = Callable[..., list[Record]]

START = 1_704_067_200_000
HOUR = 3_600_000
EVENTS, SEQ_LEN, HORIZON, EPOCHS = 400, 24, 6, 2
SHAPE = ("--seq-len", SEQ_LEN, "--horizon", HORIZON, "--epochs", EPOCHS, "--hidden", 8, "--arch", "segment")


@pytest.fixture
def tides(tmp_path: Path) -> Path:
    """A small file of one series: its level, and how much of that is the tide."""
    waves = [math.sin(hour * math.tau / 12) for hour in range(EVENTS)]
    rows = [f"{START // 1000 + hour * 3600},{10 + hour / 100 + wave},{wave}" for hour, wave in enumerate(waves)]
    path = tmp_path / "tides.csv"
    path.write_text("ts,level,wave\n" + "\n".join(rows))
    return path


def last_line(ended: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """The JSON object that a command printed."""
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    summary: dict[str, object] = json.loads(line)
    return summary


@pytest.mark.slow
def test_versions_over_http(
    mlflow_server: tuple[str, Path],
    tidecast: Tidecast,
    start_tidecast: Start,
    until_written: UntilWritten,
    tides: Path,
    tmp_path: Path,
) -> None:
    uri, _ = mlflow_server
    train = ("train", "--data", tides, "--value-column", "level", "--name", "tides", "--tracking-uri", uri, "--json")
    ended = tidecast(*train, *SHAPE)
    first = last_line(ended)
    assert {"model": "tides/1", "freq": "1h", "seq_len": SEQ_LEN, "epochs": EPOCHS}.items() <= first.items()
    assert "epoch 2: validation error" in ended.stderr
    assert ended.stderr.endswith("registered tides/1: the champion\n")
    the_run_holds_all_there_is(uri, first)
    second = last_line(tidecast(*train, *SHAPE, "--seed", 1))
    assert second["model"] == "tides/2"
    assert second["sha256"] != first["sha256"]
    assert Registry(uri).resolve("tides@champion").label == "tides/1"

    last_line(tidecast("ingest", tides, "--topic", "tides", "--value-column", "level", "--json"))
    forecasts, summary = served("tides@champion", uri, start_tidecast, until_written, tmp_path)
    assert {"model": "tides/1", "forecasts": EVENTS - SEQ_LEN + 1}.items() <= summary.items()
    assert {(forecast.model, forecast.step) for forecast in forecasts} == {("tides/1", HOUR)}
    assert sha256(tmp_path / ".tidecast" / "models" / f"{first['sha256']}.onnx") == first["sha256"]
    forecasts, summary = served("tides/2", uri, start_tidecast, until_written, tmp_path)
    assert summary["model"] == "tides/2"


def the_run_holds_all_there_is(uri: str, summary: dict[str, object]) -> None:
    client, version = MlflowClient(uri, uri), Registry(uri).resolve("tides/1")
    files = {file.path for file in client.list_artifacts(version.run_id)}
    ours = {"model.onnx", "weights.safetensors", "card.json", "example.safetensors", "forecasts.png"}
    assert files == ours | {"MLmodel"}
    run = client.get_run(version.run_id)
    assert {
        "arch": "segment",
        "hidden": "8",
        "seed": "0",
        "learning_rate": "0.003",
        "freq": "1h",
        "seq_len": str(SEQ_LEN),
        "horizon": str(HORIZON),
        "features": "value",
    }.items() <= run.data.params.items()
    assert re.fullmatch(r"9\.\d+ to 14\.\d+", run.data.params["value_range"])
    for name in ("train_loss", "validation_mse"):
        steps = [point.step for point in client.get_metric_history(version.run_id, name)]
        assert sorted(steps) == list(range(1, EPOCHS + 2)), "an epoch each, and the last for the model that was kept"
        assert run.data.metrics.keys() >= {name, "naive_last_mse", "naive_day_mse"}
    assert version.sha256 == summary["sha256"]
    assert version.tags["trained_until"] == str(START + (EVENTS - 1) * HOUR)
    assert json.loads(version.tags["offsets"]) == {"0": [0, EVENTS]}


def served(
    model: str, uri: str, start_tidecast: Start, until_written: UntilWritten, tmp_path: Path
) -> tuple[list[Forecast], dict[str, object]]:
    """The forecasts of all full windows on the topic, and the service's summary."""
    output = model.replace("@", "-").replace("/", "-")
    options = ("--topic", "tides", "--output", output, "--group", output, "--model", model, "--tracking-uri", uri)
    service = start_tidecast("serve", *options, "--json")
    with closing(connect(f"sqlite:{tmp_path / '.tidecast' / 'log.db'}")) as log:
        records = until_written(log, output, EVENTS - SEQ_LEN + 1, service)
    service.terminate()
    out, err = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0, err
    decode = msgspec.json.Decoder(Forecast).decode
    return [decode(record.value or b"") for record in records], json.loads(out)


@pytest.mark.slow
def test_several_features_and_a_forecast_of_the_first(
    mlflow_server: tuple[str, Path],
    tidecast: Tidecast,
    start_tidecast: Start,
    until_written: UntilWritten,
    tides: Path,
    tmp_path: Path,
) -> None:
    features = ("--features", "level,wave")
    last_line(tidecast("ingest", tides, "--topic", "tides", *features, "--json"))
    made = tidecast(
        "train", "--topic", "tides", "--name", "both", *features, *SHAPE, "--tracking-uri", mlflow_server[0]
    )
    assert (made.returncode, made.stdout) == (0, ""), made.stderr
    forecasts, _ = served("both@champion", mlflow_server[0], start_tidecast, until_written, tmp_path)
    assert all(isinstance(forecast.forecast, list) and len(forecast.forecast) == HORIZON for forecast in forecasts)
    levels = [forecast.forecast[0] for forecast in forecasts if isinstance(forecast.forecast, list)]
    assert 8 < min(levels) < max(levels) < 16, "of the level, not of the wave"
