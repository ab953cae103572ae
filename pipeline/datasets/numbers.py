"""Cells as numbers: which separators a file's people use, found from its cells or asked, and which cells are none."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.datasets.tables import Table, first_of, shortened
from pipeline.formats.events import MAX_FLOAT32

EMPTY = frozenset(("", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "<na>", "nat"))
"""What programs write where there is no value, in lower case."""
WORDS = frozenset(
    (
        *("unavailable", "unknown", "missing", "not available", "no data", "nodata", "undefined", "nil", "offline"),
        *("n.a.", "n.a", "n.d.", "nd", "n/d", "n/e", "k.a.", "(null)", "\\n", "-", "--", "---", "?", ".", "*"),
        *("\u2013", "\u2014"),
    )
)
"""What is taken to mean so as well, and is counted."""
POINT, COMMA = ".", ","
OTHER = {POINT: COMMA, COMMA: POINT}
NOTES = {POINT: "", COMMA: "decimal comma"}
SIGN, EXPONENT = r"^[+-]?", r"(?:[eE][+-]?\d+)?$"


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column's Float64 values, null where there is none, and how many cells each word without a value took."""

    values: pl.Series
    words: Mapping[str, int]


def _number(decimal: str) -> str:
    """What a number looks like with this decimal separator; the other one may stand between thousands."""
    fraction, group = re.escape(decimal), re.escape(OTHER[decimal])
    return rf"{SIGN}(?:(?:\d+|[1-9]\d{{0,2}}(?:{group}\d{{3}})+)(?:{fraction}\d*)?|{fraction}\d+){EXPONENT}"


def _proof(decimal: str) -> str:
    """What can only be read with this decimal separator."""
    mark, group = re.escape(decimal), re.escape(OTHER[decimal])
    fraction = rf"(?:0\d*|\d{{4,}})?{mark}\d+{EXPONENT}"
    not_three = rf"\d+{mark}(?:\d{{1,2}}|\d{{4,}}){EXPONENT}"
    exponent = rf"\d+{mark}\d{{3}}[eE][+-]?\d+$"
    both = rf"[1-9]\d{{0,2}}(?:{group}\d{{3}})+{mark}\d*$"
    thousands = rf"[1-9]\d{{0,2}}(?:{group}\d{{3}}){{2,}}$"
    return "|".join(f"{SIGN}{form}" for form in (fraction, not_three, exponent, both, thousands))


def _either(mark: str) -> str:
    """What may be a number with three decimals, or thousands."""
    return rf"{SIGN}[1-9]\d{{0,2}}{re.escape(mark)}\d{{3}}$"


NUMBER = {decimal: _number(decimal) for decimal in OTHER}
PROOF = {decimal: _proof(decimal) for decimal in OTHER}
EITHER = {decimal: _either(decimal) for decimal in OTHER}
WHOLE = rf"{SIGN}\d+$"
MARKS = "['\u2019\u00a0\u2009\u202f ]"
GROUPED = rf"{SIGN}\d{{1,3}}(?:{MARKS}\d{{3}})+(?:[.,]\d*)?$"
"""Thousands apart by an apostrophe or a space, which are no decimal separators anywhere."""


def find_decimal(table: Table, columns: Sequence[str], asked: str | None) -> tuple[str, str]:
    """The decimal separator of these columns, as asked, or as some cell proves, and what to say of it.

    Raises DataError where it is open.
    """
    texts = {name: _text(table, name) for name in columns if not table.columns[name].dtype.is_numeric()}
    if asked or not texts:
        return asked or POINT, NOTES.get(asked or "", "")
    proofs = {mark: proof for mark in OTHER if (proof := _find(texts, PROOF[mark]))}
    if len(proofs) == 2:
        (_, _, one), (at, column, other) = proofs[POINT], proofs[COMMA]
        raise table.fault(at, column, f"{other!r} has another decimal separator than {one!r}")
    if proofs:
        return (mark := next(iter(proofs))), NOTES[mark]
    for mark in (COMMA, POINT):
        if found := _find(texts, EITHER[mark]):
            if mark == POINT and _plainly_decimal(table, texts):
                return POINT, "decimal point"
            at, column, cell = found
            fraction, thousands = cell.replace(mark, POINT), cell.replace(mark, "")
            raise table.fault(
                at, column, f"{cell!r} may be {fraction} or {thousands}: --decimal {OTHER[mark]} or --decimal {mark}"
            )
    return POINT, ""


