"""Frames in, frames out."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from deploy.forecaster import Forecaster
from model.forecasting import ForecastConfig

START = datetime(2024, 1, 1)
QUICK = ForecastConfig(arch="segment", hidden=8, epochs=2)


def frame(steps: int = 300, short: int = 10) -> pl.DataFrame:
    """Two hourly waves and a short one."""
    noise = np.random.default_rng(0)
    parts = []
    for name, count in (("a", steps), ("b", steps), ("short", short)):
        hours = np.arange(steps - count, steps)
        wave = np.sin(hours * np.pi / 12) + noise.normal(0, 0.1, count)
        moments = [START + timedelta(hours=int(hour)) for hour in hours]
        parts.append(pl.DataFrame({"unique_id": [name] * count, "ds": moments, "y": wave}))
    return pl.concat(parts)


def forecaster() -> Forecaster:
    return Forecaster(horizon=6, seq_len=24, config=QUICK)


def test_a_frame_becomes_a_frame_of_what_follows() -> None:
    made = forecaster().fit(frame()).predict()
    assert made.columns == ["unique_id", "ds", "Tidecast", "source"]
    assert made.group_by("unique_id", maintain_order=True).len().rows() == [("a", 6), ("b", 6), ("short", 6)]
    ahead = [START + timedelta(hours=300 + step) for step in range(6)]
    assert made.filter(pl.col("unique_id") == "b")["ds"].to_list() == ahead
    assert dict(made.select("unique_id", "source").unique().rows()) == {"a": "model", "b": "model", "short": "naive"}
    assert made["Tidecast"].is_finite().all()


def test_a_later_frame_is_forecast_without_learning() -> None:
    model = forecaster().fit(frame(250))
    later = model.predict(frame(300))
    assert later["ds"].min() == START + timedelta(hours=300)
    assert later.equals(model.predict(frame(300)))


def test_pandas_in_is_pandas_out() -> None:
    model = forecaster().fit(frame().to_pandas())
    made = model.predict()
    assert isinstance(made, pd.DataFrame)
    assert made.equals(model.predict(frame().to_pandas()))
    assert (
        forecaster().fit(frame()).predict().equals(pl.from_pandas(made).cast(dict.fromkeys(["ds"], pl.Datetime("ms"))))
    )


def test_cut_offs_are_forecast_from_what_lies_before_them() -> None:
    known = frame(short=200)
    made = forecaster().cross_validation(known, n_windows=3, step_size=4)
    assert made.columns == ["unique_id", "ds", "cutoff", "y", "Tidecast"]
    hours = [START + timedelta(hours=hour) for hour in (285, 289, 293)]
    assert sorted(made["cutoff"].unique()) == hours
    assert len(made) == 3 * 3 * 6
    assert made.join(known, on=["unique_id", "ds"]).select((pl.col("y") - pl.col("y_right")).abs().max()).item() == 0
    for cutoff in hours:
        later = known.with_columns(pl.when(pl.col("ds") > cutoff).then(1e6).otherwise("y").alias("y"))
        again = forecaster().cross_validation(later, n_windows=3, step_size=4)
        until = pl.col("cutoff") <= cutoff
        assert again.filter(until)["Tidecast"].equals(made.filter(until)["Tidecast"])


def test_several_columns_forecast_some_of_them() -> None:
    known = frame().rename({"y": "load"}).with_columns(heat=pl.col("load") * 10, rain=pl.col("load").abs())
    several = {"features": ("rain", "load", "heat"), "targets": ("heat", "load"), "config": QUICK}
    made = Forecaster(horizon=6, seq_len=24, **several).fit(known).predict()
    assert made.columns == ["unique_id", "ds", "Tidecast-heat", "Tidecast-load", "source"]
    naive = made.filter(pl.col("source") == "naive").select(pl.col("Tidecast-heat") - 10 * pl.col("Tidecast-load"))
    assert naive.to_series().abs().max() < 1e-4
    crossed = Forecaster(horizon=6, seq_len=24, **several).cross_validation(known)
    assert crossed.columns == ["unique_id", "ds", "cutoff", "y-heat", "y-load", "Tidecast-heat", "Tidecast-load"]
    assert crossed["y-heat"].to_list() == [10 * value for value in crossed["y-load"]]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match=r"^predict: fit comes first"):
        forecaster().predict()
    with pytest.raises(ValueError, match=r"^n_windows: 60 cut-offs do not lie in 300 steps"):
        forecaster().cross_validation(frame(), n_windows=60)
    with pytest.raises(ValueError, match=r"frame: no column of times"):
        forecaster().fit(frame().drop("ds"))


def test_months_ahead_are_months(tmp_path: Path) -> None:
    moments = [datetime(2000 + month // 12, month % 12 + 1, 1) for month in range(120)]
    monthly = pl.DataFrame({"ds": moments, "y": np.sin(np.arange(120.0))})
    made = Forecaster(horizon=3, config=QUICK).fit(monthly).predict()
    assert made["ds"].to_list() == [datetime(2010, 1, 1), datetime(2010, 2, 1), datetime(2010, 3, 1)]
