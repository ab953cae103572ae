"""Files and standard input as measurements, what is refused in them, and the events that they hold."""

import gzip
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import examples

from pipeline.datasets.columns import Columns
from pipeline.datasets.measurements import events, publishable, read_file
from pipeline.formats.events import Event
from tidecast.errors import DataError

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "series"
HALF_HOUR = 1_800_000
LONG = "series,ts,value\na,2020-01-01T00:00:00Z,1\nb,2020-01-01T00:00:00Z,10\na,2020-01-01T00:30:00Z,2\n"
ROWS = [("a", 1_577_836_800_000, 1.0), ("b", 1_577_836_800_000, 10.0), ("a", 1_577_838_600_000, 2.0)]
Write = Callable[[str, str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


def parquet(frame: pl.DataFrame) -> bytes:
    frame.write_parquet(buffer := io.BytesIO())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("long.csv", LONG),
        ("dos.csv", "\ufeff" + LONG.replace("\n", "\r\n")),
        ("semicolons.csv", LONG.replace(",", ";")),
        ("quoted.csv", 'ds,"y",unique_id\n2020-01-01,1,a\n\n2020-01-01," 10 ","b"\n2020-01-01 00:30:00,2,a\n'),
        ("names.csv", "Key,TimeStamp,Value\na,2020-01-01,1\nb,2020-01-01,10\na,2020-01-01 00:30,2\n"),
        ("long.csv.gz", gzip.compress(LONG.encode(), mtime=0)),
        ("seconds.csv", "series,ts,value\na,1577836800,1\nb,1577836800,10\na,1577838600,2\n"),
        ("fractions.csv", "series,ts,value\na,1577836800.0,1\nb,1577836800.000,10\na,1577838600.0,2\n"),
        ("milliseconds.csv", "series,ts,value\na,1577836800000,1\nb,1577836800000,10\na,1577838600000,2\n"),
        (
            "events.jsonl",
            '{"series":"a","ts":1577836800000,"value":1}\n{"series":"b","ts":1577836800000,"value":10.0,"x":[1]}\n\n'
            '{"ts":1577838600000,"series":"a","value":2}',
        ),
        ("long.parquet", parquet(pl.DataFrame(ROWS, ["unique_id", "ds", "y"], orient="row"))),
        ("index.csv", ",series,ts,value\n0,a,2020-01-01,1\n1,b,2020-01-01,10\n2,a,2020-01-01 00:30:00,2\n"),
        (
            "numbered.csv",
            "id,key,date,year,y\n1,a,2020-01-01,0,1\n2,b,2020-01-01,0,10\n3,a,2020-01-01T00:30,0,2\n",
        ),
        ("zoned.csv", LONG.replace("T00:", "T01:").replace("Z", "+01:00")),
    ],
)
def test_long_files_of_every_format_read_the_same(write: Write, name: str, content: str | bytes) -> None:
    source = read_file(write(name, content))
    assert source.frame.schema == {"series": pl.String, "ts": pl.Int64, "value": pl.Float64}
    assert source.frame.rows() == ROWS
    assert source.skipped == 0


def test_typed_times_of_a_parquet_file(write: Write) -> None:
    moments = pl.Series("ds", [datetime(2020, 1, 1), datetime(2020, 1, 1, 0, 30)])
    for ds in (moments, moments.dt.replace_time_zone("UTC"), moments.cast(pl.Datetime("ns"))):
        assert read_file(write("t.parquet", parquet(pl.DataFrame([ds, pl.Series("y", [1, 2])])))).frame.rows() == [
            ("t", ms(2020, 1, 1), 1.0),
            ("t", ms(2020, 1, 1, 0, 30), 2.0),
        ]


def test_a_file_without_series_is_one_named_after_it(write: Write) -> None:
    assert read_file(write("pump.csv.gz", "date,price\n1949-01,1\n1949-02,2\n")).frame.rows() == [
        ("pump", ms(1949, 1, 1), 1.0),
        ("pump", ms(1949, 2, 1), 2.0),
    ]


