"""Replays: several models from the same origins of a history, without touching a topic."""

import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from models import exported
from sharing import Shared

from deploy.evaluation.replay import ReplayJob, check_comparable
from deploy.models.loading import load_onnx
from deploy.settings.values import parse_time_option
from model.card import Card, InputSpec, OutputSpec, Setting
from tidecast.errors import ConfigError

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]
HOUR, START, STEPS, HORIZON = 3_600_000, 1_700_006_400_000, 240, 4
"""From midnight on."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two series of days that are alike, but for the last two of the second one."""
    hours = np.arange(STEPS)
    waves = {"a": np.sin(hours * math.tau / 24), "b": np.where(hours < STEPS - 48, np.cos(hours * math.tau / 24), 9.0)}
    parts = [pl.DataFrame({"series": name, "ts": START + hours * HOUR, "value": wave}) for name, wave in waves.items()]
    path = tmp_path / "past.parquet"
    pl.concat(parts).write_parquet(path)
    return path


@pytest.fixture
def longer(shared: Shared) -> Path:
    """A model that looks back twice as far as `own_model`."""
    return written(shared, "longer", seq_len=24)


def written(shared: Shared, name: str, seq_len: int, horizon: int = HORIZON) -> Path:
    settings: dict[str, Setting] = {"hidden": 8, "layers": 1, "dropout": 0.0, "location": "last", "segment": 4}
    card = Card(
        name=name,
        input=InputSpec(seq_len=seq_len, freq="1h"),
        output=OutputSpec(horizon=horizon),
        arch="segment",
        hyperparameters=settings,
        trained_until=START + 30 * HOUR,
    )
    return exported(shared, card)


def test_all_models_forecast_from_the_same_origins(
    archive: Path, own_model: Path, longer: Path, tidecast: Tidecast, tmp_path: Path
) -> None:
    models = ("--model", own_model, "--model", longer, "--model", "seasonal-naive", "--model", "last-value")
    ended = tidecast("replay", "--data", archive, *models, "--device", "cpu", "--json")
    assert ended.returncode == 0, ended.stderr
    found = msgspec.json.decode(ended.stdout.splitlines()[-1])
    assert found["windows"] == 2 * (STEPS - 24 - HORIZON + 1), "those that the longer look-back allows"
    assert (found["from"], found["to"]) == (START + 23 * HOUR, START + (STEPS - HORIZON - 1) * HOUR)
    assert list(found["models"]) == ["tiny.onnx", "longer.onnx", "seasonal-naive", "last-value"]
    assert found["best"] == min(found["models"], key=lambda name: found["models"][name]["mse"])
    assert all(facts["windows_per_s"] > 0 for facts in found["models"].values())
    assert Path(found["plot"]).is_file()
    assert not (tmp_path / ".tidecast" / "log.db").exists()
    assert "longer.onnx was trained on data up to 2023-11-16 06:00" in ended.stderr
    assert "tiny.onnx was trained" not in ended.stderr


def test_intervals_are_shown_with_the_share_asked_for_and_what_their_columns_mean(
    archive: Path, own_model: Path, tidecast: Tidecast
) -> None:
    ended = tidecast("replay", "--data", archive, "--model", own_model, "--coverage", "0.8", "--json")
    assert ended.returncode == 0, ended.stderr
    found, table = msgspec.json.decode(ended.stdout.splitlines()[-1]), " ".join(ended.stdout.split())
    assert found["coverage"] == 0.8
    assert "4 steps ahead, intervals of 80 %" in table
    assert "coverage: the share of values inside their intervals" in table
    assert f"{found['models']['tiny.onnx']['coverage']:.1%}" in table


def test_errors_are_over_the_origins_of_the_given_span(archive: Path, own_model: Path, tidecast: Tidecast) -> None:
    """Two days before the end the seasonal naive is right about all but the first change."""
    at = [f"{np.datetime64(START + hours * HOUR, 'ms')}" for hours in (STEPS - 48 - HORIZON, STEPS - 48)]
    span = ("--from", at[0], "--to", at[1])
    models = ("--model", "seasonal-naive", "--model", own_model)
    ended = tidecast("replay", "--data", archive, *span, *models, "--device", "cpu", "--json")
    assert ended.returncode == 0, ended.stderr
    found = msgspec.json.decode(ended.stdout.splitlines()[-1])
    assert found["windows"] == 2 * HORIZON
    frame = pl.read_parquet(archive)
    b = frame.filter(pl.col("series") == "b")["value"].to_numpy().astype(np.float32).astype(np.float64)
    ends = np.arange(STEPS - 48 - HORIZON, STEPS - 48)
    rows = ends[:, None] + np.arange(1, HORIZON + 1)
    wrong = (b[rows] - b[rows - 24]) ** 2 / b.var()
    assert found["models"]["seasonal-naive"]["mse"] == pytest.approx(wrong.mean() / 2, rel=1e-5), "a is always right"
    steps = found["models"]["seasonal-naive"]["by_step"]["mse"]
    assert steps == pytest.approx(wrong.mean(axis=0) / 2, rel=1e-5)


def test_models_and_spans_that_cannot_be_replayed_are_rejected(
    archive: Path, own_model: Path, tidecast: Tidecast, shared: Shared
) -> None:
    for arguments, why in (
        (("--model", "seasonal-naive"), "model: give a registered version or a file"),
        (("--model", own_model, "--from", "2030-01-01"), "from: no window of 12 steps, with the 4 after it known"),
        (("--model", own_model, "--from", "soon"), "from: 'soon' is not a time"),
        (("--model", own_model, "--from", "2023-12-01", "--to", "2023-11-01"), "from: --from 2023-12-01 is not before"),
        (("--model", own_model, "--model", written(shared, "far", 12, 5)), "can't be compared: 5 steps of"),
    ):
        ended = tidecast("replay", "--data", archive, *arguments)
        assert ended.returncode == 78
        assert why in ended.stderr


@pytest.mark.parametrize("share", ["1.5", "90", "1", "-0.5", "0.2", "0.99999", "0", "nan", "90%"])
def test_a_share_that_no_service_takes_is_refused_before_anything_is_read(tidecast: Tidecast, share: str) -> None:
    for command in (("replay", "--data", "none.csv"), ("serve", "--topic", "none")):
        ended = tidecast(*command, "--model", "none", "--coverage", share)
        assert (ended.returncode, ended.stderr.count("\n")) == (78, 1), ended.stderr
        assert "coverage: " in ended.stderr
        assert ("did you mean 0.9?" in ended.stderr) == (share in ("90", "90%"))


def test_models_with_different_windows_are_not_comparable(own_model: Path, foreign_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"written\.onnx and tiny can't be compared: windows of value, freq None"):
        check_comparable([load_onnx(own_model, "tiny", "cpu"), load_onnx(foreign_model, "written.onnx", "cpu")])


def test_a_time_option_is_a_time_or_a_duration_ago() -> None:
    assert parse_time_option("since", "2026-01-31T12:00") == 1_769_860_800_000
    assert parse_time_option("until", "2026-02-01T00:00+01:00") == 1_769_900_400_000
    assert parse_time_option("until", None) is None
    recent, older = parse_time_option("since", "89d"), parse_time_option("since", "90d")
    assert recent is not None
    assert older is not None
    assert recent - older == pytest.approx(86_400_000, abs=60_000)
    assert ReplayJob(models=("a",)).since is None
