"""Frames as users have them: forecasts come back in the frame's types, at times that the data would have."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from model.training.forecast_config import ForecastConfig
from tidecast import Forecaster
from tidecast.errors import ConfigError, DataError

QUICK = ForecastConfig(arch="linear", epochs=1)


def waves(start: str = "2024-01-01", periods: int = 200, freq: str = "h", zone: str | None = None, **ids: Any) -> Any:
    """Two series, or those of `ids`, at regular times."""
    ds = pd.date_range(start, periods=periods, freq=freq, tz=zone)
    y = 10 + np.sin(np.arange(periods) / 4)
    return pd.concat([pd.DataFrame({"unique_id": each, "ds": ds, "y": y}) for each in ids.get("ids", (1, 2))])


def forecaster(horizon: int = 6, **settings: Any) -> Forecaster:
    return Forecaster(horizon, config=QUICK, **settings)


def following(frame: Any, horizon: int, freq: str) -> Any:
    """What a user would merge with: the frame's series at its next times."""
    last = frame["ds"].max()
    coming = pd.date_range(last, periods=horizon + 1, freq=freq)[1:]
    rows = [frame.drop_duplicates("unique_id").assign(ds=each, actual=1.0) for each in coming]
    found = pd.concat(rows).drop(columns="y")
    return found.astype({"unique_id": frame["unique_id"].dtype, "ds": frame["ds"].dtype})


@pytest.mark.parametrize(
    ("change", "zone", "freq"),
    [
        (lambda frame: frame, None, "h"),
        (lambda frame: frame.assign(unique_id=frame["unique_id"].astype("int32")), None, "h"),
        (lambda frame: frame.assign(unique_id=frame["unique_id"].astype("category")), None, "h"),
        (lambda frame: frame.assign(unique_id=frame["unique_id"].map({1: "a", 2: "b"}).astype("category")), None, "h"),
        (lambda frame: frame.assign(unique_id=frame["unique_id"].astype("Int64")), None, "h"),
        (lambda frame: frame.assign(unique_id=frame["unique_id"].map({1: "a", 2: "b"})), None, "h"),
        (lambda frame: frame.assign(ds=frame["ds"].dt.as_unit("ns")), None, "h"),
        (lambda frame: frame.assign(ds=frame["ds"].dt.as_unit("s")), None, "h"),
        (lambda frame: frame, "Asia/Kolkata", "h"),
        (lambda frame: frame, "UTC", "h"),
        (lambda frame: frame, dt.timezone(dt.timedelta(hours=5, minutes=45)), "h"),
        (lambda frame: frame, "Europe/Berlin", "D"),
        (lambda frame: frame, "America/Sao_Paulo", "W-SUN"),
        (lambda frame: frame, "Europe/Berlin", "MS"),
        (lambda frame: frame, None, "ME"),
        (lambda frame: frame, None, "QS-MAR"),
        (lambda frame: frame, None, "W-WED"),
        (lambda frame: frame, "America/New_York", "B"),
    ],
)
def test_a_forecast_merges_with_the_user_s_own_frame(change: Callable[[Any], Any], zone: Any, freq: str) -> None:
    frame = change(waves(freq=freq, zone=zone, periods=120))
    model = forecaster().fit(frame)
    made = model.predict()
    assert made[["unique_id", "ds"]].dtypes.to_dict() == frame[["unique_id", "ds"]].dtypes.to_dict()
    assert len(made.merge(following(frame, 6, freq), on=["unique_id", "ds"])) == 12
    crossed = model.cross_validation(frame, n_windows=2)
    assert crossed["cutoff"].dtype == frame["ds"].dtype
    merged = crossed.merge(frame, on=["unique_id", "ds"])
    assert len(merged) == 24
    assert (merged["y_x"] == merged["y_y"]).all()


def polars_frame(**columns: pl.Expr) -> pl.DataFrame:
    return pl.from_pandas(waves()).with_columns(**columns)


@pytest.mark.parametrize(
    "frame",
    [
        polars_frame(),
        polars_frame(unique_id=pl.col("unique_id").cast(pl.UInt8)),
        polars_frame(unique_id=pl.col("unique_id").cast(pl.String).cast(pl.Categorical)),
        polars_frame(ds=pl.col("ds").dt.replace_time_zone("Asia/Kolkata")),
        polars_frame(ds=pl.col("ds").cast(pl.Datetime("ns"))),
        polars_frame(ds=pl.col("ds").dt.strftime("%Y-%m-%d %H:%M:%S")),
        polars_frame(ds=pl.col("ds").dt.strftime("%Y-%m-%dT%H:%M:%SZ")),
        polars_frame(ds=pl.col("ds").dt.epoch("s")),
        polars_frame(ds=pl.col("ds").dt.epoch("ms")),
    ],
)
def test_a_polars_frame_s_types_come_back(frame: pl.DataFrame) -> None:
    early = frame.filter(pl.int_range(pl.len()).over("unique_id") < 194)
    late = frame.filter(pl.int_range(pl.len()).over("unique_id") >= 194)
    made = forecaster().fit(early).predict()
    assert made.schema["unique_id"] == frame.schema["unique_id"]
    assert made.schema["ds"] == frame.schema["ds"]
    assert len(made.join(late, on=["unique_id", "ds"])) == 12