def test_unique_ids_are_row_numbers_not_series(write: Write) -> None:
    path = write("pump.csv", "id,ts,value\n1,2020-01-01,5\n2,2020-01-02,6\n")
    assert read_file(path).frame["series"].to_list() == ["pump", "pump"]
    assert read_file(path, Columns(series="id")).frame["series"].to_list() == ["1", "2"]


def test_years_alone_are_times(write: Write) -> None:
    assert read_file(write("nile.csv", "date,value\n1871,1\n1872,2\n")).frame["ts"].to_list() == [
        ms(1871, 1, 1),
        ms(1872, 1, 1),
    ]


@pytest.mark.parametrize(
    "content",
    ["Date,Time,v\n2020-02-01,00:00,1\n2020-02-01,12:30,2\n", "year,month,day,v\n2020,Feb,1,1\n2020,2,1,2\n"],
)
def test_date_and_time_columns_are_joined(write: Write, content: str) -> None:
    assert read_file(write("t.csv", content)).frame["ts"][0] == ms(2020, 2, 1)


def test_wide_files_have_a_series_per_column_in_order_of_time(write: Write) -> None:
    source = read_file(write("w.csv", "date,ts_1,b\n2020-01-01,1,2\n2020-01-02,,4\n2020-01-03,5,6\n"))
    day = [ms(2020, 1, day) for day in (1, 2, 3)]
    expected = [("ts_1", day[0], 1), ("b", day[0], 2), ("b", day[1], 4), ("ts_1", day[2], 5), ("b", day[2], 6)]
    assert source.frame.rows() == expected
    assert source.skipped == 1
    assert source.notes == (
        "2 series; times from `date`; a column each: `ts_1`, `b`",
        "1 of 6 measurements have no value: skipped",
    )


@pytest.mark.parametrize("missing", ["", "NA", "NaN", "null", " None "])
def test_a_missing_value_is_a_missing_step(write: Write, missing: str) -> None:
    source = read_file(write("t.csv", f"ts,value\n2020-01-01,1\n2020-01-02,{missing}\n2020-01-03,3\n"))
    assert source.frame["value"].to_list() == [1.0, 3.0]
    assert source.skipped == 1


def test_options_name_columns_of_unusual_names(write: Write) -> None:
    path = write("t.csv", "Where,When,Count,Extra\nx,2020-01-01,5,0\ny,2020-01-01,6,0\n")
    assert read_file(path, Columns(series="where", ts="When", value="Count")).frame.rows() == [
        ("x", ms(2020, 1, 1), 5.0),
        ("y", ms(2020, 1, 1), 6.0),
    ]


def test_several_features_keep_their_names(write: Write) -> None:
    path = write("t.jsonl", '{"key":"a","ts":"2020-01-01","values":{"flow":1,"heat":2}}\n{"key":"a","ts":"2020-01-02"}')
    source = read_file(path, Columns(features=("heat", "flow")))
    assert source.frame.columns == ["series", "ts", "heat", "flow"]
    assert source.frame.rows() == [("a", ms(2020, 1, 1), 2.0, 1.0)]
    assert source.skipped == 1


