"""Times as people write them, and wall clocks: each is read as the moment that it was, or asked."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.columns import Columns
from pipeline.datasets.measurements import Measurements, measurements
from pipeline.datasets.tables import Table, parse_csv
from tidecast.errors import ConfigError, DataError

HOUR = timedelta(hours=1)
NEW_YEAR = datetime(2024, 1, 1)


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


def read(cells: Sequence[str], **options: str) -> Measurements:
    """One series with a time a row, quoted, and the values 0, 1, ..."""
    rows = (f'"{cell}",{at}.5' for at, cell in enumerate(cells))
    return measurements(parse_csv("t.csv", "\n".join(["ts,value", *rows])), Columns(**options))  # type: ignore[arg-type]


def times(cells: Sequence[str], **options: str) -> list[int]:
    return read(cells, **options).frame["ts"].to_list()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["2024-03-31 01:00:00+01:00", "2024-03-31 03:00:00+02:00"], [ms(2024, 3, 31), ms(2024, 3, 31, 1)]),
        (["2024-03-31T00:00Z", "2024-03-31T03:00+02:00"], [ms(2024, 3, 31), ms(2024, 3, 31, 1)]),
        (["2024-01-01 00:00:00 UTC", "2024-01-01 01:00:00 GMT"], [ms(2024, 1, 1), ms(2024, 1, 1, 1)]),
        (["2024-01-01 00:00:00.000 UTC"], [ms(2024, 1, 1)]),
        (["2024-01-01 02:00:00 +0200"], [ms(2024, 1, 1)]),
        (["2024-01-01 00:00:00 +0000 UTC"], [ms(2024, 1, 1)]),
        (["2024-01-01T01:00+01:00[Europe/Berlin]"], [ms(2024, 1, 1)]),
        (["Mon, 01 Jan 2024 00:00:00 GMT"], [ms(2024, 1, 1)]),
        (["2023-12-31 24:00", "2024-01-01 01:00"], [ms(2024, 1, 1), ms(2024, 1, 1, 1)]),
        (["31.12.2023 24:00:00", "01.01.2024 01:00:00"], [ms(2024, 1, 1), ms(2024, 1, 1, 1)]),
        (["202312312400", "202401010100"], [ms(2024, 1, 1), ms(2024, 1, 1, 1)]),
        (["202401010000", "202401010100"], [ms(2024, 1, 1), ms(2024, 1, 1, 1)]),
        (["20240101000000", "20240101000015"], [ms(2024, 1, 1), ms(2024, 1, 1, 0, 0, 15)]),
        (["20240101000000000", "20240101000000250"], [ms(2024, 1, 1), ms(2024, 1, 1) + 250]),
        (["2024010100000050"], [ms(2024, 1, 1) + 500]),
        (["2024Q1", "2024-Q2", "Q3 2024"], [ms(2024, 1, 1), ms(2024, 4, 1), ms(2024, 7, 1)]),
        (["2024M01", "02/2024", "3.2024"], [ms(2024, 1, 1), ms(2024, 2, 1), ms(2024, 3, 1)]),
        (["2023.0", "2024.0"], [ms(2023, 1, 1), ms(2024, 1, 1)]),
        (["31.12.2023 23:00 Uhr", "01.01.2024 00:15 Uhr"], [ms(2023, 12, 31, 23), ms(2024, 1, 1, 0, 15)]),
        (["31/12/2023 23h00", "01/01/2024 00h30"], [ms(2023, 12, 31, 23), ms(2024, 1, 1, 0, 30)]),
        (["2024-01-01 02:00 UTC+2", "2024-01-01 02:00 GMT+0100"], [ms(2024, 1, 1), ms(2024, 1, 1, 1)]),
        (["Mon Jan 01 2024 00:00:00 GMT-0130 (Some Standard Time)"], [ms(2024, 1, 1, 1, 30)]),
        (["2024010100", "2024010123"], [ms(2024, 1, 1), ms(2024, 1, 1, 23)]),
        (["202401", "202402"], [ms(2024, 1, 1), ms(2024, 2, 1)]),
        (["2024/1/5", "2024/01/06"], [ms(2024, 1, 5), ms(2024, 1, 6)]),
        (["12/31/2023", "1/1/2024"], [ms(2023, 12, 31), ms(2024, 1, 1)]),
        (["31/12/2023 1:00 PM", "01/01/2024 12:30 am"], [ms(2023, 12, 31, 13), ms(2024, 1, 1, 0, 30)]),
        (["1 Jan 2024", "2 February 2024"], [ms(2024, 1, 1), ms(2024, 2, 2)]),
        (["Jan 1, 2024", "Jan 2, 2024"], [ms(2024, 1, 1), ms(2024, 1, 2)]),
        (["31.12.2023 23:00 - 01.01.2024 00:00"], [ms(2023, 12, 31, 23)]),
        (["2024-01-01T00:00Z/2024-01-01T01:00Z"], [ms(2024, 1, 1)]),
        (["1704067200000000000", "1704067201000000000"], [ms(2024, 1, 1), ms(2024, 1, 1, 0, 0, 1)]),
        (["631152000000", "631155600000"], [ms(1990, 1, 1), ms(1990, 1, 1, 1)]),
    ],
)
def test_times_that_have_one_meaning_are_read(cells: list[str], expected: list[int]) -> None:
    assert times(cells) == expected


@pytest.mark.parametrize(
    ("cells", "what"),
    [
        (["01/02/2024", "02/02/2024"], "row 2, column 'ts': '01/02/2024' may begin with the day or the month"),
        (["01/31/2024", "31/01/2024"], "row 3, column 'ts': '31/01/2024' is not written as '01/31/2024' is"),
        (["31/01/2024", "2024-02-01"], "row 3, column 'ts': '2024-02-01' is not written as '31/01/2024' is"),
        (["31/01/24", "01/02/24"], "row 2, column 'ts': '31/01/24' is not a time"),
        (["200112", "200211"], "'200112' may be a month or a day: --time-format %Y%m, or --time-format %y%m%d"),
        (["2024-01-01 00:00 CET"], "short names of zones are not offsets"),
        (["2024-01-01 24:15"], "is not a time"),
        (["2024-01-01 25:00"], "is not a time"),
        (["13:00 PM"], "is not a time"),
        (["31/01/2024 13:00 PM"], "is not a time"),
        (["2.02401E+11", "2.02401E+11"], "is not a time"),
        (["1704067200000", "1704067200"], "row 3, column 'ts': 1704067200 is no epoch in milliseconds, as others are"),
        (["2024-01-01T00:00Z", "2024-01-01T01:00"], "row 3, column 'ts': .* --timezone tells the zone"),
    ],
)
def test_what_may_be_another_time_is_one_line_with_its_row(cells: list[str], what: str) -> None:
    with pytest.raises(DataError, match=what) as error:
        read(cells)
    assert "\n" not in str(error.value)


def test_a_format_tells_what_the_data_do_not() -> None:
    assert times(["01/02/24", "02/02/24"], time_format="%d/%m/%y") == [ms(2024, 2, 1), ms(2024, 2, 2)]
    assert times(["200112", "200211"], time_format="%Y%m") == [ms(2001, 12, 1), ms(2002, 11, 1)]
    assert times(["1704067200000", "1704067200"], time_format="ms") == [ms(2024, 1, 1), 1_704_067_200]
    for form in ("%d/%m/%Y", "%Q"):
        with pytest.raises(
            DataError, match=f"row 2, column 'ts': '31-01' is not a time as --time-format '{form}' says"
        ):
            read(["31-01"], time_format=form)
    with pytest.raises(DataError, match="row 3, column 'ts': 'now' is not a number"):
        read(["1", "now"], time_format="s")


def test_what_times_were_taken_for_is_said() -> None:
    notes = {
        "202401010100": "YYYYMMDDhhmm",
        "1704067200": "epoch seconds",
        "31/12/2023": "day first",
        "12/31/2023": "month first",
        "31.12.2023 23:00 - 01.01.2024 00:00": "day first, the starts of intervals",
    }
    for cell, note in notes.items():
        assert read([cell]).notes == (f"one series, `value`; times from `ts`, {note}; value `value`",)
    assert read(["2024-01-01"]).notes == ("one series, `value`; times from `ts`; value `value`",)


def clock(start: datetime, step: timedelta, steps: int, zone: str) -> list[datetime]:
    """Times of a zone's clock, evenly spaced as moments."""
    first = start.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return [(first + step * at).astimezone(ZoneInfo(zone)) for at in range(steps)]


