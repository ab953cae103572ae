"""Retraining: challengers compared on unseen data, registered with the decision, and promoted or not."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from models import weights_are_not_finite
from tides import HOUR, JOB, SMALL, START, history, tide

from deploy.lifecycle.retrain import retrain
from deploy.models.loading import load_onnx
from deploy.training.forecasting import train
from model.artifacts.registry import Registry
from model.card import Card
from model.evaluation.promotion import required_steps
from model.training.forecast_config import ForecastConfig
from pipeline.datasets.history import History, from_frame
from tidecast.errors import RetrainingBusy

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_first_version_of_a_name_is_its_champion(empty: Registry, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deploy")
    assert {"model": "tides/1", "decision": "first"}.items() <= retrain(history(400), JOB, empty).items()
    assert empty.resolve("tides").label == "tides/1"
    assert "no model is called tides yet, so this trains the first; there are: none" in caplog.text


def test_a_first_version_only_is_trained_once(empty: Registry, tidecast: Tidecast, tmp_path: Path) -> None:
    history(400).frame.select("series", "ts", "value").write_csv(tmp_path / "tides.csv")
    command = ("retrain", "--name", "tides", "--data", "tides.csv", "--arch", "naive", "--first-only", "--json")
    said = [tidecast(*command, "--tracking-uri", empty.tracking_uri) for _ in range(2)]
    assert [json.loads(each.stdout.splitlines()[-1])["decision"] for each in said] == ["first", "not the first"]
    assert "tides/1: is the champion already: nothing to do" in said[1].stderr
    assert [each.label for each in empty.versions("tides")] == ["tides/1"]
    refused = tidecast(*command, "--on-drift", "--topic", "tides", "--tracking-uri", empty.tracking_uri)
    assert refused.returncode == 78


def test_after_drift_the_challenger_is_promoted_once_however_often_the_job_runs(registry: Registry) -> None:
    drifted = history(1600, turn=820)
    found = retrain(drifted, JOB, registry)
    assert {"model": "tides/2", "decision": "promote"}.items() <= found.items(), found
    version = registry.resolve("tides@champion")
    assert version == registry.resolve("tides@challenger")
    assert version.tags["verdict"] == "promote"
    assert version.tags["against"] == "tides/1"
    assert float(version.tags["low"]) > 0.01
    assert retrain(drifted, JOB, registry)["decision"] == "promoted before"
    assert registry.rollback("tides").label == "tides/1"
    assert retrain(drifted, JOB, registry)["decision"] == "promoted before", "who took it back meant it"
    assert registry.resolve("tides@champion").label == "tides/1"
    assert [each.label for each in registry.versions("tides")] == ["tides/2", "tides/1"]
    client = MlflowClient(registry.tracking_uri, registry.tracking_uri)
    files = {file.path for file in client.list_artifacts(version.run_id)}
    assert {"verdict.json", "verdict.png", "model.onnx", "weights.safetensors"} <= files


def test_a_worse_challenger_is_registered_and_not_promoted(registry: Registry) -> None:
    poor = replace(JOB, train=replace(JOB.train, config=ForecastConfig(arch="naive")))
    found = retrain(history(1600), poor, registry)
    assert {"model": "tides/2", "decision": "keep"}.items() <= found.items(), found
    assert registry.resolve("tides@champion").label == "tides/1"
    assert registry.resolve("tides@challenger").label == "tides/2"


@pytest.mark.slow
def test_a_champion_without_finite_forecasts_has_the_error_of_the_naive_ones_that_serve_in_their_place(
    registry: Registry, tmp_path: Path
) -> None:
    broken = onnx.load(registry.download(registry.resolve("tides"), tmp_path))
    weights_are_not_finite(broken)
    folder = tmp_path / "broken"
    folder.mkdir()
    onnx.save(broken, folder / "model.onnx")
    with registry.run("tides") as training:
        version = registry.register("tides", training, folder, tags=registry.resolve("tides").tags)
    registry.promote(version)
    found = retrain(history(1600), JOB, registry)
    assert found["decision"] == "promote"
    assert found["champion"] == found["naive"]


def test_with_nothing_newer_to_learn_from_it_says_what_is_missing_and_trains_nothing(registry: Registry) -> None:
    found = retrain(history(800 + required_steps(6)), JOB, registry)
    assert found["decision"] == "undecided"
    why = f"{required_steps(6)} steps are newer than the training data of tides/1, 6 are missing: 6 to learn from"
    assert why in str(found["why"])
    assert found["missing"] == 6, "as many as a decision takes are there, and none to learn from"
    assert len(registry.versions("tides")) == 1


def test_a_retraining_says_what_it_learned_from_and_what_it_kept_for_judging(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deploy")
    found: dict[str, Any] = retrain(history(800 + required_steps(6) + 6), JOB, registry)
    learned, judged = found["learned"], found["judged"]
    assert (learned["events"], learned["series"], learned["new_steps"]) == (806, 1, 6)
    assert (judged["events"], judged["series"]) == (required_steps(6), 1)
    assert (learned["from"], learned["to"]) == ("2024-01-01 00:00", "2024-02-03 13:00")
    assert (judged["from"], judged["to"]) == ("2024-02-03 14:00", "2024-02-08 18:00")
    assert "learns from 806 events of 1 series, 2024-01-01 00:00 to 2024-02-03 13:00 UTC, 6 steps of" in caplog.text
    assert json.loads(registry.resolve("tides/2").tags["judged"]) == judged


@pytest.mark.parametrize("option", [("--since", "2030-01-01"), ("--until", "2016-01-01")])
def test_a_period_without_events_is_an_error_for_a_new_and_for_a_known_name(
    registry: Registry, tidecast: Tidecast, option: tuple[str, str]
) -> None:
    history(100).frame.select("series", "ts", "value").write_csv("past.csv")
    for name in ("tides", "new"):
        command = ("retrain", "--data", "past.csv", "--name", name, "--tracking-uri", registry.tracking_uri)
        ended = tidecast(*command, *option)
        assert ended.returncode == 65, ended.stderr
        says = (
            f"past: there are no events {'from' if 'since' in option[0] else 'before'} {option[1]} 00:00; they are from"
        )
        assert ended.stderr.splitlines()[-1] == f"tidecast: {says} 2024-01-01 00:00 to 2024-01-05 03:00"
    crossed = tidecast(*command, "--since", "2024-01-03", "--until", "2024-01-02")
    assert crossed.returncode == 78
    assert "since: --since 2024-01-03 is not before --until 2024-01-02" in crossed.stderr


@pytest.mark.parametrize("uneven", [pytest.param(False, marks=pytest.mark.slow), True])
def test_steps_of_series_with_jitter_are_counted_once(empty: Registry, *, uneven: bool) -> None:
    """Two series whose events have their own seconds, on a grid or of no spacing: as many steps as one has."""
    train_job = replace(JOB.train, freq=None if uneven else "1h")
    spacing = np.random.default_rng(0).integers(HOUR // 4, 4 * HOUR, 1100)
    ts = START + (np.cumsum(spacing) if uneven else HOUR * np.arange(1100) + spacing // 32)

    def both(steps: int) -> History:
        parts = [
            pl.DataFrame({"series": [name] * steps, "ts": ts[:steps] + late, "value": tide(steps, 10**9, seed)})
            for seed, (name, late) in enumerate({"harbour": 0, "pier": HOUR // 8}.items())
        ]
        return from_frame(pl.concat(parts))

    def found(steps: int) -> dict[str, Any]:
        return retrain(both(steps), replace(JOB, train=train_job), empty)

    train(both(800), train_job, empty)
    assert json.loads(empty.resolve("tides").tags["input"]).get("freq") == train_job.freq
    assert found(800 + required_steps(6))["missing"] == 6, "half as many would do if each second were a step"
    enough = found(800 + required_steps(6) + 6)
    assert (enough["learned"]["new_steps"], enough["judged"]["events"]) == (6, 2 * required_steps(6))


@pytest.mark.slow
def test_models_are_compared_on_data_that_neither_was_trained_on(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    from deploy.lifecycle import retrain as module

    original = module.comparison_losses  # type: ignore[attr-defined]

    def observed(data: Any, fitted: Any, serving: Any, cuts: Any) -> Any:
        rows, lost = original(data, fitted, serving, cuts)
        seen.update(first=int(data.ts[rows + 1].min()), challenger=fitted.card.trained_until, champion=serving.card)
        return rows, lost

    monkeypatch.setattr(module, "comparison_losses", observed)
    warm = replace(JOB, start="warm")
    for hours in (1200, 1900):
        retrain(history(hours), warm, registry)
        assert seen["first"] > max(seen["challenger"], seen["champion"].trained_until)
        newest = registry.versions("tides")[0]
        assert int(newest.tags["ancestry_until"]) >= seen["champion"].trained_until


@pytest.mark.slow
def test_a_warm_start_begins_with_the_champion_s_weights(empty: Registry) -> None:
    train(history(800), replace(JOB.train, config=SMALL), empty)
    short = replace(JOB.train, config=replace(SMALL, epochs=1, learning_rate=1e-5))
    fresh, warm = (retrain(history(1600), replace(JOB, train=short, start=start), empty) for start in ("fresh", "warm"))
    assert float(str(warm["challenger"])) < 0.8 * float(str(fresh["challenger"]))


@pytest.mark.slow
def test_a_champion_far_worse_than_the_naive_forecast_does_not_stay_because_the_challenger_is_too(
    registry: Registry,
) -> None:
    """The tide's level jumps at each hour's end: what was learned is of no use, the value a day before is right."""
    levels = np.tile(np.random.default_rng(1).normal(10, 30, 24), 100)[:1600]
    values = np.where(np.arange(1600) < 1000, tide(1600, 10**9), levels)
    changed = replace(history(1600), frame=history(1600).frame.with_columns(value=pl.Series(values)))
    untaught = ForecastConfig(arch="lstm", hidden=1, epochs=1, learning_rate=1e-9)
    poor = replace(JOB, train=replace(JOB.train, config=untaught))
    found = retrain(changed, poor, registry)
    assert {"model": "tides/2", "decision": "promote", "contender": "naive (day)"}.items() <= found.items(), found
    assert float(str(found["naive"])) < float(str(found["challenger"]))
    version = registry.resolve("tides@champion")
    assert version.label == "tides/2"
    assert retrain(changed, poor, registry)["decision"] == "promoted before"
    predictor = load_onnx(registry.download(version, Path("models")), version.label, "cpu")
    assert isinstance(predictor.card, Card)
    assert (predictor.card.arch, predictor.card.networks[0]["lag"]) == ("naive", 24)


@pytest.mark.slow
def test_a_season_that_only_the_test_part_has_is_not_found(empty: Registry) -> None:
    hours = np.arange(1600)
    noise = np.random.default_rng(0).normal(10, 0.5, 1600)
    values = pl.Series(np.where(hours < 1230, noise, noise + 20 * np.sin(hours * 2 * np.pi / 7)))
    train(replace(history(800), frame=history(800).frame.with_columns(value=values[:800])), JOB.train, empty)
    found: dict[str, Any] = retrain(
        replace(history(1600), frame=history(1600).frame.with_columns(value=values)), JOB, empty
    )
    assert found["judged"]["events"] >= 370, "those of the season"
    assert json.loads(empty.resolve("tides/2").tags["input"]).get("season") is None


def test_a_second_retraining_at_once_is_rejected(registry: Registry, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".tidecast" / "locks" / "tides.lock"),
        pytest.raises(RetrainingBusy, match="another retraining"),
    ):
        retrain(history(1600), JOB, registry)
    assert len(registry.versions("tides")) == 1


class Arriving(io.BytesIO):
    """A file on standard input; something else happens while it is read."""

    def __init__(self, table: pl.DataFrame, meanwhile: Callable[[], object]) -> None:
        super().__init__(table.write_csv().encode())
        self.buffer, self.meanwhile = self, meanwhile

    def read(self, size: int | None = -1, /) -> bytes:
        self.meanwhile()
        return super().read(size)


def windy(table: History) -> History:
    return replace(table, frame=table.frame.with_columns(wind=pl.col("value") * 2))


@pytest.mark.slow
def test_a_version_promoted_while_the_history_is_read_is_not_compared_with(
    registry: Registry, tidecast: Tidecast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another version with other features: neither the columns read nor the verdict are about it."""
    train(windy(history(800)), replace(JOB.train, features=("value", "wind")), registry)
    locked: list[bool] = []

    def meanwhile() -> None:
        registry.promote(registry.resolve("tides/2"))
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".tidecast" / "locks" / "tides.lock").acquire(timeout=0)
        locked.append(True)

    table = windy(history(1600, turn=820)).frame.select("series", "ts", "value", "wind")
    monkeypatch.setattr(sys, "stdin", Arriving(table, meanwhile))
    ended = tidecast(
        *("retrain", "--name", "tides", "--data", "-", "--arch", "linear"),
        *("--tracking-uri", registry.tracking_uri, "--json"),
    )
    assert ended.returncode == 0, ended.stderr
    assert locked
    found = json.loads(ended.stdout.splitlines()[-1])
    assert (found["model"], found["decision"]) == ("tides/3", "overtaken")
    assert found["why"] == "tides/3 was judged against tides/1; 2 serves now"
    version = registry.resolve("tides/3")
    assert version.tags["against"] == "tides/1"
    assert json.loads(version.tags["input"])["features"] == ["value"]
    assert registry.resolve("tides").label == "tides/2"


