"""Numbers as people write them: what is read is what was written, and what may be another number is asked."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.columns import Columns
from pipeline.datasets.measurements import Measurements, measurements
from pipeline.datasets.tables import Table, parse_csv
from tidecast.errors import DataError


def table(cells: Sequence[str], delimiter: str = ";") -> Table:
    """A day a row, in columns t and v."""
    rows = (
        f"{2000 + at}-01-01{delimiter}" + (f'"{cell}"' if delimiter in cell else cell) for at, cell in enumerate(cells)
    )
    return parse_csv("t.csv", "\n".join([f"t{delimiter}v", *rows]))


def read(cells: Sequence[str], columns: Columns | None = None, delimiter: str = ";") -> Measurements:
    return measurements(table(cells, delimiter), columns)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1.189,47", "987,5"], [1189.47, 987.5]),
        (["1,189.47", "2,000"], [1189.47, 2000]),
        (["1.234.567", "1.234"], [1_234_567, 1234]),
        (["0,123", "1,234"], [0.123, 1.234]),
        (["-1.234,5", "+2.345"], [-1234.5, 2345]),
        (["1,5e3", "2"], [1500, 2]),
        (["1e3", ".5"], [1000, 0.5]),
        (["1234", "5"], [1234, 5]),
        (["12,5", "3,125"], [12.5, 3.125]),
        (["1 234,5", "12 345 678", "987"], [1234.5, 12_345_678, 987]),
        (["1'234.5", "1\u2019234"], [1234.5, 1234]),
        (["1\u00a0234", "-5\u202f678"], [1234, -5678]),
    ],
)
def test_a_cell_proves_the_separators_of_all(cells: list[str], values: list[float]) -> None:
    assert read(cells).frame["value"].to_list() == values
    assert read(cells, delimiter=",").frame["value"].to_list() == values


@pytest.mark.parametrize("cells", [["1.189", "987"], ["1,234", "2,345"], ["1,234", "12345"], ["1.207", "1.339"]])
def test_what_may_be_another_number_is_asked(cells: list[str]) -> None:
    mark = "." if "." in cells[0] else ","
    with pytest.raises(DataError, match=r"t.csv: row 2, column 'v': .* may be .*--decimal \S or --decimal \S$"):
        read(cells)
    other = {".": ",", ",": "."}[mark]
    decimal, thousands = (float(cells[0].replace(mark, "." if kept else "")) for kept in (True, False))
    assert read(cells, Columns(decimal=mark)).frame["value"][0] == decimal
    assert read(cells, Columns(decimal=other)).frame["value"][0] == thousands


def test_three_decimals_are_decimals_where_commas_separate_columns_and_this_is_said() -> None:
    source = read(["20.998", "21.442"], delimiter=",")
    assert source.frame["value"].to_list() == [20.998, 21.442]
    assert source.notes[0].endswith("value `v`; decimal point")


@pytest.mark.parametrize(
    "cell",
    [
        "12 34",
        "1 2345",
        "12 %",
        "12%",
        "\u20ac12",
        "12 EUR",
        "1,23,456",
        "1.5.2",
        "(5)",
        "0x10",
        "1_000",
    ],
)
def test_other_ways_to_write_numbers_are_refused_with_their_row(cell: str) -> None:
    with pytest.raises(DataError, match=r"row 3, column 'v': .* is not a number"):
        read(["1.5", cell, "2.5"])


def test_two_decimal_separators_in_a_file_are_refused() -> None:
    with pytest.raises(DataError, match=r"row 3, column 'v': '1,5' has another decimal separator than '2\.5'"):
        read(["2.5", "1,5"])


@pytest.mark.parametrize("word", ["unavailable", "Unknown", "-", "--", "?", "n.a.", "missing", "n/e", " offline "])
def test_words_without_a_value_are_counted_and_said(word: str) -> None:
    source = read(["1", "2", word, "4"])
    assert source.frame["value"].to_list() == [1, 2, 4]
    assert source.notes[1] == f"1 of 4 measurements have no value: skipped (1 {word.strip()!r})"
    with pytest.raises(DataError, match=r"1 of 4 measurements, 25.0%, are left out: .*--max-skipped 0.2[56]"):
        source.checked(0.05)
    assert source.checked(0.25) is source


@pytest.mark.parametrize("empty", ["", "NA", "NaN", "null"])
def test_an_empty_cell_is_only_a_missing_step(empty: str) -> None:
    assert len(read(["1", empty, "3"]).checked(0.0).frame) == 2


def test_na_adds_words_and_numbers_that_stand_for_no_value() -> None:
    with pytest.raises(DataError, match="'defekt' is not a number: --na defekt if"):
        read(["1", "defekt"])
    columns = Columns(na=("defekt", "-999"))
    source = read(["1", "Defekt", "-999", "-999.0", "4"], columns)
    assert source.checked(0.0).frame["value"].to_list() == [1, 4]
    typed = table(["1", "-999"])
    numbers = typed.columns.with_columns(typed.columns["v"].cast(float))
    assert measurements(Table("t", numbers, typed.rows), columns).frame["value"].to_list() == [1]


def test_the_only_column_that_is_left_is_the_value_and_its_first_bad_cell_is_said() -> None:
    with pytest.raises(DataError, match="row 2, column 'v': 'a lot' is not a number"):
        read(["a lot", "more", "5"])


def written(value: float, decimals: int, decimal: str, grouped: bool) -> str:
    text = f"{value:{',' if grouped else ''}.{decimals}f}"
    return text.translate(str.maketrans(",.", ".,")) if decimal == "," else text


@given(
    values=st.lists(st.floats(-2e6, 2e6), min_size=1, max_size=20),
    decimals=st.integers(0, 4),
    decimal=st.sampled_from([".", ","]),
    grouped=st.booleans(),
    told=st.booleans(),
)
def test_numbers_are_read_as_they_were_written_or_refused(
    values: list[float], decimals: int, decimal: str, grouped: bool, told: bool
) -> None:
    cells = [written(value, decimals, decimal, grouped) for value in values]
    expected = [float(f"{value:.{decimals}f}") for value in values]
    try:
        source = read(cells, Columns(decimal=decimal if told else None))
    except DataError as error:
        if told or "--decimal" not in str(error):
            raise
        return
    assert source.frame["value"].to_list() == expected


@pytest.mark.parametrize(
    ("cells", "values", "unit"),
    [
        (["21.5 kWh", "-3 kWh"], [21.5, -3], "kWh"),
        (["12,5 %", "7 %"], [12.5, 7], "%"),
        (["1.234,50 \u20ac", "n/a", "987,00 \u20ac"], [1234.5, 987], "\u20ac"),
        (["$1,234.50", "$9.00"], [1234.5, 9], "$"),
        (["21.5\u00b0C", "22\u00b0C"], [21.5, 22], "\u00b0C"),
        (["3.2 m\u00b3/h", "4 m\u00b3/h"], [3.2, 4], "m\u00b3/h"),
        (["CHF 1'200.50", "CHF 3"], [1200.5, 3], "CHF"),
    ],
)
def test_a_unit_that_all_numbers_have_is_left_off_and_said(cells: list[str], values: list[float], unit: str) -> None:
    for delimiter in (";", "\t"):
        source = read(cells, delimiter=delimiter)
        assert source.frame["value"].to_list() == values
        assert f"`v` is in {unit}" in source.notes


@pytest.mark.parametrize("cells", [["5 kWh", "6 MWh"], ["5 kW", "6"], ["1.2k", "900"], ["$5", "\u20ac6"], ["5s", "5m"]])
def test_units_that_differ_are_refused(cells: list[str]) -> None:
    with pytest.raises(DataError, match="is not a number"):
        read(cells)


@pytest.mark.parametrize(("off", "on"), [("off", "on"), ("False", "True"), ("no", "Yes")])
def test_states_are_0_and_1_and_this_is_said(off: str, on: str) -> None:
    source = read([on, off, "unavailable", on])
    assert source.frame["value"].to_list() == [1, 0, 1]
    assert f"`v`: {on.lower()} is 1, {off.lower()} is 0" in source.notes
    with pytest.raises(DataError, match="is not a number"):
        read([on, off, "5"])


def test_typed_booleans_are_0_and_1() -> None:
    typed = table(["1", "0"])
    booleans = typed.columns.with_columns(typed.columns["v"].cast(int).cast(bool))
    assert measurements(Table("t", booleans, typed.rows)).frame["value"].to_list() == [1, 0]


def test_a_typographic_minus_is_a_minus() -> None:
    assert read(["\u22125", "\u22121.5", "2"]).frame["value"].to_list() == [-5, -1.5, 2]


@pytest.mark.parametrize("cell", ["#DIV/0!", "#WERT!", "#REF!"])
def test_a_spreadsheets_errors_are_no_values_and_counted(cell: str) -> None:
    source = read(["1", cell, "3"])
    assert source.frame["value"].to_list() == [1, 3]
    assert source.left_out[repr(cell)] == 1


@pytest.mark.parametrize("nine", ["-999", "-9999.0", "99999", "-99.9"])
def test_nines_far_from_all_else_are_asked_about(nine: str) -> None:
    cells = ["12", nine, "14.5", "13", nine, "11"]
    (note,) = (each for each in read(cells).notes if "--na" in each)
    assert f"{float(nine):.12g} 2 times, far from all else" in note
    source = read(cells, Columns(na=(nine,)))
    assert source.frame["value"].to_list() == [12, 14.5, 13, 11]
    assert not any("far from" in each for each in source.notes)


@pytest.mark.parametrize("cells", [["-999", "-998", "-1001", "-999"], ["999", "998.5", "999", "5"], ["12", "-999"]])
def test_nines_among_the_others_are_numbers(cells: list[str]) -> None:
    assert not any("--na" in each for each in read(cells).notes)


def test_digits_that_a_float64_does_not_keep_are_said() -> None:
    assert any("more than 15 digits" in each for each in read(["12345678901234567890", "5"]).notes)
    assert not any("digits" in each for each in read(["3000000000", "5"]).notes)


@pytest.mark.parametrize("cell", ["kaputt heute", "<0.5", "5*"])
def test_a_hint_can_be_pasted(cell: str) -> None:
    with pytest.raises(DataError, match=f"--na '{re.escape(cell)}' if it means"):
        read(["1", cell, "3"])
