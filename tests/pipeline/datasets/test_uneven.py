"""Times that no one grid has are asked about, with the option that answers it; times beside a grid's are said."""

import re
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from pipeline.datasets.spacing import infer_freq, infer_offset
from pipeline.datasets.uneven import beside_steps, check_days, check_phases, check_steps, never_there, remarks
from tidecast.errors import DataError


def frame(**series: pd.DatetimeIndex) -> pl.DataFrame:
    parts = [
        pl.DataFrame({"series": name, "ts": np.asarray(ts.as_unit("ms").astype("int64")), "value": 1.0})
        for name, ts in series.items()
    ]
    return pl.concat(parts)


def dates(start: str, periods: int, freq: str) -> pd.DatetimeIndex:
    return pd.date_range(start, periods=periods, freq=freq)


def months_days(*days: int) -> pd.DatetimeIndex:
    """These days of each of 48 months; -1 is the last."""
    starts = dates("2019-01-01", 48, "MS")
    found = [
        start + timedelta(days=day - 1) if day > 0 else start + pd.offsets.MonthEnd()
        for start in starts
        for day in days
    ]
    return pd.DatetimeIndex(found)


@pytest.mark.parametrize(
    ("short", "long", "words"),
    [
        (dates("2024-01-01", 400, "15min"), dates("2024-01-01", 100, "h"), "every 15m: 'a'; hourly: 'b'"),
        (dates("2024-01-01", 100, "h"), dates("2024-01-01", 30, "D"), "hourly: 'a'; daily: 'b'"),
        (dates("2024-01-01", 60, "D"), dates("2019-01-01", 60, "MS"), "daily: 'a'; monthly: 'b'"),
        (dates("2019-01-01", 60, "MS"), dates("2010-01-01", 60, "QS"), "monthly: 'a'; quarterly: 'b'"),
    ],
)
def test_series_of_different_steps_are_asked_about(short: pd.DatetimeIndex, long: pd.DatetimeIndex, words: str) -> None:
    with pytest.raises(DataError, match=rf"series have different steps \({words}\): --freq .*--aggregate mean"):
        check_steps(frame(a=short, b=long))


def test_gaps_jitter_and_other_phases_are_no_other_steps() -> None:
    random = np.random.default_rng(0)
    hours = dates("2024-01-01", 400, "h")
    gaps = hours[random.random(400) > 0.3]
    jitter = hours + pd.to_timedelta(random.integers(-90, 90, 400), "s")
    check_steps(frame(a=hours, b=gaps, c=jitter, d=hours + timedelta(minutes=30), e=hours[:3]))
    check_steps(frame(a=dates("2024-01-01", 100, "D"), b=dates("2024-01-01", 100, "B")))


def test_an_event_driven_series_beside_a_steady_one_is_none_of_another_step() -> None:
    random = np.random.default_rng(0)
    events = pd.DatetimeIndex(datetime(2024, 1, 1) + pd.to_timedelta(np.cumsum(random.exponential(700, 300)), "s"))
    check_steps(frame(a=dates("2024-01-01", 100, "h"), b=events))


@pytest.mark.parametrize(
    ("ts", "words"),
    [
        (months_days(1, 11, 21), r"days 1, 11, 21 of a month, .*--freq 1mo --aggregate sum .*--freq 10d"),
        (months_days(10, 20, -1), "days 10, 20, last of a month"),
        (months_days(1, 15), "days 1, 15 of a month"),
        (months_days(15, -1), "days 15, last of a month"),
        (dates("2023-01-02", 100, "W-MON").union(dates("2023-01-04", 100, "W-WED")), "Monday, Wednesday, .*--freq 1w"),
    ],
)
def test_days_that_are_no_even_steps_are_asked_about(ts: pd.DatetimeIndex, words: str) -> None:
    history = frame(a=ts)
    with pytest.raises(DataError, match=words):
        check_days(history, infer_freq(history))


@pytest.mark.parametrize("freq", ["2D", "10D", "W-FRI", "2W-FRI", "4W-SUN", "MS", "ME", "QE", "D", "B", "h", "6ME"])
def test_even_steps_and_calendars_are_not(freq: str) -> None:
    times = dates("2010-01-01", 80, freq)
    history = frame(a=times, b=times + timedelta(days=7 if freq.endswith(("FRI", "SUN")) else 0))
    check_steps(history)
    found = infer_freq(history)
    check_days(history, found)
    assert not beside_steps(history, found, infer_offset(history, found))


def test_series_at_different_days_of_a_calendars_steps_are_asked_about() -> None:
    for freq, one, other in (("1mo", "MS", "ME"), ("3mo", "QS-JAN", "QS-FEB"), ("1y", "YE-JUN", "YE-DEC")):
        history = frame(a=dates("2000-01-01", 40, one), b=dates("2000-01-01", 40, other))
        assert infer_freq(history) == freq
        with pytest.raises(DataError, match=r"different days of steps of .*--offset"):
            check_phases(history, freq, infer_offset(history, freq))


