"""Backtests: how a history is cut, that nothing leaks from the test part, and the report."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.evaluation.backtest import BacktestJob, BacktestResult, protocol_cuts, run_backtest
from deploy.training.jobs import TrainJob
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import forecast
from pipeline.datasets.history import History, from_frame
from tidecast.errors import ConfigError

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR
QUICK = TrainJob(name="waves", horizon=6, seq_len=24, config=ForecastConfig(hidden=4, epochs=1))
JOB = BacktestJob(train=QUICK, statistical=False)


def waves(steps: int = 400, series: int = 2) -> History:
    noise = np.random.default_rng(0)
    hours = np.arange(steps)
    parts = [
        pl.DataFrame(
            {
                "series": [f"s{number}"] * steps,
                "ts": START + hours * HOUR,
                "value": 10.0**number * (np.sin(hours * np.pi / 12) + noise.normal(0, 0.2, steps)),
            }
        )
        for number in range(series)
    ]
    return from_frame(pl.concat(parts))


@pytest.mark.parametrize(
    ("protocol", "test", "freq", "rows", "expected"),
    [
        ("ett", "", "1h", 17_420, (8640, 11_520, 14_400)),
        ("ett", "", "15m", 69_680, (4 * 8640, 4 * 11_520, 4 * 14_400)),
        ("70-10-20", "", "1h", 1003, (702, 803, None)),
        ("rolling", "0.2", "1h", 1000, (686, 800, None)),
        ("rolling", "100", "1h", 1000, (771, 900, None)),
        ("rolling", "2d", "1h", 1000, (816, 952, None)),
        ("rolling", "14d", "1h", 1000, (569, 664, None)),
    ],
)
def test_protocols_cut_a_history_by_rows(
    protocol: str, test: str, freq: str, rows: int, expected: tuple[int, int, int | None]
) -> None:
    step = HOUR if freq == "1h" else HOUR // 4
    times = START + np.arange(rows) * step
    job = replace(JOB, protocol=protocol, test=test)  # type: ignore[arg-type]
    cuts, end = protocol_cuts(times, job, freq)
    assert [(time - START) // step for time in (cuts.validation, cuts.test)] == list(expected[:2])
    assert end == (2**62 if expected[2] is None else START + expected[2] * step)


@pytest.mark.parametrize(
    ("protocol", "test", "freq", "rows", "message"),
    [
        ("ett", "", "1h", 14_399, "protocol: ett needs 14,400 steps, and there are 14,399"),
        ("ett", "", "1mo", 20_000, "protocol: ett counts days"),
        ("rolling", "soon", "1h", 1000, "test: 'soon' is not a share"),
        ("rolling", "10.5", "1h", 1000, "test: '10.5' is not a whole number"),
        ("rolling", "1000", "1h", 1000, "test: 1,000 steps can't be cut"),
        ("rolling", "0", "1h", 1000, "test: 1,000 steps can't be cut"),
        ("70-10-20", "", "1h", 3, "test: 3 steps can't be cut"),
    ],
)
def test_impossible_cuts_are_rejected(protocol: str, test: str, freq: str, rows: int, message: str) -> None:
    job = replace(JOB, protocol=protocol, test=test)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"^{message}"):
        protocol_cuts(START + np.arange(rows) * HOUR, job, freq)


@pytest.fixture(scope="module")
def result() -> BacktestResult:
    return run_backtest(waves(), JOB)


def test_every_origin_of_the_test_part_is_scored(result: BacktestResult) -> None:
    assert len(result.test) == 2 * (80 - 6 + 1)
    assert result.data.ts[result.test + 1].min() == START + 320 * HOUR
    assert set(result.naive) == {"last", "day", "week"}
    assert result.overall["mse"] == result.runs[0][1].overall()["mse"]


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.0, 1.0, 1e6]))
@settings(max_examples=8)
def test_no_data_of_the_test_part_leaks_into_the_model(result: BacktestResult, seed: int, size: float) -> None:
    """Weights, shapes and all that the card says are the same whatever happens later, and so is a forecast."""
    history = waves()
    value = pl.Series(size * np.random.default_rng(seed).normal(size=len(history.frame)))
    later = pl.col("ts") >= START + 320 * HOUR
    altered = replace(
        history, frame=history.frame.with_columns(pl.when(later).then(value).otherwise("value").alias("value"))
    )
    again = run_backtest(altered, JOB)
    (before, _), (after, _) = result.runs[0], again.runs[0]
    assert after.card == before.card
    for one, other in zip(before.model.state_dict().values(), after.model.state_dict().values(), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()
    first = result.test[result.data.ts[result.test] < START + 320 * HOUR]
    assert len(first) == 2
    assert forecast(after.model, again.data, first).tobytes() == forecast(before.model, result.data, first).tobytes()


def test_backtest_prints_a_table_and_writes_a_plot_and_all_errors(
    tidecast: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    waves(series=3).frame.select("series", "ts", "value").write_csv(tmp_path / "waves.csv")
    done = tidecast(
        *("backtest", "--data", "waves.csv", "--horizon", 6, "--seq-len", 24, "--test", "2d"),
        *("--seeds", 2, "--epochs", 2, "--budget", "2s", "--json"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["windows"] == 3 * (48 - 6 + 1)
    assert found["mse"] == pytest.approx(sum(seed["mse"] for seed in found["seeds"]) / 2)
    assert set(found["by_series"]) == {"s0", "s1", "s2"}
    assert len(found["by_step"]["mse"]) == 6
    assert found["baselines"][found["better_naive"]]["mse"] == min(each["mse"] for each in found["baselines"].values())
    assert found["statistical"]["every"] == 3
    assert {"MSTL", "tidecast"} < set(found["statistical"])
    assert (tmp_path / found["plot"]).read_bytes().startswith(b"\x89PNG")
    assert "naive (day)" in done.stdout
    best = f"naive ({found['better_naive']})"
    assert set(found["intervals"]) == set(found["crps"]) == {"Tidecast", best}
    ours, naive = found["intervals"]["Tidecast"]["90"], found["intervals"][best]["90"]
    assert f"Tidecast, 90 %  {ours['coverage']:.1%}".split() == _row(done.stdout, "Tidecast, 90 %")[:4]
    assert 0.8 < ours["coverage"] <= 1
    assert ours["winkler"] >= ours["width"] > found["intervals"]["Tidecast"]["80"]["width"]
    assert naive["width"] > 0
    assert 0 < found["crps"]["Tidecast"] < found["mae"]
    assert [len(steps) for steps in found["coverage_by_step"].values()] == [6, 6]
    assert found["without_interval"] == 0


def _row(table: str, name: str) -> list[str]:
    return next(line for line in table.splitlines() if line.startswith(name)).split()


def test_intervals_of_a_backtest_cover_what_they_say() -> None:
    linear = replace(JOB, train=replace(QUICK, config=ForecastConfig(arch="linear")))
    summary: dict[str, Any] = run_backtest(waves(1500), linear).intervals.summary()
    for scores in summary["intervals"].values():
        assert [scores[level]["coverage"] for level in ("80", "90")] == pytest.approx([0.8, 0.9], abs=0.04)
    assert min(summary["crps"], key=summary["crps"].get) == "Tidecast"