@pytest.mark.slow
def test_a_first_version_overtaken_by_another_is_not_the_champion(
    empty: Registry, tidecast: Tidecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = history(400).frame.select("series", "ts", "value")
    other = replace(JOB.train, seq_len=24)
    monkeypatch.setattr(sys, "stdin", Arriving(table, lambda: train(history(400), other, empty)))
    ended = tidecast(
        *("retrain", "--name", "tides", "--data", "-", "--arch", "linear"),
        *("--tracking-uri", empty.tracking_uri, "--json"),
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert (found["model"], found["decision"]) == ("tides/2", "overtaken")
    assert "registered tides/2: the champion is still tides/1" in ended.stderr
    assert json.loads(empty.resolve("tides/2").tags["input"])["seq_len"] != 24, "nobody served when it began"


def test_a_different_horizon_is_rejected(registry: Registry) -> None:
    with pytest.raises(Exception, match="horizon: tides/1 forecasts 6 steps"):
        retrain(history(1600), replace(JOB, train=replace(JOB.train, horizon=7)), registry)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["uploaded", "registered", "challenger"])
def test_after_a_kill_at_any_step_the_next_attempt_yields_one_clean_version(
    registry: Registry, tmp_path: Path, step: str
) -> None:
    table = tmp_path / "tides.csv"
    history(1600, turn=820).frame.select("series", "ts", "value").write_csv(table)
    arguments = ("retrain", "--name", "tides", "--data", str(table), "--arch", "linear", "--json")
    command = [sys.executable, "-P", "-m", "tidecast", *arguments]

    def attempt(failpoint: str) -> "subprocess.CompletedProcess[str]":
        environment = {
            **os.environ,
            "TIDECAST_FAILPOINT": failpoint,
            "TIDECAST_TRACKING_URI": registry.tracking_uri,
            "PYTHONPATH": str(Path(__file__).parents[3]),
        }
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    killed = attempt(step)
    assert killed.returncode == -9, killed.stderr
    assert registry.resolve("tides@champion").label == "tides/1"
    done = attempt("")
    assert done.returncode == 0, done.stderr
    assert {"model": "tides/2", "decision": "promote"}.items() <= json.loads(done.stdout).items()
    assert [(each.label, "champion" in each.aliases) for each in registry.versions("tides")] == [
        ("tides/2", True),
        ("tides/1", False),
    ]
    client = MlflowClient(registry.tracking_uri, registry.tracking_uri)
    experiment = client.get_experiment_by_name("tides")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 2
