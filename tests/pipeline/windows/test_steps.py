"""Grids: which step a time belongs to, and when steps are; with offsets, by the calendar, and on business days."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.events import Event
from pipeline.state.records import config_hash
from pipeline.windows.grid import WindowConfig
from pipeline.windows.steps import DAY, Grid
from pipeline.windows.streaming import WindowStore

OFFSETS = {
    "30m": ("7m", "-1m"),
    "1h": ("30m", "90m"),
    "1d": ("16h", "-1h"),
    "1w": ("0d", "6d", "2d6h"),
    "B": ("0d", "16h", "-9h", "-1d"),
    "1mo": ("0d", "-1d", "14d", "30d", "-1h", "12h"),
    "3mo": ("2mo", "-1d", "1mo14d", "2mo-1d"),
    "1y": ("6mo-1d", "3mo", "1mo28d"),
}
GRIDS = [(freq, offset) for freq, offsets in OFFSETS.items() for offset in (None, *offsets)]
times = st.lists(st.integers(-(10**12), 5 * 10**12), min_size=1, max_size=20)


def ms(*moment: int) -> int:
    return round(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


def days(grid: Grid, first: int, count: int) -> list[str]:
    found = grid.time(first + np.arange(count))
    return [datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d") for ts in found.tolist()]


@given(st.sampled_from(GRIDS), st.booleans(), times)
def test_steps_follow_each_other_and_hold_their_own_times(
    freq: tuple[str, str | None], bucket: bool, ts: list[int]
) -> None:
    grid = Grid.parse(freq[0], bucket, freq[1])
    index = grid.index(np.array(ts))
    assert index.tolist() == [grid.index(each) for each in ts]
    time = grid.time(index)
    assert time.tolist() == [grid.time(each) for each in index.tolist()]
    assert grid.index(time).tolist() == index.tolist()
    assert (grid.time(index + 1) > time).all()
    assert (np.diff(grid.index(np.sort(ts))) >= 0).all()
    start, length = grid.after(index, np.array(ts))
    assert (length > 0).all()
    if not bucket:
        assert (start > np.array(ts)).all(), "nothing that is measured is forecast"
        assert grid.index(start).tolist() == (index + 1).tolist()
    else:
        assert all(grid.end(each) > moment for each, moment in zip(index.tolist(), ts, strict=True))


@pytest.mark.parametrize(
    ("freq", "offset", "ts", "expected"),
    [
        ("3mo", "2mo", ms(2019, 12, 1), ["2019-12-01", "2020-03-01", "2020-06-01", "2020-09-01"]),
        ("1mo", "-1d", ms(2024, 1, 31), ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"]),
        ("1mo", "30d", ms(2023, 1, 31), ["2023-01-31", "2023-02-28", "2023-03-31", "2023-04-30"]),
        ("1y", "6mo-1d", ms(2023, 6, 30), ["2023-06-30", "2024-06-30", "2025-06-30", "2026-06-30"]),
        ("1w", "6d", ms(2024, 1, 7), ["2024-01-07", "2024-01-14", "2024-01-21", "2024-01-28"]),
        ("B", None, ms(2023, 12, 15), ["2023-12-15", "2023-12-18", "2023-12-19", "2023-12-20"]),
        ("B", "-1d", ms(2023, 12, 14), ["2023-12-14", "2023-12-17", "2023-12-18", "2023-12-19"]),
    ],
)
def test_steps_are_at_the_data_s_own_times(freq: str, offset: str | None, ts: int, expected: list[str]) -> None:
    grid = Grid.parse(freq, offset=offset)
    assert days(grid, grid.index(ts), 4) == expected
    assert grid.time(grid.index(ts)) == ts


def test_ten_steps_after_a_friday_are_ten_business_days_at_its_time_of_day() -> None:
    grid, friday = Grid.parse("B", offset="16h"), ms(2023, 12, 15, 16, 5)
    ahead = grid.ahead(np.array([grid.index(friday)]), np.array([friday]), np.arange(1, 11))
    found = [datetime.fromtimestamp(ts / 1000, UTC) for ts in ahead.tolist()]
    assert [each.day for each in found] == [18, 19, 20, 21, 22, 25, 26, 27, 28, 29]
    assert {(each.hour, each.minute) for each in found} == {(16, 5)}


def test_an_event_on_a_weekend_belongs_to_the_friday_before() -> None:
    grid = Grid.parse("B")
    friday = grid.index(ms(2023, 12, 15))
    assert [grid.index(ms(2023, 12, day, 12)) - friday for day in (15, 16, 17, 18)] == [0, 0, 0, 1]
    after = grid.ahead(np.array([friday]), np.array([ms(2023, 12, 16)]), 1)
    assert after.tolist() == [ms(2023, 12, 18)]


def test_a_holiday_of_business_days_is_filled_and_breaks_nothing() -> None:
    store = WindowStore(WindowConfig(seq_len=4, freq="B"))
    for day in (21, 22, 26, 27):  # Thursday, Friday; Monday the 25th is missing
        store.push(Event("a", ms(2023, 12, day), (float(day),)))
    windows = store.take()
    assert (store.counts.filled, store.counts.reset) == (1, 0)
    assert [datetime.fromtimestamp(ts / 1000, UTC).day for ts in windows.start.tolist()] == [27, 28]


@pytest.mark.parametrize(("offset", "label"), [("2mo", (2024, 3, 1)), ("2mo-1d", (2024, 5, 31))])
def test_a_bucket_of_months_ends_with_them_wherever_its_time_is(offset: str, label: tuple[int, int, int]) -> None:
    store = WindowStore(WindowConfig(seq_len=2, freq="3mo", offset=offset, aggregate="sum"))
    for moment in ((2024, 1, 5), (2024, 3, 1), (2024, 5, 31, 23), (2024, 6, 1)):
        store.push(Event("a", ms(*moment), (1.0,)))
    windows = store.take()
    assert windows.x[0, :, 0].tolist() == [1.0, 2.0]
    assert windows.ts.tolist() == [ms(*label)]


@given(st.sampled_from([freq for freq in GRIDS if freq[1]]), st.integers(0, 2000), st.floats(-0.2, 0.2))
def test_an_event_up_to_a_fifth_of_a_step_off_belongs_to_its_step(
    freq: tuple[str, str], index: int, share: float
) -> None:
    grid = Grid.parse(freq[0], offset=freq[1])
    time = grid.time(index)
    shortest = min(time - grid.time(index - 1), grid.time(index + 1) - time)
    assert grid.index(time + int(share * shortest)) == index


def test_grids_of_another_phase_have_windows_of_another_state() -> None:
    hashes = {config_hash(WindowConfig(seq_len=4, freq=freq, offset=offset)) for freq, offset in GRIDS}
    assert len(hashes) == len(GRIDS)
    assert config_hash(WindowConfig(seq_len=4, freq="1h", offset="0m")) == config_hash(
        WindowConfig(seq_len=4, freq="1h")
    )


@pytest.mark.parametrize(
    ("freq", "offset", "message"),
    [
        ("1h", "1mo", "'1mo' has months, and steps of 1h are in none"),
        ("B", "1mo", "'1mo' has months, and steps of B are in none"),
        ("1mo", "35d", "35d is longer than a step of 1 months"),
        ("1h", "half past", "'half past' is not like 30m, 16h"),
        ("1h", "", "'' is not like 30m, 16h"),
        (None, "30m", "needs a freq"),
    ],
)
def test_an_offset_that_no_grid_has_is_refused_by_name(freq: str | None, offset: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^offset: {message}"):
        WindowConfig(seq_len=2, freq=freq, offset=offset)


def test_a_week_has_five_business_days_and_weekends_are_no_steps() -> None:
    monday = Grid.parse("B").index(ms(2024, 1, 1))
    assert monday % 5 == 0
    assert Grid.parse("b") == Grid.parse("B")
    assert Grid.parse("B").index(ms(2024, 1, 1) + 7 * DAY) - monday == 5