def test_rows_without_times_become_steps(write: Write) -> None:
    source = read_file(write("t.csv", "key,y\na,1\nb,2\na,3\n"), freq="30m")
    start = ms(2000, 1, 1)
    assert source.frame.rows() == [("a", start, 1.0), ("b", start, 2.0), ("a", start + HALF_HOUR, 3.0)]
    assert source.notes == (
        "2 series by `key`; no column of times: rows are steps of 30m from 2000-01-01 on; value `y`",
    )


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("t.csv", "", "the file is empty"),
        ("t.csv", "\ufeff", "no rows"),
        ("t.csv", "ts,value\n", "no rows below the header"),
        ("t.csv", "ts,value\n2020-01-01,\n", "no row has a value"),
        ("t.csv", "a,b\nx,y\n", "no column of times among 'a', 'b'"),
        ("t.csv", "series,ts\na,2020-01-01\n", "no column of values among 'series', 'ts'"),
        ("t.csv", "ts,a,b,c\n2020-01-01,1,2,x\n", "which column is the value among 'a', 'b', 'c'?"),
        ("t.csv", "ts,key,a,b\n2020-01-01,k,1,2\n2020-01-02,k,1,2\n", "which column is the value among 'a', 'b'?"),
        ("t.csv", "ts,value\n2020-01-01,1\n2020-01-02\n", "row 3: 1 cells for 2 columns: none for column 'value'"),
        ("t.csv", "ts,value\n\n2020-01-01,1,000\n", "row 3: 3 cells for 2 columns: too many after column 'value'"),
        ("t.csv", 'ts,value\n2020-01-01,"1\n', "row 2: unexpected end of data"),
        ("t.csv", "ts,ts,value\n1,1,1\n", "row 1: two columns of the same name"),
        ("t.csv", "ts,value\n2020-01-01,1\n2020-01-02,1.5x\n", "row 3, column 'value': '1.5x' is not a number"),
        ("t.csv", "ts,value\n2020-01-01,1e39\n", "row 2, column 'value': 1e39 does not fit in a float32"),
        ("t.csv", f"ts,value\n2020-01-01,{'9' * 5_000}\n", "row 2, column 'value': 9{60}... does not fit in a float32"),
        ("t.csv", "ts,value\n2020-01-01,inf\n", "row 2, column 'value': inf does not fit in a float32"),
        ("t.csv", "ts,a,b\n2020-01-01,1,2\n2020-01-02,x,2\n2020-01-03,1,2\n", "row 3, column 'a': 'x' is not a number"),
        ("t.csv", "ts,value\n2020-01-01,1\n2020-13-01,2\n", "row 3, column 'ts': '2020-13-01' is not a time"),
        ("t.csv", "ts,value\n,1\n", "row 2, column 'ts': missing time"),
        ("t.csv", "ts,value\n1577836800,1\nyesterday,2\n", "row 2, column 'ts': '1577836800' is not a time"),
        ("t.csv", "ts,value\n1,1\n2,2\n", "row 2, column 'ts': '1' is not a time"),
        ("t.csv", "ts,value\n2020-01-01T00:00Z,1\n2020-01-01T00:00,2\n", "row 3, column 'ts': .* has no offset"),
        (
            "t.csv",
            "series,ts,value\na,2020-01-01,1\n,2020-01-01,2\na,2020-01-01,1\n",
            "row 3, column 'series': .* empty",
        ),
        ("t.csv", "ts,a\0,b\n2020-01-01,1,2\n", "column 'a.x00': .* control characters"),
        ("t.csv", b"ts,value\n2020-01-01,1\n2020-01-02,\xe9\n", "row 3: not UTF-8 text"),
        ("t.csv.gz", gzip.compress(LONG.encode(), mtime=0)[:-9], "truncated or damaged"),
        ("t.csv.gz", b"\x1f\x8b plain", "truncated or damaged"),
        ("t.parquet", b"PAR1 and no more", "not a complete Parquet file"),
        ("t.parquet", LONG, "not a complete Parquet file"),
        ("t.parquet", parquet(pl.DataFrame({"ts": [1], "y": [2]}))[:-20], "not a complete Parquet file"),
        (
            "t.parquet",
            parquet(pl.DataFrame({"ts": ["2020"], "y": [[1.5]]})),
            "row 1, column 'y': '.1.5.' is not a number",
        ),
        ("t.parquet", parquet(pl.DataFrame({"ts": [b"\xff"], "y": [1.5]})), "row 1, column 'ts': .* is not a time"),
        ("t.parquet", parquet(pl.DataFrame({"ts": [None, "x"], "y": [1, 2]})), "row 1, column 'ts': missing time"),
        ("t.jsonl", '{"ts":1577836800000,"value":1}\n{"ts":1577836800000,"value"\n', "row 2: not a JSON object"),
        ("t.jsonl", '{"ts":1577836800000,"value":1}\n[1]\n', "row 2: not a JSON object"),
        (
            "t.jsonl",
            '{"ts":1577836800000,"value":1}\n{"ts":1577836860000,"value":true}\n',
            "row 2, column 'value': 'True' is not a number",
        ),
        ("t.jsonl", '{"ts":1577836800000,"value":1e999}\n', "row 1: not a JSON object"),
        ("t.jsonl", '{"ts":1577836800000,"value":%s}\n' % ("9" * 400), "row 1, column 'value': .* fit in a float32"),
        ("t.jsonl", '{"ts":' + "[" * 100_000, "row 1: not a JSON object"),
    ],
)
def test_a_faulty_file_is_one_line_that_names_file_row_and_column(
    write: Write, name: str, content: str | bytes, what: str
) -> None:
    path = write(name, content)
    with pytest.raises(DataError, match=what) as error:
        read_file(path)
    assert str(error.value).startswith(path)
    assert "\n" not in str(error.value)


