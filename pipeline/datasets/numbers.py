"""Cells as numbers: which separators a file's people use, found from its cells or asked, and which cells are none."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.datasets.tables import Table, first_of, said, shortened
from pipeline.formats.events import MAX_FLOAT32

EMPTY = frozenset(("", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "<na>", "nat", "#nv"))
"""What programs write where there is no value, in lower case."""
WORDS = frozenset(
    (
        *("unavailable", "unknown", "missing", "not available", "no data", "nodata", "undefined", "nil", "offline"),
        *("n.a.", "n.a", "n.d.", "nd", "n/d", "n/e", "k.a.", "(null)", "\\n", "-", "--", "---", "?", ".", "*"),
        *("\u2013", "\u2014"),
        *("#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!", "#wert!", "#bezug!", "#zahl!", "#valeur!"),
    )
)
"""What is taken to mean so as well, and is counted."""
POINT, COMMA = ".", ","
OTHER = {POINT: COMMA, COMMA: POINT}
NOTES = {POINT: "", COMMA: "decimal comma"}
SWITCHES = (("off", "on"), ("false", "true"), ("no", "yes"))
"""What states are written as, in lower case: 0 and 1."""
NINES = re.compile(r"-?9{2,}(\.9+|\.0)?")
"""What instruments write where there is no value."""
WHOLE_FLOAT64 = 2**53
"""From here on float64 holds not every whole number."""
SIGN, EXPONENT = r"^[+-]?", r"(?:[eE][+-]?\d+)?$"


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column's Float64 values, null where there is none, and how many cells each word without a value took."""

    values: pl.Series
    words: Mapping[str, int]
    notes: tuple[str, ...] = ()
    """What was read as something else, or seems to be."""


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
SHORT = 20
"""Characters of a cell that a hint repeats."""
WHOLE = rf"{SIGN}\d+$"
SPACES = r"'\u2019\u00a0\u2009\u202f "
MARKS = f"[{SPACES}]"
GROUPED = rf"{SIGN}\d{{1,3}}(?:{MARKS}\d{{3}})+(?:[.,]\d*)?$"
"""Thousands apart by an apostrophe or a space, which are no decimal separators anywhere."""
MINUS = "\u2212"
CURRENCY = r"$\u20ac\u00a3\u00a5"
UNIT = re.compile(
    rf"(?P<before>[{CURRENCY}]|[A-Z]{{3}})?\s*[+-]?[\d.,][\d.,{SPACES}]*(?:[eE][+-]?\d+)?"
    rf"(?P<after>\s*(?:[^\W\d_]|[%\u2030\u00b0{CURRENCY}])(?:[^\W\d_]|[/%\u00b0\u00b7])*[23\u00b2\u00b3]?)?"
)
"""A number with a unit before or behind it."""


def find_decimal(table: Table, columns: Sequence[str], asked: str | None) -> tuple[str, str]:
    """The decimal separator of these columns, as asked, or as some cell proves, and what to say of it.

    Raises DataError where it is open.
    """
    texts = {name: _bare(table, name)[0] for name in columns if not table.columns[name].dtype.is_numeric()}
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
    read = Numbers(given.cast(pl.Float64), {}) if given.dtype.is_numeric() else _parsed(table, column, decimal, na)
    values = _without(read.values.fill_nan(None), na)
    too_large = "{0} does not fit in a float32; --na {0} if it means that there is no value"
    table.refuse(values.abs() > MAX_FLOAT32, column, too_large)
    return Numbers(values, read.words, (*read.notes, *_doubts(column, values)))


def _doubts(column: str, values: pl.Series) -> Iterator[str]:
    """What is odd about numbers: some that seem to mean that there is no value, and more digits than are kept."""
    known = values.drop_nulls().to_numpy()
    ends = sorted({float(known.min()), float(known.max())}) if len(known) else []
    for end in ends:
        others, count = known[known != end], int((known == end).sum())
        if count < 2 or not len(others) or not NINES.fullmatch(f"{end:.12g}"):
            continue
        low, high = float(others.min()), float(others.max())
        if end < 0 <= low or not 2 * low - high <= end <= 2 * high - low:
            what = f"--na {end:.12g} if it means that there is no value"
            yield f"{said(column)} has {end:.12g} {count:,} times, far from all else: {what}"
    if max(map(abs, ends), default=0) >= WHOLE_FLOAT64:
        yield f"{said(column)} has numbers of more than 15 digits: they are rounded to these"


