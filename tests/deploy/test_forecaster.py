"""Forecaster: fit, predict and cross_validation of polars and pandas frames."""

import re
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


def test_levels_add_the_bounds_of_intervals() -> None:
    model = forecaster().fit(frame(600, short=40))
    bare, made = model.predict(), model.predict(level=[90, 80])
    bounds = ["Tidecast-lo-90", "Tidecast-lo-80", "Tidecast-hi-80", "Tidecast-hi-90"]
    assert made.columns == ["unique_id", "ds", "Tidecast", "source", *bounds]
    assert made.select(bare.columns).equals(bare)
    ordered = made.select("Tidecast-lo-90", "Tidecast-lo-80", "Tidecast", "Tidecast-hi-80", "Tidecast-hi-90").to_numpy()
    assert (np.diff(ordered, axis=1) >= 0).all()
    assert made.filter(source="naive")["Tidecast-hi-90"].is_finite().all(), "from naive errors on all series"
    pandas = forecaster().fit(frame(600, short=40).to_pandas()).predict(level=[80])
    assert pandas["Tidecast-hi-80"].tolist() == made["Tidecast-hi-80"].to_list()
    assert "Tidecast-lo-95" in model.predict(level=np.array([80, 95])).columns  # type: ignore[arg-type]
    assert "Tidecast-lo-97.5" in model.predict(frame(500), level=(97.5,)).columns


def test_intervals_of_a_cross_validation_cover_what_they_say_and_know_nothing_later() -> None:
    known, model = frame(900, short=100), Forecaster(horizon=6, seq_len=48, arch="linear")
    made = model.cross_validation(known, n_windows=20, level=[80, 90])
    for level, sigmas in ((80, 1.28), (90, 1.64)):
        inside = made.select(pl.col("y").is_between(f"Tidecast-lo-{level}", f"Tidecast-hi-{level}")).to_series()
        assert inside.mean() == pytest.approx(level / 100, abs=0.07)
        width = made.filter(source="model").select(pl.col(f"Tidecast-hi-{level}") - pl.col(f"Tidecast-lo-{level}"))
        assert width.to_series().mean() == pytest.approx(2 * 0.1 * sigmas, rel=0.25), "of noise of 0.1"
    later = known.with_columns(pl.when(pl.col("ds") > made["cutoff"].min()).then(1e6).otherwise("y").alias("y"))
    again = model.cross_validation(later, n_windows=20, level=[80, 90])
    first = pl.col("cutoff") == made["cutoff"].min()
    assert again.filter(first).drop("y").equals(made.filter(first).drop("y"))


def test_no_bound_of_what_is_never_negative_lies_below_zero() -> None:
    counts = frame(400).with_columns(pl.col("y").clip(0))
    made = forecaster().fit(counts).predict(level=[95])
    assert made["Tidecast-lo-95"].min() == 0


def test_intervals_that_too_few_values_can_carry_are_missing_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tiny = pl.DataFrame({"unique_id": "a", "ds": [START + timedelta(hours=hour) for hour in range(60)], "y": range(60)})
    made = Forecaster(horizon=6, seq_len=24, arch="naive").fit(tiny).predict(level=[80, 99])
    assert made["Tidecast-lo-80"].null_count() == 0
    assert made["Tidecast-lo-99"].null_count() == 6
    said = "6 forecasts of 1 series have no interval: too few actual values to calibrate on (4 for 80 % and 99 for 99 %"
    assert said in caplog.text


@pytest.mark.parametrize("level", [[0.9], [100], [0], [float("nan")], [True], ["90"], "90"])
def test_a_level_that_is_no_percentage_is_refused(level: Any) -> None:
    said = re.escape(repr(level if isinstance(level, str) else level[0]))
    with pytest.raises(ConfigError, match=rf"^level: {said} is not a percentage from 1 to 99\.9, such as 90"):
        forecaster().fit(frame(100)).predict(level=level)


def test_several_features_and_targets() -> None:
    known = frame().rename({"y": "load"}).with_columns(heat=pl.col("load") * 10, rain=pl.col("load").abs())
    several: dict[str, Any] = {"features": ("rain", "load", "heat"), "targets": ("heat", "load"), "config": QUICK}
    made = Forecaster(horizon=6, seq_len=24, **several).fit(known).predict()
    assert made.columns == ["unique_id", "ds", "Tidecast-heat", "Tidecast-load", "source"]
    naive = made.filter(pl.col("source") == "naive").select(pl.col("Tidecast-heat") - 10 * pl.col("Tidecast-load"))
    assert naive.to_series().abs().max() < 1e-4
    several_bounds = Forecaster(horizon=6, seq_len=24, **several).fit(known).predict(level=[80])
    assert several_bounds.columns[-4:] == [
        f"Tidecast-{name}-{side}-80" for name in ("heat", "load") for side in ("lo", "hi")
    ]
    taken = Forecaster(horizon=6, seq_len=24, features=("a", "a-lo-80"), targets=("a", "a-lo-80"), config=QUICK)
    renamed = known.rename({"load": "a", "heat": "a-lo-80"})
    with pytest.raises(ConfigError, match="two columns would be called 'Tidecast-a-lo-80'"):
        taken.fit(renamed).predict(level=[80])
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