def test_a_missing_column_and_a_folder_as_file(write: Write, tmp_path: Path) -> None:
    for columns in (Columns(series="x"), Columns(ts="x"), Columns(value="x"), Columns(features=("value", "x"))):
        with pytest.raises(DataError, match="no column 'x' among 'series', 'ts', 'value'"):
            read_file(write("t.csv", LONG), columns)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: Is a directory")):
        read_file(str(tmp_path))


@pytest.mark.parametrize("content", [LONG.encode(), b'\n{"series":"a","ts":1577836800000,"value":1}\n'])
def test_the_format_of_standard_input_is_detected(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read_file("-").frame.row(0) == ROWS[0]


measurements = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", 'with "quotes", commas']),
        st.integers(ms(1950, 1, 1), ms(2100, 1, 1)),
        st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    min_size=1,
)


@settings(max_examples=examples(50))
@given(rows=measurements)
def test_a_frame_written_and_read_back_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, float]]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    frame = pl.DataFrame(rows, {"series": pl.String, "ts": pl.Int64, "value": pl.Float64}, orient="row")
    dated = frame.with_columns(pl.from_epoch("ts", time_unit="ms"))
    dated.write_csv(folder / "t.csv")
    dated.write_parquet(folder / "t.parquet")
    dated.with_columns(pl.col("ts").dt.to_string("iso")).write_ndjson(folder / "t.jsonl")
    for name in ("t.csv", "t.parquet", "t.jsonl"):
        assert read_file(str(folder / name), Columns(series="series")).frame.rows() == rows


@pytest.mark.parametrize(
    ("name", "columns", "freq", "rows", "series", "first"),
    [
        ("nab/nyc_taxi.csv", Columns(), None, 10_320, 1, ("nyc_taxi", ms(2014, 7, 1), 10_844.0)),
        ("nab/machine_temperature_system_failure.csv", Columns(), None, 22_695, 1, None),
        ("nab/ec2_request_latency_system_failure.csv", Columns(), None, 4_032, 1, None),
        ("nab/realTraffic_TravelTime_387.csv", Columns(), None, 2_500, 1, None),
        ("ett/ETTh1.csv", Columns(), None, 7 * 17_420, 7, ("HUFL", ms(2016, 7, 1), 5.827000141143799)),
        ("taylor.csv", Columns(), "30m", 4_032, 1, ("taylor", ms(2000, 1, 1), 22_262.0)),
        ("pedestrian.csv", Columns(value="Count"), None, 66_037, 4, None),
        ("flights.csv", Columns(), None, 144, 1, ("flights", ms(1949, 1, 1), 112.0)),
        ("dowjones.csv", Columns(), None, 649, 1, ("dowjones", ms(1914, 12, 1), 55.0)),
    ],
)
def test_real_files(
    name: str, columns: Columns, freq: str | None, rows: int, series: int, first: tuple[str, int, float] | None
) -> None:
    if not DATA.exists():
        pytest.skip(f"the real series are not at {DATA}")
    frame = read_file(str(DATA / name), columns, freq=freq).frame
    assert (len(frame), frame["series"].n_unique()) == (rows, series)
    assert first in (None, frame.row(0))


def test_ambiguous_real_files_are_refused() -> None:
    if not DATA.exists():
        pytest.skip(f"the real series are not at {DATA}")
    with pytest.raises(DataError, match="which column is the value among 'Date', 'Time', 'Count'"):
        read_file(str(DATA / "pedestrian.csv"))
    with pytest.raises(DataError, match="give their spacing with --freq"):
        read_file(str(DATA / "taylor.csv"))