def _without(values: pl.Series, na: Sequence[str]) -> pl.Series:
    """The numbers without those that stand for no value."""
    none = pl.Series(na, dtype=pl.String).cast(pl.Float64, strict=False).drop_nulls()
    return values if none.is_empty() else values.set(values.is_in(none.to_list()), None)


def _parsed(table: Table, column: str, decimal: str, na: Sequence[str]) -> Numbers:
    text, unit = _bare(table, column)
    missing = is_missing(text, na)
    words = text.filter(missing & ~text.str.to_lowercase().is_in(EMPTY)).alias("word").value_counts(sort=True)
    if switch := _switch(text.filter(~missing)):
        values = (text.str.to_lowercase() == switch[1]).cast(pl.Float64).set(missing, None)
        return Numbers(values, dict(words.iter_rows()), (f"{said(column)}: {switch[1]} is 1, {switch[0]} is 0",))
    plain = text.str.replace_all(OTHER[decimal], "", literal=True).str.replace(decimal, POINT, literal=True)
    values = plain.cast(pl.Float64, strict=False)
    wrong = ~missing & (values.is_null() | ~(text.str.contains(NUMBER[decimal]) | values.is_infinite()))
    if wrong.any():
        at = first_of(wrong)
        raise table.fault(at, column, f"{shortened(table.columns[column][at])!r} is not a number{_hint(text[at])}")
    notes = (f"{said(column)} is in {unit}",) if unit else ()
    return Numbers(values.set(missing, None), dict(words.iter_rows()), notes)


def _switch(cells: pl.Series) -> tuple[str, str] | None:
    """What is 0 and what is 1 of states that are written as words; None of others."""
    if cells.is_empty() or not any(cells[0].lower() in pair for pair in SWITCHES):
        return None
    found = set(cells.str.to_lowercase().unique())
    return next((pair for pair in SWITCHES if found <= set(pair)), None)


def _hint(cell: str) -> str:
    """What to do about a cell that is no number."""
    none = f"--na {shlex.quote(cell)} if it means that there is no value"
    if re.fullmatch(r"[+-]?[\d.,]+", cell):
        return ": --decimal says which separator is the decimal one"
    if re.search(r"\d", cell):
        what = ": only digits, separators of decimals and thousands, and one unit of all cells are read"
        return f"{what}; {none}" if len(cell) < SHORT and "," not in cell else what
    return f": {none}" if len(cell) < SHORT and "," not in cell else ""


def _text(table: Table, column: str) -> pl.Series:
    text = table.columns[column].cast(pl.String).fill_null("").str.strip_chars().str.replace(MINUS, "-", literal=True)
    plain = text.str.replace_all(MARKS, "")
    return plain.zip_with(text.str.contains(GROUPED), text)


def _bare(table: Table, column: str) -> tuple[pl.Series, str]:
    """A column's texts without the unit that all its numbers have, and that unit."""
    text = _text(table, column)
    cells = text.filter(~is_missing(text) & text.str.contains(r"\d"))
    match = UNIT.fullmatch(cells[0]) if len(cells) else None
    if match is None or bool(match["before"]) == bool(match["after"]):
        return text, ""
    before, after = match["before"] or "", match["after"] or ""
    alike = text.str.starts_with(before) & text.str.ends_with(after)
    if not (cells.str.starts_with(before) & cells.str.ends_with(after)).all():
        return text, ""
    bare = text.str.strip_prefix(before).str.strip_suffix(after).str.strip_chars()
    bare = bare.str.replace_all(MARKS, "").zip_with(bare.str.contains(GROUPED), bare)
    return bare.zip_with(alike & text.str.contains(r"\d"), text), (before or after).strip()