def test_the_hour_that_a_clock_shows_twice_is_two_hours_in_the_order_of_the_file() -> None:
    wall = clock(datetime(2024, 10, 26), timedelta(minutes=30), 100, "Europe/Berlin")
    cells = [f"{time:%Y-%m-%d %H:%M}" for time in wall]
    expected = [int(time.timestamp() * 1000) for time in wall]
    source = read(cells, timezone="Europe/Berlin")
    assert source.frame["ts"].to_list() == expected
    assert source.notes[1].startswith("4 rows of an hour that Europe/Berlin showed twice")
    assert times(cells[::-1], timezone="Europe/Berlin") == expected[::-1]


def test_the_hour_that_a_clock_skips_is_left_out_and_counted() -> None:
    cells = [f"2024-03-31 {hour:02}:00" for hour in range(24)]
    source = read(cells, timezone="Europe/Berlin")
    assert len(source.frame) == 23
    assert source.skipped == 1
    assert source.notes[1] == "1 row of an hour that Europe/Berlin skipped: left out"
    with pytest.raises(DataError, match=r"1 of 24 measurements, 4.2%, are left out: 1 of an hour that"):
        source.checked(0.04)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Europe/London", "America/New_York", "Australia/Sydney"])
@pytest.mark.parametrize("minutes", [15, 60])
def test_times_that_are_like_a_clock_with_summer_time_get_a_hint(zone: str, minutes: int) -> None:
    wall = clock(datetime(2024, 2, 1, 12), timedelta(minutes=minutes), 300 * 24 * 60 // minutes, zone)
    hint = read([f"{time:%Y-%m-%d %H:%M}" for time in wall]).notes[-1]
    assert f"look like a clock with summer time: --timezone {zone}" in hint
    for even in (wall, [time.astimezone(UTC) for time in wall]):
        form = "%Y-%m-%d %H:%M%z" if even is wall else "%Y-%m-%d %H:%M"
        assert len(read([time.strftime(form) for time in even]).notes) == 1


def test_a_zone_changes_neither_moments_nor_dates() -> None:
    cells = ["2024-01-01T00:00Z", "2024-01-01T01:00Z"]
    assert times(cells, timezone="Europe/Berlin") == times(cells)
    assert read(cells, timezone="Europe/Berlin").notes[1] == "`ts` has moments, which --timezone does not change"
    days = ["2024-06-01", "2024-06-02"]
    assert times(days, timezone="Europe/Berlin") == times(days)
    assert read(days, timezone="Europe/Berlin").notes[1] == "`ts` has dates, so --timezone changes nothing"
    mixed = ["2024-01-01T00:00Z", "2024-01-01T02:00"]
    assert times(mixed, timezone="Europe/Berlin") == [ms(2024, 1, 1), ms(2024, 1, 1, 1)]
    with pytest.raises(ConfigError, match="timezone: 'Berlin' is not a zone such as Europe/Berlin or UTC"):
        Columns(timezone="Berlin")


def test_typed_times_take_a_zone_too() -> None:
    frame = pl.DataFrame({"ds": [datetime(2024, 6, 1, 2), datetime(2024, 6, 1, 3)], "y": [1, 2]})
    table = Table("t", frame, pl.Series([1, 2]))
    assert measurements(table, Columns(timezone="Europe/Berlin")).frame["ts"][0] == ms(2024, 6, 1)
    assert measurements(table).frame["ts"][0] == ms(2024, 6, 1, 2)


FORMATS = (
    *("%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%SZ", "%Y/%m/%d %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M %p"),
    *("%d.%m.%Y %H:%M:%S", "%d-%b-%Y %H:%M", "%b %d, %Y %H:%M", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y-%m-%d %H:%M UTC"),
)


@given(
    start=st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)),
    step=st.sampled_from([timedelta(minutes=15), HOUR, timedelta(days=1)]),
    steps=st.integers(1, 60),
    form=st.sampled_from(FORMATS),
)
def test_written_times_are_read_as_they_were_or_asked(start: datetime, step: timedelta, steps: int, form: str) -> None:
    moments = [start.replace(second=0, microsecond=0) + step * at for at in range(steps)]
    try:
        found = times([time.strftime(form) for time in moments])
    except DataError as error:
        if "may begin with the day or the month" not in str(error):
            raise
        found = times([time.strftime(form) for time in moments], time_format=form)
    assert found == [round(time.replace(tzinfo=UTC).timestamp() * 1000) for time in moments]


