from tidecast.times import format_time


def test_a_time_is_utc_to_the_minute_or_second_or_as_it_stands() -> None:
    assert format_time(1_769_860_859_999) == "2026-01-31 12:00"
    assert format_time(1_769_860_859_999, "seconds") == "2026-01-31 12:00:59"
    assert format_time(2**62) == str(2**62), "no calendar has it"
