"""Which columns are what: found and said where there is one way to read a file, else asked."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.columns import Columns
from pipeline.datasets.measurements import Measurements, measurements
from pipeline.datasets.tables import Table, parse_csv
from tidecast.errors import DataError

START = datetime(2024, 1, 1)
ROWS = 240


def read(
    header: str, rows: Sequence[Sequence[object]], columns: Columns | None = None, freq: str | None = None
) -> Measurements:
    text = "\n".join([header, *(",".join(map(str, row)) for row in rows)])
    return measurements(parse_csv("t.csv", text), columns, freq=freq, stem="t")


def hourly(*columns: Callable[[int], object], times: int = ROWS) -> list[list[object]]:
    """A row an hour: its time, and what each column has in it."""
    return [[f"{START + timedelta(hours=at)}", *(column(at) for column in columns)] for at in range(times)]


def measured(at: int) -> float:
    return at * 37 % 101 + 0.5


def each(groups: Sequence[Sequence[object]], value: Callable[[int], object] = measured) -> list[list[object]]:
    """A row for each group at each hour: time, group, value."""
    return [[f"{START + timedelta(hours=at)}", *group, value(at)] for group in groups for at in range(ROWS)]


STORES = [(store, item) for store in (1, 2, 3) for item in (1, 2)]


@pytest.mark.parametrize(
    "options", [Columns(), Columns(value="sales"), Columns(series="store"), Columns(series="item")]
)
def test_rows_that_repeat_their_times_name_the_columns_of_their_series(options: Columns) -> None:
    with pytest.raises(
        DataError, match=r"t.csv: rows repeat their times: name the series' columns with --series-column"
    ) as error:
        read("date,store,item,sales", each(STORES), options)
    named = str(error.value).split("--series-column ")[1].split()[0]
    source = read("date,store,item,sales", each(STORES), Columns(series=named))
    assert source.frame["series"].n_unique() == len(STORES)
    assert not any(source.left_out.values())


def test_several_columns_make_a_compound_name() -> None:
    source = read("date,store,item,sales", each(STORES), Columns(series="store, item"))
    assert source.frame["series"].unique(maintain_order=True).to_list() == ["1/1", "1/2", "2/1", "2/2", "3/1", "3/2"]
    assert source.notes == ("6 series by `store`, `item`; times from `date`; value `sales`",)
    with pytest.raises(DataError, match="two series would be called 'x/y/z'"):
        read("ts,a,b,value", [["2024-01-01", "x/y", "z", 1], ["2024-01-01", "x", "y/z", 1]], Columns(series="a,b"))
    with pytest.raises(DataError, match="'store,store' names a column twice"):
        read("date,store,item,sales", each(STORES), Columns(series="store,store"))
    with pytest.raises(DataError, match="no column 'shop' among"):
        read("date,store,item,sales", each(STORES), Columns(series="shop,item"))


@pytest.mark.parametrize(
    ("header", "rows", "named"),
    [
        ("ts,city,temp", each([("x",), ("y",)]), "city"),
        ("ts,city,value", each([("x",), ("y",)]), "city"),
        (
            "ts,promo,store,load",
            [[row[0], at % 2, *row[1:]] for at, row in enumerate(each([(4,), (5,), (6,)]))],
            "store",
        ),
        ("ts,item_id,store,load", each(STORES), "item_id,store"),
        ("ts,region,shop,load", each([("n", "n1"), ("n", "n2"), ("s", "s1"), ("s", "s2")]), "shop"),
        ("ts,zone,load", [[row[0], f"{row[1]}.0", row[2]] for row in each([(1,), (2,)])], "zone"),
    ],
)
def test_the_fewest_columns_that_tell_series_apart_are_named(header: str, rows: list[list[object]], named: str) -> None:
    with pytest.raises(DataError, match=f"--series-column {named} "):
        read(header, rows)


@pytest.mark.parametrize("names", ["abc", (1, 2, 3)])
def test_series_whose_times_differ_are_not_one(names: Sequence[object]) -> None:
    rows = [[f"{START + timedelta(minutes=20 * at)}", names[at % 3], measured(at)] for at in range(ROWS)]
    with pytest.raises(DataError, match="rows are of several series by 'probe': --series-column probe"):
        read("ts,probe,value", rows)
    assert read("ts,probe,value", rows, Columns(series="probe")).frame["series"].n_unique() == 3


@pytest.mark.parametrize(
    "text", [lambda at: "C", lambda at: "bad" if at % 21 == 0 else "ok", lambda at: f"{START + timedelta(hours=at):%A}"]
)
def test_a_text_beside_one_series_is_not_read_and_this_is_said(text: Callable[[int], object]) -> None:
    source = read("ts,note,load", hourly(text, measured))
    assert source.frame["series"].unique().to_list() == ["t"]
    assert source.notes == ("one series, `t`; times from `ts`; value `load`; not used: `note`",)


@pytest.mark.parametrize("label", [lambda at: 1, lambda at: at % 2, lambda at: at // 24 % 7, lambda at: "3.0"])
def test_a_few_whole_numbers_beside_measurements_are_no_series(label: Callable[[int], object]) -> None:
    rows = hourly(label, measured)
    with pytest.raises(DataError, match=r"which columns are values among 'state', 'load'\? 'state' only has a few"):
        read("ts,state,load", rows)
    assert read("ts,state,load", rows, Columns(value="load")).frame["series"].unique().to_list() == ["t"]
    both = read("ts,state,load", rows, Columns(value="state,load"))
    assert both.frame["series"].unique().sort().to_list() == ["load", "state"]


def test_a_wide_file_stays_one() -> None:
    source = read("date,HUFL,OT,cars", hourly(measured, lambda at: at % 50, lambda at: at * 31 % 97))
    assert source.notes == ("3 series; times from `date`; a column each: `HUFL`, `OT`, `cars`",)


@pytest.mark.parametrize("name", ["Unnamed: 0", "", "__index_level_0__", "index", "No", "instant"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_running_number_is_left_out_and_this_is_said(name: str, first: int) -> None:
    rows = [[first + at, *row] for at, row in enumerate(hourly(measured))]
    source = read(f"{name},date,OT", rows)
    assert source.frame["series"].unique().to_list() == ["t"]
    assert source.frame["value"].to_list() == [measured(at) for at in range(ROWS)]
    assert source.notes[0].endswith(
        f"value `OT`; {f'`{name}`' if name else 'a column without a name'} numbers the rows"
    )


def test_an_index_that_is_no_running_number_is_left_out_too_unless_it_holds_the_times() -> None:
    shuffled = [[at * 7 % ROWS, *row] for at, row in enumerate(hourly(measured))]
    assert read("Unnamed: 0,date,OT", shuffled).frame["series"].unique().to_list() == ["t"]
    for name in ("", "Unnamed: 0", "__index_level_0__"):
        assert read(f"{name},load", hourly(measured)).frame["ts"].n_unique() == ROWS
    frame = pl.DataFrame({"__index_level_0__": range(ROWS), "ds": [START + timedelta(hours=at) for at in range(ROWS)]})
    table = Table("t", frame.with_columns(load=pl.int_range(pl.len()) * 7 % 50), pl.int_range(ROWS, eager=True))
    assert measurements(table).frame["series"].n_unique() == 1


def test_a_running_number_that_is_all_there_is_is_the_value() -> None:
    assert read("ts,count", hourly(lambda at: at)).frame["value"].to_list() == list(range(ROWS))
    assert read("ts,value,b", hourly(lambda at: at, measured)).frame["value"].to_list() == list(range(ROWS))


def test_the_only_column_of_times_is_found_whatever_it_is_called() -> None:
    source = read("Messzeit,load", hourly(measured))
    assert source.notes == ("one series, `t`; times from `Messzeit`; value `load`",)
    with pytest.raises(DataError, match=r"which column is the time among 'made', 'sent'\? Name it with --time-column"):
        read("made,sent,load", [[row[0], *row] for row in hourly(measured)])


def test_a_date_and_an_hour_are_one_time() -> None:
    rows = [[f"{START + timedelta(hours=at):%Y-%m-%d,%H}", measured(at)] for at in range(ROWS)]
    for header, options in (("date,hour,load", Columns()), ("day,hr,load", Columns(ts="day,hr"))):
        assert read(header, rows, options).frame["ts"].diff().drop_nulls().unique().to_list() == [3_600_000]
    with pytest.raises(DataError, match="rows repeat their times: give date and time of day as --time-column DATE,hr"):
        read("day,hr,load", rows)


def test_repeated_rows_are_counted_said_and_more_than_a_few_are_refused_before_a_training() -> None:
    rows = [row for at, row in enumerate(hourly(measured)) for _ in range(2 if at % 10 == 0 else 1)]
    source = read("ts,load", rows)
    assert len(source.frame) == len(rows)
    assert source.notes[1].startswith("24 of 264 measurements repeat their series' time")
    with pytest.raises(
        DataError, match=r"24 of 264 measurements, 9.1%, are left out: 24 of a series.*--max-skipped 0.1 "
    ):
        source.checked(0.05)
    assert source.checked(0.1) is source
    assert read("ts,load", rows, Columns(aggregated=True)).checked(0.0)


def test_events_that_are_aggregated_may_repeat_their_times() -> None:
    rows = each([(f"user {at}",) for at in range(5)])
    with pytest.raises(DataError, match="--series-column user"):
        read("ts,user,amount", rows, Columns(aggregated=True))
    assert read("ts,user,amount", rows, Columns(value="amount", aggregated=True)).checked(0.0)
    assert read("ts,user,amount", rows, Columns(max_skipped=1.0)).checked(1.0)


@given(
    sizes=st.lists(st.integers(2, 4), min_size=1, max_size=3),
    order=st.permutations(range(5)),
    numbers=st.booleans(),
    times=st.integers(30, 60),
)
def test_series_of_several_columns_are_never_taken_for_another_layout(
    sizes: list[int], order: list[int], numbers: bool, times: int
) -> None:
    keys = [()]
    for size in sizes:
        keys = [(*key, place + 1 if numbers else f"k{place}") for key in keys for place in range(size)]  # type: ignore[misc]
    names = ["date", *(f"part {place}" for place in range(len(sizes))), "load"]
    rows = [
        [f"{START + timedelta(days=at):%Y-%m-%d}", *key, (at * 37 + place * 11) % 101 + 0.25]
        for at in range(times)
        for place, key in enumerate(keys)
    ]
    shuffle = [place for place in order if place < len(names)]
    header = ",".join(names[place] for place in shuffle)
    shuffled = [[row[place] for place in shuffle] for row in rows]
    with pytest.raises(DataError, match="--series-column") as error:
        read(header, shuffled)
    named = str(error.value).split("--series-column ")[1].split(" (")[0]
    source = read(header, shuffled, Columns(series=named)).checked(0.0)
    assert source.frame["series"].n_unique() == len(keys)
    assert source.frame["value"].to_list() == [row[-1] for row in rows]


@pytest.mark.parametrize(
    ("name", "clock"),
    [("START TIME", "{:02}:00"), ("Anfang", "{:02}:00"), ("HE", "HE{:02}"), ("settlement_period", "{}")],
)
def test_a_column_that_tells_the_time_of_day_names_no_series(name: str, clock: str) -> None:
    rows = [f"2024-01-{day:02},{clock.format(hour)},{day + hour / 7:.3f}" for day in range(1, 30) for hour in range(24)]
    table = parse_csv("t.csv", "\n".join([f"date,{name},value", *rows]))
    with pytest.raises(DataError, match=f"give date and time of day as --time-column DATE,{name}$"):
        measurements(table)
    read = measurements(table, Columns(ts=f"date,{name}"))
    assert read.frame["ts"].diff().drop_nulls().unique().to_list() == [3_600_000]


@pytest.mark.parametrize("name", ["Settlement Period", "settlementPeriod", "period", "SETTLEMENTPERIOD"])
@pytest.mark.parametrize(("count", "minutes"), [(25, 60), (46, 30), (48, 30), (50, 30), (96, 15)])
def test_numbers_of_a_day_s_steps_are_no_hours(name: str, count: int, minutes: int) -> None:
    rows = [f"2024-01-{day:02},{step},{step * day}" for day in range(1, 5) for step in range(1, count + 1)]
    text = "\n".join([f"Settlement Date,{name},MW", *rows])
    way = re.escape(f"add a column of times, as the UTC time of the date's midnight + ({name} - 1) x {minutes} min")
    for columns in (Columns(), Columns(ts=f"Settlement Date,{name}")):
        with pytest.raises(DataError, match=way) as error:
            measurements(parse_csv("t.csv", text), columns)
        assert "\n" not in str(error.value)
    moments = [START + timedelta(minutes=minutes * at) for at in range(4 * count)]
    text = "\n".join(
        [f"start,Settlement Date,{name},MW", *(f"{at},{row}" for at, row in zip(moments, rows, strict=True))]
    )
    followed = measurements(parse_csv("t.csv", text), Columns(ts="start", value="MW"))
    assert len(followed.frame) == len(rows), "the way out is one"


def test_an_empty_column_numbers_no_rows() -> None:
    text = "\n".join([",time,value,", *(f",2024-01-{day:02},{day}.5," for day in range(1, 9))])
    source = measurements(parse_csv("t.csv", text))
    assert source.frame["value"].len() == 8
    assert not any("numbers the rows" in note for note in source.notes)
    assert any("2 columns left out" in note for note in source.notes)


def test_an_empty_column_beside_values_is_not_read_and_this_is_said() -> None:
    rows = [[f"2024-01-{day:02}", day + 0.5, 40 - day * 1.5, ["", "NA"][day % 2]] for day in range(1, 9)]
    source = read("time,a,b,broken", rows)
    assert source.frame["series"].unique(maintain_order=True).to_list() == ["a", "b"]
    assert "not used: `broken`" in source.notes[0]