def test_days_of_a_month_with_jitter_are_of_one_phase_and_this_is_said() -> None:
    random = np.random.default_rng(0)
    starts = dates("2010-01-15", 80, "MS") + timedelta(days=14)
    parts = [starts + pd.to_timedelta(random.integers(-4, 5, 80), "D") for _ in range(5)]
    history = frame(**{f"s{place}": ts for place, ts in enumerate(parts)})
    offset = infer_offset(history, "1mo")
    check_phases(history, "1mo", offset)
    assert beside_steps(history, "1mo", offset) == "times lie up to 4 d from the steps'; forecasts are at these"


def test_business_days_at_midnights_of_far_zones_are_asked_about() -> None:
    days = [pd.date_range("2022-01-03", periods=200, freq="B", tz=zone) for zone in ("Asia/Tokyo", "Europe/Berlin")]
    history = frame(**{str(each.tz): each.tz_convert(None) for each in days})
    freq = infer_freq(history)
    assert freq == "B"
    with pytest.raises(DataError, match=r"different times of day of steps of B .*--offset"):
        check_phases(history, freq, infer_offset(history, freq))


def days_of_week(*days: int, periods: int = 200) -> pd.DatetimeIndex:
    found = dates("2024-01-01", periods, "D")
    return found[found.day_of_week.isin(days)]


def trading(freq: str, first: int, last: int) -> pd.DatetimeIndex:
    found = dates("2024-01-01", 60 * 24 * 60 // int(pd.Timedelta(freq).total_seconds() // 60), freq)
    return found[(found.day_of_week < 5) & (found.hour >= first) & (found.hour < last)]


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (
            {"a": days_of_week(0, 1, 2, 3, 4, 5)},
            "no values on Sundays: they are gaps; forecasts are for every day: leave",
        ),
        ({"a": days_of_week(0, 1, 2, 3, 4, 5, periods=16)}, "no values on Sundays: they"),
        ({"a": days_of_week(1, 2, 3, 4)}, "no values on Mondays, Saturdays, Sundays: they"),
        ({"a": days_of_week(0, 1, 2, 3, 4, periods=12)}, "no values on weekends: .*, or --freq B has no weekends"),
        ({"a": days_of_week(0, 1, 2, 3, 4, periods=5)}, "no values on weekends: .*, or --freq B has no weekends"),
        (
            {"a": days_of_week(*range(7)), "b": days_of_week(*range(5))},
            "no values on weekends in 'b': .*--freq B .*apart",
        ),
        ({"a": days_of_week(*range(6)), "b": days_of_week(*range(5))}, "on Sundays in 'a'; on weekends in 'b': "),
        ({"a": trading("1h", 9, 17)}, "no values on weekends; from 17:00 to 09:00 UTC: .* every hour: .*--aggregate"),
        ({"a": trading("2h", 8, 18)}, "no values on weekends; from 18:00 to 08:00 UTC: .* every step"),
        ({"a": trading("5min", 9, 17)}, "no values on weekends; from 17:00 to 09:00 UTC: .* every step"),
    ],
)
def test_weekdays_and_hours_that_are_never_there_are_said(series: dict[str, pd.DatetimeIndex], words: str) -> None:
    history = frame(**series)
    freq = infer_freq(history)
    assert freq not in {None, "B"}
    assert re.search(words, never_there(history, freq, infer_offset(history, freq)))


def test_all_of_a_week_with_gaps_by_chance_says_nothing() -> None:
    random = np.random.default_rng(0)
    for freq, every in (("1d", dates("2024-01-01", 60, "D")), ("1h", dates("2024-01-01", 500, "h"))):
        for share in (1.0, 0.7, 0.3, 0.1):
            history = frame(**{f"s{place}": every[random.random(len(every)) <= share] for place in range(20)})
            assert not never_there(history, freq, None), (freq, share)
    assert not never_there(frame(a=dates("2024-01-01", 120, "h")), "1h", None), "no weekend is in it"
    history = frame(a=days_of_week(*range(5)))
    assert infer_freq(history) == "B"
    assert not never_there(history, "B", None)


@pytest.mark.parametrize(("zone", "clock"), [("Europe/Berlin", 0), ("America/New_York", 16), ("Australia/Sydney", 0)])
@pytest.mark.parametrize("freq", ["D", "B", "MS", "ME"])
def test_days_by_a_clock_with_summer_time_are_said(zone: str, clock: int, freq: str) -> None:
    days = pd.date_range("2022-01-03", periods=500 if freq in {"D", "B"} else 40, freq=freq) + pd.Timedelta(hours=clock)
    moments, shown = (frame(a=each) for each in (days.tz_localize(zone).tz_convert(None), days))
    said = f"as by the clock of {zone}: .* --timezone {zone}, or one like it"
    freq = str(infer_freq(moments))
    assert any(re.search(said, note) for note in remarks(moments, freq, infer_offset(moments, freq), bucket=False))
    assert remarks(shown, freq, infer_offset(shown, freq), bucket=False) == []
