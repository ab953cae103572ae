"""The grid of a history's times: its spacing and its phase, with jitter and without."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from calendars import HOUR, MINUTE, SECOND, dates, jittered, shifted
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.history import History, from_frame, windows
from pipeline.datasets.spacing import infer_freq, infer_offset, on_weekends
from pipeline.formats.events import Event
from pipeline.windows.grid import WindowConfig
from pipeline.windows.steps import DAY, Grid, Ints
from pipeline.windows.streaming import WindowStore
from tidecast.freq import Offset, steps_in_words


def same_day(month: str, periods: int, day: int) -> Ints:
    """A day of each month, or its last where there is none such."""
    start, end = dates(f"{month}-01", periods, "MS"), dates(f"{month}-01", periods, "ME")
    return np.minimum(start + (day - 1) * DAY, end)


def history(ts: Ints, series: str = "a") -> History:
    return from_frame(pl.DataFrame({"series": series, "ts": ts, "value": np.arange(len(ts), dtype=np.float64)}))


def grid_of(ts: Ints) -> tuple[str | None, str | None]:
    frame = history(ts).frame
    freq = infer_freq(frame)
    return freq, infer_offset(frame, freq)


@pytest.mark.parametrize(
    ("ts", "grid", "words"),
    [
        (dates("2004-03-01", 64, "QS-MAR"), ("3mo", "2mo"), "quarterly from March"),
        (dates("2014-03-31", 40, "QE"), ("3mo", "-1d"), "quarterly, at the end of December"),
        (dates("2014-01-01", 96, "MS"), ("1mo", None), "monthly"),
        (dates("2014-01-31", 96, "ME"), ("1mo", "-1d"), "monthly, at month end"),
        (dates("2014-01-31", 96, "BME"), ("1mo", "-1d"), "monthly, at month end"),
        (dates("2014-01-01", 96, "MS") + 14 * DAY, ("1mo", "14d"), "monthly, on day 15"),
        (same_day("2014-01", 96, 30), ("1mo", "29d"), "monthly, on day 30"),
        (same_day("2014-01", 96, 29), ("1mo", "28d"), "monthly, on day 29"),
        (same_day("2014-01", 96, 28), ("1mo", "27d"), "monthly, on day 28"),
        (shifted(dates("2014-01-01", 96, "MS"), 5 * DAY), ("1mo", "0d"), "monthly"),
        (dates("1990-06-30", 30, "YE-JUN"), ("1y", "6mo-1d"), "yearly, at the end of June"),
        (dates("1990-04-01", 30, "YS-APR"), ("1y", "3mo"), "yearly from April"),
        (dates("2014-01-05", 100, "W-SUN"), ("1w", "6d"), "weekly, on Sundays"),
        (dates("2014-01-06", 100, "W-MON"), ("1w", "0d"), "weekly, on Mondays"),
        (shifted(dates("2014-01-05", 100, "W-SUN"), 6 * HOUR), ("1w", "6d"), "weekly, on Sundays"),
        (dates("2024-01-01 00:30", 300, "h"), ("1h", "30m"), "hourly, at minute 30"),
        (dates("2024-01-01", 900, "min") + np.arange(900) % 10 * SECOND, ("1m", None), "every minute"),
        (dates("2024-01-01", 900, "5min") + np.arange(900) % 7 * 200, ("5m", None), "every 5m"),
        (dates("2024-01-01", 900, "61s"), ("61s", "53s"), "every 61s, from minute 00:53"),
        (shifted(dates("2024-01-01 00:30", 300, "h"), 20 * SECOND), ("1h", "30m"), "hourly, at minute 30"),
        (shifted(dates("2024-01-01 00:30", 300, "h"), 11 * MINUTE), ("1h", "30m"), "hourly, at minute 30"),
        (shifted(dates("2024-01-01", 300, "h"), 11 * MINUTE), ("1h", None), "hourly"),
        (dates("2024-01-01 17:34", 300, "5min"), ("5m", "4m"), "every 5m, from minute 04"),
        (shifted(dates("2024-01-01 17:34", 300, "7min"), 2 * SECOND), ("7m", "3m"), "every 7m, from minute 03"),
        (dates("2024-01-01 16:00", 60, "D"), ("1d", "16h"), "daily, at 16:00"),
        (dates("2022-01-03", 300, "B"), ("B", None), "business days"),
        (dates("2022-01-03 16:00", 300, "B"), ("B", "16h"), "business days, at 16:00"),
        (dates("2022-01-03", 300, "B") - DAY, ("B", "-1d"), "business days, -1 d"),
        (shifted(dates("2022-01-03", 300, "B"), 2 * SECOND), ("B", "0d"), "business days"),
        (dates("2022-01-03", 300, "B", "Asia/Tokyo"), ("B", "-9h"), "business days, at 15:00, -1 d"),
        (dates("2022-01-03", 9, "B"), ("1d", None), "daily"),
    ],
)
def test_a_grid_is_told_from_the_data_and_said(ts: Ints, grid: tuple[str, str | None], words: str) -> None:
    assert grid_of(ts) == grid
    assert steps_in_words(*grid) == words


@pytest.mark.parametrize("spread", [0.5, 2.0, 60.0])
def test_spacings_that_vary_a_little_around_an_hour_are_an_hour(spread: float) -> None:
    drift = np.random.default_rng(0).normal(3_602, spread, 500)
    assert grid_of(np.cumsum(drift * 1000).astype(np.int64))[0] == "1h"


@pytest.mark.parametrize("seed", range(3))
def test_irregular_times_are_on_no_grid(seed: int) -> None:
    random = np.random.default_rng(seed)
    for spacing in (
        random.exponential(HOUR, 500),
        random.uniform(0.5, 1.5, 500) * HOUR,
        random.uniform(15, 45, 99) * DAY,
    ):
        assert grid_of(np.cumsum(spacing).astype(np.int64)) == (None, None)


def test_series_of_several_phases_stay_whole() -> None:
    hours = dates("2024-01-01", 200, "h")
    frame = pl.concat([history(hours + minute * MINUTE, str(minute)).frame for minute in (10, 30, 50)])
    config = WindowConfig(seq_len=2, freq="1h", offset=infer_offset(frame, "1h"))
    counts = windows(from_frame(frame.drop("partition", "offset")), config).counts
    assert (counts.accepted, counts.filled, counts.reset) == (600, 0, 0)


def test_a_wild_event_in_fifty_does_not_move_the_border() -> None:
    ts = dates("2024-01-01 00:30", 1000, "h").copy()
    ts[::60] += np.random.default_rng(0).integers(-HOUR // 2, HOUR // 2, len(ts[::60]))
    freq, offset = grid_of(ts)
    assert freq == "1h"
    assert abs(Offset.parse(str(offset)).milliseconds - 30 * MINUTE) < MINUTE


def test_steps_that_are_aggregated_in_stay_aligned_and_weeks_begin_on_mondays() -> None:
    frame = history(dates("2024-01-03 00:30", 500, "h")).frame
    assert [infer_offset(frame, freq, bucket=True) for freq in ("2h", "1d", "1mo", "B", "1w")] == [None] * 4 + ["0d"]
    week = Grid.parse("1w", bucket=True, offset="0d")
    starts = week.time(week.index(frame["ts"].to_numpy()))
    assert {day.weekday() for day in pl.from_epoch(pl.Series(starts), "ms").dt.date()} == {0}


@pytest.mark.parametrize("clock", [16 * HOUR, 21 * HOUR, 6 * HOUR])
def test_a_half_day_does_not_move_the_usual_time_of_business_days(clock: int) -> None:
    ts = dates("2022-01-03", 300, "B") + clock
    halves = [20, 150, 299]
    ts[halves] -= 3 * HOUR
    freq, offset = grid_of(ts)
    assert freq == "B"
    config = WindowConfig(seq_len=2, freq=freq, offset=offset)
    batch = windows(history(ts), config)
    assert config.grid is not None
    ahead = config.grid.ahead(batch.step[-1:], batch.ts[-1:], np.arange(1, 4))
    assert ahead.tolist() == (dates("2022-01-03", 303, "B") + clock)[-3:].tolist()


def test_series_of_business_days_keep_their_own_times_of_day() -> None:
    days = dates("2022-01-03", 300, "B")
    frame = pl.concat([history(days + clock * HOUR, str(clock)).frame for clock in (8, 20)])
    offset = infer_offset(frame, infer_freq(frame))
    batch = windows(from_frame(frame.drop("partition", "offset")), WindowConfig(seq_len=2, freq="B", offset=offset))
    grid, ends = Grid.parse("B", offset=offset), np.flatnonzero(np.diff(batch.series, append=-1))
    following = dates("2022-01-03", 301, "B")[-1]
    assert grid.ahead(batch.step[ends], batch.ts[ends], 1).tolist() == [following + 8 * HOUR, following + 20 * HOUR]


def test_weekends_of_business_days_are_counted() -> None:
    ts = dates("2022-01-03", 300, "B")
    assert on_weekends(ts, None) == 0
    assert on_weekends(np.append(ts, [ts[4] + DAY, ts[9] + 2 * DAY]), None) == 2


@given(jittered())
def test_jitter_neither_drops_nor_invents_steps(times: tuple[Ints, Ints]) -> None:
    _, ts = times
    frame = history(ts).frame
    freq = infer_freq(frame)
    assert freq is not None
    config = WindowConfig(seq_len=2, freq=freq, offset=infer_offset(frame, freq))
    counts = windows(history(ts), config).counts
    assert (counts.accepted, counts.filled, counts.reset) == (len(ts), 0, 0)


@given(jittered(), st.integers(1, 4))
def test_forecast_times_are_the_data_s_next_times_streamed_and_in_batch(times: tuple[Ints, Ints], ahead: int) -> None:
    regular, ts = times
    past = history(ts[:-ahead])
    freq = infer_freq(past.frame)
    assert freq is not None
    config = WindowConfig(seq_len=2, freq=freq, offset=infer_offset(past.frame, freq))
    batch, store = windows(past, config), WindowStore(config)
    for time in ts[:-ahead].tolist():
        store.push(Event("a", time, (0.0,)))
    streamed = store.take()
    ends = batch.ends
    np.testing.assert_array_equal(streamed.step, batch.step[ends])
    assert config.grid is not None
    np.testing.assert_array_equal(streamed.start, config.grid.ahead(batch.step[ends], batch.ts[ends], 1))
    assert (streamed.start > streamed.ts).all()
    following = config.grid.ahead(batch.step[ends[-1:]], batch.ts[ends[-1:]], np.arange(1, ahead + 1))
    exact = np.array_equal(regular, ts)
    assert not exact or following.tolist() == regular[-ahead:].tolist()
    assert config.grid.index(following).tolist() == config.grid.index(ts[-ahead:]).tolist()


def spelled(*texts: str) -> Sequence[str]:
    return [steps_in_words("1h", text) for text in texts]


def test_an_offset_of_an_hour_in_words() -> None:
    assert spelled("30m", "30m15s", "0m") == ["hourly, at minute 30", "hourly, at minute 30:15", "hourly, at minute 00"]