def _plainly_decimal(table: Table, texts: Mapping[str, pl.Series]) -> bool:
    """Whether points before three digits are decimal ones: all numbers have them, where commas separate columns."""
    either = (column for column, text in texts.items() if text.str.contains(EITHER[POINT]).any())
    return table.delimiter in ("", ",") and not any(texts[column].str.contains(WHOLE).any() for column in either)


def _find(texts: Mapping[str, pl.Series], pattern: str) -> tuple[int, str, str] | None:
    """The row, column and text of the first cell like the pattern."""
    for column, text in texts.items():
        if (like := text.str.contains(pattern)).any():
            at = first_of(like)
            return at, column, text[at]
    return None


def is_numeric(table: Table, column: str, na: Sequence[str] = ()) -> bool:
    """Whether at least half of the column's cells are numbers, so that others are faults."""
    given = table.columns[column]
    if given.dtype != pl.String:
        return given.dtype.is_numeric()
    text = _text(table, column)
    cells = text.filter(~is_missing(text, na))
    return len(cells) > 0 and 2 * cells.str.contains(f"{NUMBER[POINT]}|{NUMBER[COMMA]}").sum() >= len(cells)


def is_missing(text: pl.Series, na: Sequence[str] = ()) -> pl.Series:
    """Which of these stripped texts stand for no value."""
    words = [*EMPTY, *WORDS, *(word.strip().lower() for word in na)]
    return text.str.to_lowercase().is_in(words)


def read_numbers(table: Table, column: str, decimal: str = POINT, na: Sequence[str] = ()) -> Numbers:
    """The column as Float64, null where a value is missing. Raises DataError for a cell that is not a float32."""
    given = table.columns[column]
    typed = given.dtype.is_numeric()
    values, words = (given.cast(pl.Float64), dict[str, int]()) if typed else _parsed(table, column, decimal, na)
    values = _without(values.fill_nan(None), na)
    table.refuse(values.abs() > MAX_FLOAT32, column, "{} does not fit in a float32")
    return Numbers(values, words)


def _without(values: pl.Series, na: Sequence[str]) -> pl.Series:
    """The numbers without those that stand for no value."""
    none = pl.Series(na, dtype=pl.String).cast(pl.Float64, strict=False).drop_nulls()
    return values if none.is_empty() else values.set(values.is_in(none.to_list()), None)


def _parsed(table: Table, column: str, decimal: str, na: Sequence[str]) -> tuple[pl.Series, dict[str, int]]:
    text = _text(table, column)
    missing = is_missing(text, na)
    plain = text.str.replace_all(OTHER[decimal], "", literal=True).str.replace(decimal, POINT, literal=True)
    values = plain.cast(pl.Float64, strict=False)
    wrong = ~missing & (values.is_null() | ~(text.str.contains(NUMBER[decimal]) | values.is_infinite()))
    if wrong.any():
        at = first_of(wrong)
        raise table.fault(at, column, f"{shortened(table.columns[column][at])!r} is not a number{_hint(text[at])}")
    words = text.filter(missing & ~text.str.to_lowercase().is_in(EMPTY)).alias("word").value_counts(sort=True)
    return values.set(missing, None), dict(words.iter_rows())


def _hint(cell: str) -> str:
    """What to do about a cell that has a number in it."""
    if re.fullmatch(r"[+-]?[\d.,]+", cell):
        return ": --decimal says which separator is the decimal one"
    if re.search(r"\d", cell):
        return ": only digits, and separators of decimals and thousands, are read"
    return f": --na {cell} if it means that there is no value" if len(cell) < 20 and "," not in cell else ""


def _text(table: Table, column: str) -> pl.Series:
    text = table.columns[column].cast(pl.String).fill_null("").str.strip_chars()
    plain = text.str.replace_all(MARKS, "")
    return plain.zip_with(text.str.contains(GROUPED), text)
