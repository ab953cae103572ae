import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidecast.freq import MONTH, YEAR, Freq, format_duration, parse_duration, round_up_duration

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("text", "milliseconds", "months"),
    [("250ms", 250, 0), ("15s", 15_000, 0), ("30m", HOUR // 2, 0), ("4w", 28 * 24 * HOUR, 0), ("5mo", 0, 5)],
)
def test_a_freq_has_one_length_or_months(text: str, milliseconds: int, months: int) -> None:
    assert (Freq.parse(text).milliseconds, Freq.parse(text).months) == (milliseconds, months)


@pytest.mark.parametrize("text", ["", "h", "0h", "01h", "1.5h", "1 h", "1x", "1H", "-1h", "123456789ms"])
def test_what_is_not_like_a_freq_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"^freq: '.*' is not like 250ms, 15s"):
        Freq.parse(text)


@pytest.mark.parametrize("text", ["1mo", "1y", "later", "-1h", "00"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no duration such as 250ms"):
        parse_duration(text)


def test_a_duration_may_be_zero() -> None:
    assert [parse_duration(text) for text in ("0", "90s", "7d")] == [0, 90_000, 168 * HOUR]


def test_a_calendar_s_units_on_average() -> None:
    assert pytest.approx(365.2425 * 24 * HOUR) == YEAR == 12 * MONTH


def test_lengths_of_time_in_words() -> None:
    lengths = (1, 90_000, 5_400_000, 14 * 24 * HOUR)
    assert [format_duration(ms) for ms in lengths] == ["1 ms", "1.5 m", "1.5 h", "14 d"]
    assert [format_duration(ms, whole=True) for ms in (0, *lengths)] == ["0 s", "0 s", "2 m", "2 h", "14 d"]


@given(milliseconds=st.integers(1, 10**12))
def test_a_length_rounded_up_is_a_duration_that_is_not_less(milliseconds: int) -> None:
    assert parse_duration(round_up_duration(milliseconds)) >= milliseconds
    assert [round_up_duration(ms) for ms in (1, 1500, 90_000, 25 * HOUR)] == ["1ms", "2s", "2m", "2d"]
