"""What MLflow's pages say of a training: on a real server, of a blend on a grid of seconds with a season of its own."""

import logging
import signal
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from waiting import ended, until

from deploy.data import DataSource
from deploy.training.forecasting import train
from deploy.training.jobs import TrainJob
from deploy.training.registration import RegisteredModel
from model.artifacts.registry import Registry
from model.training.forecast_config import ForecastConfig
from pipeline.datasets.columns import Columns

Fresh = Callable[[str], str]
Start = Callable[..., "subprocess.Popen[str]"]
SECONDS, PERIOD, HORIZON = 900, 60, 12
QUICK = ForecastConfig(hidden=8, epochs=2)
BY_HAND = {"validation_mse", "train_loss", "best_epoch", "gain_over_naive", "naive_last_mse", "naive_season_mse"}


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three machines, a value a second, with a period of a minute."""
    second = np.arange(SECONDS)
    numbers = np.random.default_rng(0)
    values = {f"m{place}": place + np.sin(second * np.pi * 2 / PERIOD + place) for place in range(3)}
    frame = pl.DataFrame({"ts": 1_704_067_200_000 + 1000 * second} | values)
    path = tmp_path_factory.mktemp("data") / "machines.csv"
    frame.with_columns(pl.col("^m.*$") + 0.1 * numbers.normal(size=SECONDS)).write_csv(path)
    return path


@pytest.fixture(scope="module")
def trained(mlflow_server: tuple[str, Path], machines: Path) -> tuple[RegisteredModel, str]:
    """A blend of these machines, on the run's server."""
    source, registry = DataSource(file=str(machines), columns=Columns()), Registry(mlflow_server[0])
    history = source.history("1s")
    job = TrainJob(name="machines-described", freq="1s", horizon=HORIZON, config=QUICK)
    return train(history, job, registry, source.dataset(history)), mlflow_server[0]


def run_of(trained: tuple[RegisteredModel, str]) -> tuple[MlflowClient, Run]:
    registered, uri = trained
    client = MlflowClient(uri, uri)
    return client, client.get_run(registered.version.run_id)


def test_the_run_s_values_are_the_registered_model_s_and_each_network_has_a_curve(
    trained: tuple[RegisteredModel, str],
) -> None:
    client, run = run_of(trained)
    card = trained[0].candidate.card
    assert run.data.metrics.keys() >= BY_HAND
    for name in ("validation_mse", "naive_season_mse"):
        (point,) = client.get_metric_history(run.info.run_id, name)
        assert point.value == pytest.approx(card.metrics[name]), "not that of a network that came last"
    curves = {name.rpartition("/")[0] for name in run.data.metrics if name.endswith("/validation_mse")}
    assert {"segment-1", "segment-2", "linear-1", "naive-1"} <= curves
    for curve in ("segment-1", "segment-2"):
        points = client.get_metric_history(run.info.run_id, f"{curve}/validation_mse")
        assert sorted(point.step for point in points) == [1, 2], "each epoch once"
    assert "naive_day_mse" not in run.data.metrics, "a day is longer than the data, so it would be the last value again"


def test_the_run_tells_its_data_and_the_model_s_worth(trained: tuple[RegisteredModel, str]) -> None:
    _, run = run_of(trained)
    assert run.info.run_name is not None
    assert run.info.run_name.startswith("machines-described 20")
    assert run.info.status == "FINISHED"
    assert run.inputs is not None
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.source_type) == ("machines", "file")
    assert given.dataset.source == '{"file":"machines.csv"}'
    assert len(given.dataset.digest) == 32
    assert f'"events":{3 * SECONDS}' in str(given.dataset.profile)
    assert run.data.params["season"] == str(PERIOD)
    assert run.data.params["trained_until"] == "2024-01-01 00:14 UTC"
    note = run.data.tags["mlflow.note.content"]
    card = trained[0].candidate.card
    assert f"mean squared error is **{card.metrics['validation_mse']:.4g}**" in note
    assert f"the value a season before ({PERIOD} steps), has {card.metrics['naive_season_mse']:.4g}" in note
    assert f"get-artifact?path=forecasts.png&run_uuid={run.info.run_id}" in note


def test_the_version_has_the_description_and_mlflow_loads_it_by_its_signature(
    trained: tuple[RegisteredModel, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, run = run_of(trained)
    version = client.get_model_version("machines-described", trained[0].version.number)
    assert version.description == run.data.tags["mlflow.note.content"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained[1])
    mlflow.set_tracking_uri(trained[1])
    mlflow.set_registry_uri(trained[1])
    examples = trained[0].candidate.examples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own type hints, and packages that it would rather have
        model = mlflow.pyfunc.load_model("models:/machines-described@champion")
        forecast = model.predict({name: np.asarray(rows) for name, rows in examples.items()})
    assert forecast["forecast"].shape == (len(examples["x"]), HORIZON, 1)


def test_its_page_is_said_before_the_training(
    mlflow_server: tuple[str, Path], machines: Path, fresh: Fresh, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deploy")
    uri, name = mlflow_server[0], fresh("said")
    source = DataSource(file=str(machines))
    job = TrainJob(name=name, freq="1s", horizon=HORIZON, config=replace(QUICK, arch="linear"))
    version = train(source.history("1s"), job, Registry(uri)).version
    (said,) = [line for line in caplog.messages if line.startswith("run: ")]
    assert said.endswith(f"/runs/{version.run_id}")
    assert said.startswith(f"run: {uri}/#/experiments/")
    assert f"season: {PERIOD} steps, found in the data" in " ".join(caplog.messages)


def test_a_failed_training_ends_its_run(mlflow_server: tuple[str, Path], machines: Path, fresh: Fresh) -> None:
    uri, name = mlflow_server[0], fresh("failed")
    config = replace(QUICK, arch="segment", learning_rate=1e38)
    job = TrainJob(name=name, freq="1s", horizon=HORIZON, config=config)
    with pytest.raises(ValueError, match="learning_rate"):
        train(DataSource(file=str(machines)).history("1s"), job, Registry(uri))
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.params["learning_rate"] == "1e+38", "what it was is known"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_training_that_is_stopped_ends_its_run(
    mlflow_server: tuple[str, Path], machines: Path, fresh: Fresh, start_tidecast: Start, number: int, code: int
) -> None:
    uri, name = mlflow_server[0], fresh("stopped")
    options = ("--data", machines, "--name", name, "--tracking-uri", uri, "--arch", "segment", "--epochs", 10_000)
    training = start_tidecast("train", *options)
    client = MlflowClient(uri, uri)

    def runs() -> list[Run]:
        experiment = client.get_experiment_by_name(name)
        return [] if experiment is None else [*client.search_runs([experiment.experiment_id])]

    until(lambda: any("train_loss" in run.data.metrics for run in runs()), training)
    assert [run.info.status for run in runs()] == ["RUNNING"]
    training.send_signal(number)
    ended_with, out, err = ended(training)
    assert (ended_with, out) == (code, "")
    assert "Traceback" not in err
    assert [run.info.status for run in runs()] == ["KILLED"]