@given(rows=measurements)
def test_events_are_sorted_by_time_and_else_in_file_order(rows: list[tuple[str, int, float]]) -> None:
    frame = pl.DataFrame(rows, {"series": pl.String, "ts": pl.Int64, "value": pl.Float64}, orient="row")
    expected = sorted(rows, key=lambda row: row[1])
    assert list(events(frame)) == [Event(series, ts, (value,)) for series, ts, value in expected]


@pytest.mark.parametrize(("ts", "what"), [(ms(1949, 1, 1), "before 2000-01-01"), (ms(2199, 1, 1), "in the future")])
def test_times_that_readers_of_a_topic_refuse_are_not_publishable(ts: int, what: str) -> None:
    frame = pl.DataFrame({"series": ["a", "a"], "ts": [ms(2020, 1, 1), ts], "value": [1.0, 2.0]})
    with pytest.raises(DataError, match=f"1 of 2 measurements lie {what}"):
        publishable(frame)


def test_publishable_events_have_every_feature() -> None:
    frame = pl.DataFrame(
        {"series": ["a", "b"], "ts": [ms(2020, 1, 2), ms(2020, 1, 1)], "flow": [1.0, 2.0], "heat": 0.5}
    )
    assert list(publishable(frame)) == [Event("b", ms(2020, 1, 1), (2.0, 0.5)), Event("a", ms(2020, 1, 2), (1.0, 0.5))]


def test_a_spreadsheets_files_are_read(write: Write) -> None:
    text = "Zeit;W\u00e4rme\n13.01.2024;1,5\n14.01.2024;2,5\n"
    for content in (text.encode("utf-16"), text.encode("utf-8-sig"), ("sep=;\r\n" + text).encode()):
        assert read_file(write("t.csv", content)).frame["value"].to_list() == [1.5, 2.5]
    with pytest.raises(DataError, match=r"row 1: not UTF-8 text .*save it as UTF-8"):
        read_file(write("t.csv", text.encode("cp1252")))


def test_a_first_line_of_data_is_not_taken_for_names(write: Write) -> None:
    with pytest.raises(DataError, match="the first line is data: put a line of names above it"):
        read_file(write("t.csv", "2024-01-01 00:00,1.5\n2024-01-01 01:00,2.5\n"))


