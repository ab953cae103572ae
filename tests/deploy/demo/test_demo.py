"""The demo's score."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deploy.demo.scoreboard import HORIZON, Scoreboard
from pipeline.formats.forecasts import Forecast

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]

HALF_HOUR = 1_800_000
CUT, STEPS = 700, 1000


def board() -> Scoreboard:
    steps = np.arange(STEPS)
    values = 100 + 10 * np.sin(steps * 2 * np.pi / 48) + np.random.default_rng(0).normal(0, 1, STEPS)
    return Scoreboard(values, steps * HALF_HOUR, CUT)


def forecast(row: int, values: list[float]) -> Forecast:
    ts = row * HALF_HOUR
    return Forecast("s", ts, ts + HALF_HOUR, HALF_HOUR, values, "model", "m/1")


def test_perfect_forecasts_have_no_error_and_naive_is_the_better_season() -> None:
    score = board()
    score.sent = STEPS - CUT
    for row in range(CUT, STEPS):
        score.add(forecast(row, [*score.values[row + 1 : row + 1 + HORIZON], *[0.0] * HORIZON][:HORIZON]))
    error, naive = score.errors()
    rows = np.arange(CUT, STEPS - HORIZON)[:, None] + np.arange(1, HORIZON + 1)
    errors = [np.mean((score.values[rows] - score.values[rows - lag]) ** 2) for lag in (48, 336)]
    assert error == pytest.approx(0, abs=1e-10)
    assert naive == pytest.approx(min(errors) / score.values[:CUT].var())


def test_only_forecasts_whose_targets_were_all_sent_are_scored() -> None:
    score = board()
    score.add(forecast(CUT, [0.0] * HORIZON))
    score.sent = HORIZON
    assert np.isnan(score.errors()[0])
    score.sent = HORIZON + 1
    assert score.errors()[0] > 1


def test_duplicates_and_forecasts_of_the_history_are_ignored() -> None:
    score = board()
    score.add(forecast(CUT - 1, [1.0] * HORIZON))
    assert not score.received.any()
    score.add(forecast(CUT + 5, [1.0] * HORIZON))
    score.add(forecast(CUT + 5, [1.0] * HORIZON))
    assert score.received.sum() == 1
    assert score.received[5]


def test_a_decode_that_is_not_of_its_events_is_refused_before_the_work(tidecast: Tidecast, tmp_path: Path) -> None:
    """Its events are its own, with fields of their own."""
    decode = "[decode]\nts = '$.payload.time'\n"
    for name, given in (("tidecast.toml", ()), ("own.toml", ("--config", "own.toml"))):
        (tmp_path / name).write_text(decode)
        ended = tidecast("demo", "--once", *given)
        assert (ended.returncode, ended.stdout) == (78, "")
        line = f"tidecast: {name}: the demo's events are its own, and have no use for [decode]: --config names another"
        assert ended.stderr.splitlines()[-1] == line
        assert not (tmp_path / ".tidecast").exists()
        (tmp_path / name).unlink()