@given(
    zone=st.sampled_from(
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo"]
    ),
    start=st.datetimes(datetime(2015, 1, 1), datetime(2025, 1, 1)),
    step=st.sampled_from([timedelta(minutes=15), HOUR]),
    steps=st.integers(2, 400),
    names=st.sampled_from([("a",), ("a", "b")]),
    backwards=st.booleans(),
)
def test_a_zones_clock_is_read_as_the_moments_that_it_showed(
    zone: str, start: datetime, step: timedelta, steps: int, names: tuple[str, ...], backwards: bool
) -> None:
    wall = clock(start.replace(hour=12, minute=0, second=0, microsecond=0), step, steps, zone)
    rows = [(name, time) for time in (wall[::-1] if backwards else wall) for name in names]
    lines = [f"{name},{time:%Y-%m-%d %H:%M},{at}.5" for at, (name, time) in enumerate(rows)]
    source = measurements(parse_csv("t.csv", "\n".join(["series,ts,value", *lines])), Columns(timezone=zone))
    again = re.findall(r"(\d+) rows? of such an hour, and there once", " ".join(source.notes))
    moments = [int(time.timestamp() * 1000) for _, time in rows]
    wrong = sum(found != moment for found, moment in zip(source.frame["ts"], moments, strict=True))
    assert wrong <= sum(map(int, again))
    assert source.skipped == 0


@pytest.mark.parametrize("cell", ["30000000000000000", "40000000000", "9999999999999"])
def test_digits_that_would_be_an_epoch_of_a_far_future_are_asked_about(cell: str) -> None:
    with pytest.raises(
        DataError, match=r"row 2, column 'ts': .* is after the year 2100 as an epoch in .*--time-format"
    ):
        times([cell])


def test_month_13_is_no_month_nor_quarter_5_a_quarter() -> None:
    for cell in ("13/2024", "2024Q5", "2024M00"):
        with pytest.raises(DataError, match="is not a time"):
            times([cell])