DAYS = [f"2024-01-{day:02}T00:00:00Z,{day}.5,{day * day}" for day in range(1, 13)]
NAMES = "time,temp,flow"
INFLUX = [
    "#group,false,false,true,true,false,false,true",
    "#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string",
    "#default,_result,,,,,,",
    ",result,table,_start,_stop,_time,_value,_field",
    *(f",,0,2024-01-01T00:00:00Z,2024-02-01T00:00:00Z,{row.rpartition(',')[0]},temp" for row in DAYS),
]


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (["Report of plant A", "", "Made on 2024-02-01, by us", NAMES], "2 lines left out: above the names, .* row 4"),
        (["Report,,", ",,", "Made on,2024-02-01,", NAMES], "3 lines .* row 4"),
        (["latitude,longitude,height,zone", "52.5,13.4,38,0", "", NAMES], "2 lines .* row 4"),
        (["Station,Berlin,", "Owner,we,you", NAMES], "2 lines .* row 3"),
        (["# station A", "#", NAMES], "2 lines left out: comments"),
        (["# station A", "# time,temp,flow"], "1 line left out: comments"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_lines_above_the_names_are_left_out_and_counted(
    write: Write, lines: list[str], note: str, delimiter: str
) -> None:
    text = "\n".join([*lines, *DAYS, ""]).replace(",", delimiter)
    source = read_file(write("t.csv", text), Columns(features=("temp", "flow")))
    assert source.frame.select("temp", "flow").rows() == [(day + 0.5, day * day) for day in range(1, 13)]
    assert source.frame["ts"][0] == ms(2024, 1, 1)
    assert any(re.match(note, each) for each in source.notes), source.notes


def test_two_lines_that_may_be_the_names_are_asked_about(write: Write) -> None:
    with pytest.raises(DataError, match="are the columns' names in row 2 or 3\\? Remove the lines above it"):
        read_file(write("t.csv", "\n".join(["Title", "a,b,c", "x,y,z", *DAYS])))


def test_annotated_csv_of_influxdb(write: Write) -> None:
    source = read_file(write("t.csv", "\r\n".join(INFLUX)))
    assert source.frame["value"].to_list() == [day + 0.5 for day in range(1, 13)]
    assert "times from `_time`" in source.notes[0]
    assert source.notes[1:] == ("3 lines left out: comments", "1 column left out: without a name, and empty")
    tables = [*INFLUX, "", *(line.replace("temp", "flow").replace(",,0", ",,1") for line in INFLUX)]
    source = read_file(write("t.csv", "\n".join(tables)), Columns(series="_field"))
    assert source.frame["series"].value_counts(sort=True)["count"].to_list() == [12, 12]
    assert source.notes[1:3] == ("6 lines left out: comments", "1 line left out: the names once more")


def test_empty_rows_at_the_end_and_columns_without_a_name_are_left_out_and_counted(write: Write) -> None:
    rows = [f"{NAMES},,", *(f"{row},," for row in DAYS), ",,,,", ",,,,"]
    source = read_file(write("t.csv", "\n".join(rows)), Columns(value="temp"))
    assert len(source.frame) == 12
    assert "2 lines left out: empty, at the end" in source.notes
    assert "2 columns left out: without a name, and empty" in source.notes
    assert not any("numbers the rows" in note for note in source.notes)
    ends = read_file(write("t.csv", "\n".join([NAMES, *(f"{row}," for row in DAYS)])), Columns(value="temp"))
    assert ends.frame.equals(source.frame), "a separator at the end of each line"


@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t"])
def test_a_list_of_json_objects_is_read_as_json_lines_are(write: Write, name: str) -> None:
    content = '[\n{"series":"a","ts":1577836800000,"value":1},{"series":"b","ts":1577836800000,"value":10},'
    content += '\n{"series":"a","ts":1577838600000,"values":{"value":2}}]'
    assert read_file(write(name, content)).frame.rows() == ROWS
    for wrong, what in ((content[:-1], "not a list of JSON objects"), ('{\n"ts":1}', "or as one list of objects")):
        with pytest.raises(DataError, match=what):
            read_file(write("t.json", wrong))


@pytest.mark.parametrize(
    ("above", "below", "note"),
    [
        (["-,C,m3/h"], [], "row 2 left out: no measurements but units, 'C', 'm3/h'"),
        ([",[\u00b0C],[l/s]"], [], "row 2 left out: no measurements but units, '[\u00b0C]', '[l/s]'"),
        ([], ["Total,78,650"], "1 row left out: totals, at the end"),
        ([], ["", "Summe:,78,650", ",,", "Mittelwert,,54", ",,"], "2 rows left out: totals, at the end"),
        ([], [",Total,650"], "1 row left out: totals, at the end"),
        ([",,"], [], "1 row left out: empty"),
    ],
)
def test_units_and_totals_are_left_out_and_counted(write: Write, above: list[str], below: list[str], note: str) -> None:
    source = read_file(write("t.csv", "\n".join([NAMES, *above, *DAYS, *below])), Columns(features=("temp", "flow")))
    assert source.frame["flow"].to_list() == [day * day for day in range(1, 13)]
    assert note in source.notes


def test_what_is_no_unit_and_no_total_stays(write: Write) -> None:
    rows = [f"Total,2024-01-{day:02},{day}" for day in range(1, 9)]
    assert len(read_file(write("t.csv", "\n".join(["series,ts,value", *rows]))).frame) == 8, "a series of that name"
    gap = read_file(write("t.csv", "\n".join(["series,ts,value", *rows, "Total,2024-01-09,"])))
    assert gap.skipped == 1, "a value that is missing"
    steps = read_file(write("t.csv", "value\nNA\n1\n2\n3\n"), freq="1h")
    assert steps.frame["ts"][0] == ms(2000, 1, 1, 1), "the first step's value is missing"
    with pytest.raises(DataError, match="row 6, column 'ts': 'oops' is not a time"):
        read_file(write("t.csv", "\n".join(["series,ts,value", *rows[:4], "a,oops,1"])))
