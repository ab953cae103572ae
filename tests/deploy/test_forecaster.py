"""Forecaster: fit, predict and cross_validation of polars and pandas frames."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from model.training.forecast_config import ForecastConfig
from tidecast import Forecaster
from tidecast.errors import ConfigError, DataError

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


def test_predict_returns_the_horizon_of_every_series() -> None:
    made = forecaster().fit(frame()).predict()
    assert made.columns == ["unique_id", "ds", "Tidecast", "source"]
    assert made.group_by("unique_id", maintain_order=True).len().rows() == [("a", 6), ("b", 6), ("short", 6)]
    ahead = [START + timedelta(hours=300 + step) for step in range(6)]
    assert made.filter(pl.col("unique_id") == "b")["ds"].to_list() == ahead
    assert dict(made.select("unique_id", "source").unique().rows()) == {"a": "model", "b": "model", "short": "naive"}
    assert made["Tidecast"].is_finite().all()


def test_predict_of_a_later_frame_does_not_train() -> None:
    model = forecaster().fit(frame(250))
    later = model.predict(frame(300))
    assert later["ds"].min() == START + timedelta(hours=300)
    assert later.equals(model.predict(frame(300)))


def test_pandas_frames_give_pandas_forecasts() -> None:
    model = forecaster().fit(frame().to_pandas())
    made = model.predict()
    assert isinstance(made, pd.DataFrame)
    assert made.equals(model.predict(frame().to_pandas()))
    assert (
        forecaster().fit(frame()).predict().equals(pl.from_pandas(made).cast(dict.fromkeys(["ds"], pl.Datetime("ms"))))
    )


def test_cross_validation_forecasts_from_data_before_each_cutoff() -> None:
    known = frame(short=200)
    made = forecaster().cross_validation(known, n_windows=3, step_size=4)
    assert made.columns == ["unique_id", "ds", "cutoff", "y", "Tidecast", "source"]
    hours = [START + timedelta(hours=hour) for hour in (285, 289, 293)]
    assert sorted(made["cutoff"].unique()) == hours
    assert len(made) == 3 * 3 * 6
    assert made.join(known, on=["unique_id", "ds"]).select((pl.col("y") - pl.col("y_right")).abs().max()).item() == 0
    for cutoff in hours:
        later = known.with_columns(pl.when(pl.col("ds") > cutoff).then(1e6).otherwise("y").alias("y"))
        again = forecaster().cross_validation(later, n_windows=3, step_size=4)
        until = pl.col("cutoff") <= cutoff
        assert again.filter(until)["Tidecast"].equals(made.filter(until)["Tidecast"])


def test_several_features_and_targets() -> None:
    known = frame().rename({"y": "load"}).with_columns(heat=pl.col("load") * 10, rain=pl.col("load").abs())
    several: dict[str, Any] = {"features": ("rain", "load", "heat"), "targets": ("heat", "load"), "config": QUICK}
    made = Forecaster(horizon=6, seq_len=24, **several).fit(known).predict()
    assert made.columns == ["unique_id", "ds", "Tidecast-heat", "Tidecast-load", "source"]
    naive = made.filter(pl.col("source") == "naive").select(pl.col("Tidecast-heat") - 10 * pl.col("Tidecast-load"))
    assert naive.to_series().abs().max() < 1e-4
    crossed = Forecaster(horizon=6, seq_len=24, **several).cross_validation(known)
    assert crossed.columns == [
        "unique_id",
        "ds",
        "cutoff",
        "y-heat",
        "y-load",
        "Tidecast-heat",
        "Tidecast-load",
        "source",
    ]
    assert crossed["y-heat"].to_list() == [10 * value for value in crossed["y-load"]]


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(ValueError, match=r"^predict: fit comes first"):
        forecaster().predict()
    with pytest.raises(ValueError, match=r"^n_windows: 60 cutoffs do not fit into 300 steps"):
        forecaster().cross_validation(frame(), n_windows=60)
    with pytest.raises(ValueError, match=r"frame: no column of times"):
        forecaster().fit(frame().drop("ds"))


def test_monthly_steps_are_calendar_months(tmp_path: Path) -> None:
    moments = [datetime(2000 + month // 12, month % 12 + 1, 1) for month in range(120)]
    monthly = pl.DataFrame({"ds": moments, "y": np.sin(np.arange(120.0))})
    made = Forecaster(horizon=3, config=QUICK).fit(monthly).predict()
    assert made["ds"].to_list() == [datetime(2010, 1, 1), datetime(2010, 2, 1), datetime(2010, 3, 1)]


def heated(steps: int = 400) -> pl.DataFrame:
    """Two series that follow a heat which nothing before it tells."""
    noise = np.random.default_rng(1)
    parts = []
    for name, times in (("a", 1.0), ("b", 3.0)):
        heat = noise.normal(20, 5, steps).round(2)
        moments = [START + timedelta(hours=hour) for hour in range(steps)]
        y = times * (2 * heat + noise.normal(0, 0.5, steps))
        parts.append(pl.DataFrame({"unique_id": [name] * steps, "ds": moments, "load": y, "heat": heat}))
    return pl.concat(parts)


def knowing() -> Forecaster:
    config = ForecastConfig(arch="segment", hidden=16, epochs=30)
    return Forecaster(horizon=6, seq_len=24, features=("load", "heat"), known=("heat",), config=config)


def test_rows_that_repeat_are_refused_unless_they_are_aggregated() -> None:
    rows = pl.DataFrame({"ds": [datetime(2024, 1, 1) + timedelta(hours=at // 2) for at in range(200)], "y": range(200)})
    with pytest.raises(DataError, match=r"frame: 100 of 200 measurements, 50\.0%, are left out: .* aggregate='mean'$"):
        Forecaster(horizon=2, arch="naive").fit(rows)
    fitted = Forecaster(horizon=2, arch="naive", freq="1h", aggregate="mean").fit(rows)
    assert fitted.predict()["ds"][0] == datetime(2024, 1, 5, 3)  # the last hour may not be over


def test_future_covariates_improve_a_forecast() -> None:
    whole, last = heated(), START + timedelta(hours=394)
    past, coming = whole.filter(pl.col("ds") < last), whole.filter(pl.col("ds") >= last)
    model = knowing().fit(past)
    made = model.predict(future=coming.select("unique_id", "ds", "heat"))
    truth = made.join(coming, on=["unique_id", "ds"], maintain_order="left")
    assert len(truth) == 12
    spread = coming.select(pl.col("load").std().over("unique_id")).to_series().mean()
    assert isinstance(spread, float)
    assert truth.select((pl.col("Tidecast") - pl.col("load")).abs().mean()).item() < spread / 2
    in_its_rows = whole.with_columns(pl.when(pl.col("ds") < last).then("load").alias("load"))
    assert knowing().fit(in_its_rows).predict().equals(made)
    assert model.predict(in_its_rows).equals(made)
    colder = coming.select("unique_id", "ds", pl.col("heat") - 10)
    assert (model.predict(future=colder)["Tidecast"] < made["Tidecast"]).mean() > 0.8


def test_cross_validation_uses_future_covariates_up_to_each_horizon() -> None:
    whole = heated()
    made = knowing().cross_validation(whole, n_windows=2)
    cutoff = made["cutoff"].min()
    assert isinstance(cutoff, datetime)
    later = pl.when(pl.col("ds") > cutoff + timedelta(hours=6)).then(0).otherwise("heat")
    again = knowing().cross_validation(whole.with_columns(heat=later), n_windows=2)
    first = pl.col("cutoff") == cutoff
    assert again.filter(first).equals(made.filter(first))
    assert not again.filter(~first).equals(made.filter(~first))


def test_missing_future_covariates_are_errors() -> None:
    whole = heated(200)
    model = knowing().fit(whole)
    with pytest.raises(
        ValueError,
        match=r"^known: heat of 'a' must be given for 6 steps of 1h ahead, and is missing at 2024-01-09 08:00",
    ):
        model.predict()
    some = whole.select("unique_id", ds=pl.col("ds") + timedelta(hours=196), heat="heat").filter(
        pl.col("ds").dt.hour() != 11
    )
    with pytest.raises(ValueError, match=r"and is missing at 2024-01-09 11:00"):
        model.predict(future=some)
    with pytest.raises(ValueError, match=r"^future: the forecaster has no `known` features"):
        forecaster().fit(frame()).predict(future=some)
    with pytest.raises(ConfigError, match=r"^known: 'load' must be one of the features, and not one that is forecast"):
        Forecaster(horizon=6, features=("load", "heat"), known=("load",))
    uneven = pl.col("ds") + pl.duration(minutes=pl.int_range(pl.len()) ** 2 % 47)
    with pytest.raises(ValueError, match=r"^known: future covariates need a freq"):
        Forecaster(horizon=6, features=("load", "heat"), known=("heat",)).fit(whole.with_columns(ds=uneven))


def test_invalid_futures_are_rejected() -> None:
    whole = heated(200)
    model = knowing().fit(whole)
    coming = whole.select("unique_id", "heat", ds=pl.col("ds") + timedelta(hours=200))
    twice = pl.concat([coming, coming.with_columns(heat=pl.col("heat") + 1)])
    with pytest.raises(ValueError, match=r"^future: 'a' has different values at 2024-01-09 08:00"):
        model.predict(future=twice)
    assert model.predict(future=pl.concat([coming, coming])).equals(model.predict(future=coming))
    stepwise = Forecaster(
        horizon=6,
        seq_len=24,
        features=("load", "heat"),
        known=("heat",),
        config=ForecastConfig(arch="lstm", hidden=4, epochs=1),
    )
    with pytest.raises(ValueError, match=r"^the forecast of 'a' is not finite"):
        stepwise.fit(whole).predict(future=coming.with_columns(heat=-3e38))
    with pytest.raises(ValueError, match=r"^future: dict is not a polars or pandas DataFrame"):
        model.predict(future={"heat": 1})
    with pytest.raises(ValueError, match=r"^known: future values come one a step"):
        Forecaster(horizon=6, freq="1h", aggregate="mean", features=("load", "heat"), known=("heat",))
    with pytest.raises(ValueError, match=r"^known: heat, heat must be different names"):
        Forecaster(horizon=6, features=("load", "heat"), known=("heat", "heat"))
    with pytest.raises(ValueError, match=r"^n_windows, step_size: 1 and 0 must be 1 or more"):
        model.cross_validation(whole, step_size=0)


def test_boolean_covariates_are_numbers() -> None:
    whole = heated(200).with_columns(heat=pl.col("heat") > 20)
    coming = whole.select("unique_id", "heat", ds=pl.col("ds") + timedelta(hours=200))
    numbers = whole.with_columns(heat=pl.col("heat").cast(pl.Int64))
    assert knowing().fit(whole).predict(future=coming).equals(knowing().fit(numbers).predict(future=coming))


def test_a_large_level_is_forecast_like_a_small_one() -> None:
    low = frame(short=7).with_columns((20 * pl.col("y")).round(1))
    high = low.with_columns(pl.col("y") + 3_000_000_000)
    near, far = (forecaster().fit(each).predict() for each in (low, high))
    assert near["source"].equals(far["source"])
    assert (far["Tidecast"] - 3e9 - near["Tidecast"]).abs().max() < 1
    (repeated,) = far.filter(pl.col("unique_id") == "short")["Tidecast"].unique()
    assert repeated == high.filter(pl.col("unique_id") == "short")["y"][-1]


def test_settings_are_also_where_earlier_versions_had_them() -> None:
    from model import forecasting

    assert forecasting.ForecastConfig is ForecastConfig