def test_dates_come_back_as_dates() -> None:
    daily = waves(freq="D", ids=(1,))
    made = forecaster().fit(pl.from_pandas(daily).with_columns(pl.col("ds").cast(pl.Date))).predict()
    assert made["ds"].to_list()[0] == dt.date(2024, 7, 19)
    objects = forecaster().fit(daily.assign(ds=daily["ds"].dt.date)).predict()
    assert objects["ds"].tolist() == made["ds"].to_list()
    years = pl.DataFrame({"ds": range(1960, 2020), "y": np.arange(60.0) % 7})
    assert forecaster(3).fit(years).predict()["ds"].to_list() == [2020, 2021, 2022]


def test_an_index_of_times_is_the_column_of_times() -> None:
    frame = waves(ids=("a",))
    plain = forecaster().fit(frame).predict()
    for indexed in (
        frame.set_index("ds"),
        frame.set_index("ds").rename_axis(None),
        frame.set_index(["unique_id", "ds"]),
    ):
        assert forecaster().fit(indexed).predict().equals(plain)
    wide = pd.DataFrame({"a": frame["y"].to_numpy(), "b": 1 + frame["y"].to_numpy()}, index=frame["ds"])
    assert forecaster().fit(wide).predict().groupby("unique_id").size().to_dict() == {"a": 6, "b": 6}


@pytest.mark.parametrize("freq", ["M", "Q-FEB", "D"])
def test_periods_come_back_as_periods(freq: str) -> None:
    frame = waves(freq=freq if freq == "D" else {"M": "MS", "Q-FEB": "QS-MAR"}[freq], periods=96, ids=("a",))
    frame["ds"] = frame["ds"].dt.to_period(freq)
    made = forecaster(3).fit(frame).predict()
    assert made["ds"].tolist() == [frame["ds"].iloc[-1] + step for step in (1, 2, 3)]


def test_types_are_those_of_the_frame_that_is_given() -> None:
    model = forecaster().fit(waves())
    texts = pl.from_pandas(waves()).with_columns(pl.col("unique_id").cast(pl.String))
    assert isinstance(model.predict(texts), pl.DataFrame)
    assert model.predict(texts)["unique_id"].unique().sort().to_list() == ["1", "2"]
    assert model.predict()["unique_id"].unique().tolist() == [1, 2]


def test_midnights_of_a_zone_are_days_all_year() -> None:
    frame = waves("2023-10-01", periods=28, freq="D", zone="Europe/Berlin", ids=("a",))
    made = forecaster(4).fit(frame).predict()
    assert [str(each) for each in made["ds"]] == [
        *("2023-10-29 00:00:00+02:00", "2023-10-30 00:00:00+01:00", "2023-10-31 00:00:00+01:00"),
        "2023-11-01 00:00:00+01:00",
    ]


@pytest.mark.parametrize(
    "broken",
    [
        pd.Series([1.0, 2.0]),
        waves().assign(unique_id=["a", *([1] * 399)]),
        waves().assign(y=[[1]] * 400),
        waves().drop(columns="ds"),
    ],
)
def test_what_is_no_usable_frame_is_told_in_a_line(broken: Any) -> None:
    with pytest.raises(DataError) as raised:
        forecaster().fit(broken)
    assert "\n" not in str(raised.value)


def test_cross_validation_of_jittered_hours_is_complete_at_the_data_s_own_times() -> None:
    frame = waves("2024-01-01 00:30")
    frame["ds"] += pd.to_timedelta(np.random.default_rng(0).integers(-600, 600, len(frame)), unit="s")
    made = forecaster().cross_validation(frame, n_windows=3)
    assert len(made) == 2 * 3 * 6
    assert made["cutoff"].nunique() == 3
    assert (made["ds"] > made["cutoff"]).all()
    merged = made.merge(frame, on=["unique_id", "ds"])
    assert (merged["y_x"] == merged["y_y"]).sum() == len(made)


def test_cross_validation_of_business_days_and_of_months_that_are_aggregated_is_complete() -> None:
    business = waves("2022-01-03 16:00", freq="B", periods=300)
    made = forecaster().cross_validation(business, n_windows=2)
    assert len(made.merge(business, on=["unique_id", "ds"])) == len(made) == 24
    daily = waves("2015-01-01", freq="D", periods=2000)
    summed = forecaster(3, freq="1mo", aggregate="sum").cross_validation(daily)
    assert summed["ds"].dt.is_month_start.all()
    january = daily[(daily["unique_id"] == 1) & (daily["ds"].dt.to_period("M") == summed["ds"].iloc[0].to_period("M"))]
    assert summed["y"].iloc[0] == pytest.approx(january["y"].sum(), rel=1e-6)


