import pytest

from model.seasons import calendar_cycles, seasonal_lags, step_length


@pytest.mark.parametrize(
    ("freq", "lags"),
    [
        ("30m", {"day": 48, "week": 336}),
        ("1h", {"day": 24, "week": 168}),
        ("1d", {"week": 7}),
        ("250ms", {"day": 345_600, "week": 2_419_200}),
        ("7h", {"week": 24}),
        ("1w", {"year": 52}),
        ("1mo", {"year": 12}),
        ("5mo", {}),
        ("1y", {}),
        (None, {}),
    ],
)
def test_seasons_are_whole_numbers_of_steps(freq: str | None, lags: dict[str, int]) -> None:
    assert seasonal_lags(freq) == lags


def test_no_freq_has_no_seasons_and_an_invalid_freq_is_an_error() -> None:
    assert (seasonal_lags(None), step_length(None), calendar_cycles(None)) == ({}, 0, {})
    for of in (seasonal_lags, step_length, calendar_cycles):
        with pytest.raises(ValueError, match="freq: '1x'"):
            of("1x")