def test_a_series_without_an_event_at_a_cutoff_is_forecast_from_its_last_one() -> None:
    frame = waves()
    gone = (frame["unique_id"] == 2) & frame["ds"].isin(frame["ds"].unique()[[-7, -8]])
    made = forecaster().cross_validation(frame[~gone])
    assert made.groupby("unique_id").size().to_dict() == {1: 6, 2: 4}
    assert (made["ds"] > made["cutoff"]).all()


def test_what_was_never_negative_is_forecast_non_negative_unless_told_otherwise() -> None:
    falling = pl.DataFrame({"ds": range(1_600_000_000, 1_600_000_000 + 200 * 3600, 3600), "y": np.arange(200.0)[::-1]})
    several = falling.rename({"y": "up"}).with_columns(down=pl.col("up") - 100)
    both = ("up", "down")
    assert forecaster().fit(falling).predict()["Tidecast"].min() == 0
    assert forecaster(non_negative=False).fit(falling).predict()["Tidecast"].min() < 0
    made = forecaster(features=both, targets=both).fit(several).predict()
    assert made["Tidecast-up"].min() == 0
    assert made["Tidecast-down"].min() < -50


def test_a_forecaster_shows_what_it_is_and_its_progress(capsys: pytest.CaptureFixture[str]) -> None:
    model = forecaster(freq="1h", budget="20s", progress=True)
    assert repr(model) == "Forecaster(horizon=6, freq='1h'), not fitted"
    assert model.job.config.seconds == 20
    model.fit(waves("2024-01-01 00:30"))
    assert repr(model).startswith("Forecaster(horizon=6), linear of ")
    assert "hourly, at minute 30; error " in repr(model)
    with pytest.raises(ConfigError, match=r"^budget: 'soon' is no duration"):
        forecaster(budget="soon")


@pytest.mark.parametrize(
    "text",
    ["%d/%m/%Y", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M", "%Y/%m/%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M UTC"],
)
def test_times_that_are_text_come_back_as_they_were_written(text: str) -> None:
    frame = waves(freq="h" if "%H" in text else "D", periods=400)
    written = frame.assign(ds=frame["ds"].dt.strftime(text))
    found = forecaster().cross_validation(written)
    assert len(found.merge(written, on=["unique_id", "ds"])) == 12


@pytest.mark.parametrize("offset", ["+02:00", "-0330", "+0000"])
def test_times_that_are_text_come_back_with_their_offset(offset: str) -> None:
    frame = waves()
    written = frame.assign(ds=frame["ds"].dt.strftime(f"%Y-%m-%dT%H:%M:%S{offset}"))
    found = forecaster().cross_validation(written)
    assert len(found.merge(written, on=["unique_id", "ds"])) == 12


def test_objects_come_back_as_the_same_objects() -> None:
    ids = {1: uuid.UUID(int=1), 2: uuid.UUID(int=2)}
    frame = waves(zone="Europe/Berlin").astype({"ds": object})
    frame["unique_id"] = frame["unique_id"].map(ids)
    found = forecaster().cross_validation(frame)
    assert len(found.merge(frame, on=["unique_id", "ds"])) == 12
    assert set(found["unique_id"]) == set(ids.values())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda frame: frame[:0], "frame: it has no rows"),
        (lambda frame: frame.assign(y=pd.to_timedelta(frame["y"], unit="s")), "is not a number"),
        (lambda frame: frame.assign(ds=pd.to_timedelta(frame["ds"].dt.hour, unit="h")), "is not a time"),
        (lambda frame: frame.assign(y=frame["y"] + 0j), "of one that is not read"),
        (
            lambda frame: frame.rename(columns={"unique_id": "shop"}),
            "call the one that names the series unique_id: shop",
        ),
        (lambda frame: frame.drop(columns="ds"), "call it ds"),
        (lambda frame: frame.assign(ds=frame["ds"].dt.strftime("0%w/0%w/%Y")), "pandas.to_datetime with a format"),
    ],
)
def test_an_error_tells_what_to_do_with_a_frame_not_which_option_to_use(
    change: Callable[[Any], Any], error: str
) -> None:
    with pytest.raises(DataError) as wrong:
        forecaster().fit(change(waves()))
    assert error in str(wrong.value)
    assert "--" not in str(wrong.value)


def test_what_is_guessed_or_left_out_is_said_once_where_python_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    forecaster().fit(waves())
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
    frame = waves()
    forecaster().fit(pd.concat([frame, frame[:3]]))
    said = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert said == ["frame: 3 of 403 measurements repeat their series' time: without an aggregate, the first counts"]
    caplog.clear()
    forecaster().fit(frame.assign(y=frame["y"].map(lambda y: f"{y:.2f}".replace(".", ","))))
    assert any("decimal comma" in each.message for each in caplog.records if each.levelname == "WARNING")
