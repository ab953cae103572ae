"""Text whose cells a character separates, as CSV has it: that character, the line of names, and the rows below it."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import Literal, NamedTuple

import polars as pl

from pipeline.formats.names import plain
from pipeline.formats.times import NAMES
from tidecast.errors import DataError

CHUNK = 65_536
DELIMITERS = (";", "\t", "|", ",")
SEPARATOR = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
"""The first line by which a spreadsheet is told the delimiter."""
COMMENT = re.compile(r"^#.*$", re.MULTILINE)
SAMPLED = 20
"""Lines by which the delimiter is found."""
SEARCHED = 60
"""Lines among which the names are found."""
DATA = re.compile(
    r"[+-]?[.,]?\d[\d\s.,:/TZ+-]*([eE][+-]?\d+)?"
    r"|\d{1,4}[-/. ]\w{1,9}[-/., ].*|[A-Za-z]{3,9}\.?,? \d{1,2},? \d{4}.*"
)
"""A number or a time."""
TIMES = {*NAMES, "datum", "zeit", "zeitstempel"}
UNNAMED = re.compile(r"(?:unnamed: ?\d+.*|__index_level_\d+__|)", re.IGNORECASE)
"""What a frame's index, or a column without a name, is called in a file."""


class Line(NamedTuple):
    """A line's number in the file, from 1, and its cells."""

    number: int
    cells: list[str]


class Separated(NamedTuple):
    """The cells as text, the line number of each row, the delimiter, and what was left out, for people."""

    columns: pl.DataFrame
    rows: pl.Series
    delimiter: str
    notes: tuple[str, ...]


def read_separated(name: str, text: str, header: bool = True) -> Separated:
    """A CSV's text; its delimiter is found, or told by a first line such as ``sep=;``.

    With a `header`, lines above the names are left out, and comments (`#`) if the file begins with one. Raises
    DataError, also where two lines may be the one of names.
    """
    told = SEPARATOR.match(text)
    text = "\n" * bool(told) + text[told.end() if told else 0 :]
    left: Counter[str] = Counter()
    commented = ""
    if header and text.lstrip().startswith("#"):
        commented = re.split(r"^(?!#|\s*$)", text, maxsplit=1, flags=re.MULTILINE)[0].rstrip().rpartition("\n")[2]
        text, left["comments"] = COMMENT.subn("", text)
    delimiter = told[1] if told else _delimiter(text)
    lines = _lines(name, text, delimiter)
    if header:
        names, lines = _find_names(name, lines, commented.lstrip("# ").rstrip("\r").split(delimiter), left)
    else:
        first = next(lines, Line(1, []))
        names, lines = Line(0, [str(place + 1) for place in range(len(first.cells))]), chain([first], lines)
    columns, rows = _table(name, names, _between(names, lines, left))
    empty = [
        name for name in columns.columns if UNNAMED.fullmatch(name) and (columns[name].str.strip_chars() == "").all()
    ]
    columns = columns.drop(empty)
    notes = [f"{count:,} line{'s' * (count > 1)} left out: {what}" for what, count in left.items() if count]
    if empty:
        notes.append(f"{len(empty):,} column{'s' * (len(empty) > 1)} left out: without a name, and empty")
    return Separated(columns, rows, delimiter, tuple(notes))


def is_data(cell: str) -> bool:
    """Whether a cell is a number or a time, and no name."""
    return DATA.fullmatch(cell.strip()) is not None


def _delimiter(text: str) -> str:
    """What is as often in each of the first lines as in the header; else what most lines in a row have as often."""
    header, *lines = [line for line in text[:CHUNK].lstrip().split("\n", SAMPLED)[:SAMPLED] if line.strip()] or [""]
    if "\t" in header:
        return "\t"
    even = [mark for mark in DELIMITERS if {line.count(mark) for line in lines} == {header.count(mark)} != {0}]
    if not even:
        runs = {mark: _longest_run(lines, mark) for mark in DELIMITERS}
        most = max(len(lines) / 2, 2, *runs.values())
        even = [mark for mark, length in runs.items() if length >= most]
    return max(even or DELIMITERS, key=header.count)


def _longest_run(lines: Sequence[str], mark: str) -> int:
    """How many lines that follow each other have a mark, and as often."""
    return max((len(list(run)) for count, run in groupby(lines, lambda line: line.count(mark)) if count), default=0)


def _lines(name: str, text: str, delimiter: str) -> Iterator[Line]:
    """The lines that have cells. Raises DataError."""
    bare = delimiter == "\t" and _bare_quotes(text)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        for cells in lines:
            if cells:
                yield Line(lines.line_num, cells)
    except csv.Error as error:
        raise DataError(f"{name}: row {lines.line_num}: {error}") from None


def _bare_quotes(text: str) -> bool:
    """Whether quotes in tab-separated text are literal: one begins a cell, and none ends it."""
    cells = (cell for line in text.split("\n") if '"' in line for cell in line.rstrip("\r").split("\t"))
    return any(cell.startswith('"') and (len(cell) == 1 or not cell.endswith('"')) for cell in cells)


def _find_names(
    name: str, lines: Iterator[Line], commented: Sequence[str], left: Counter[str]
) -> tuple[Line, Iterator[Line]]:
    """The line of names, and what is below it: the first one, if it is as wide as the first rows of data.

    Else the one above these rows that is; or the last comment, if there is none.
    """
    sample = list(islice(lines, SEARCHED))
    if not sample:
        return Line(1, []), lines
    runs = groupby(range(len(sample)), lambda at: (any(map(is_data, sample[at].cells)), len(sample[at].cells)))
    data = [list(run) for (numbers, _), run in runs if numbers]
    block = max(data, key=len, default=[0])
    names = [cell.strip() for cell in commented]
    if block[0] == 0 and _are_names(names, len(sample[0].cells)):
        left["comments"] -= 1
        return Line(0, names), chain(sample, lines)
    at = _names_at(name, sample, block) if block[0] > 1 else 0
    left[f"above the names, which are in row {sample[at].number}"] = at
    return sample[at], chain(sample[at + 1 :], lines)


def _names_at(name: str, sample: Sequence[Line], block: Sequence[int]) -> int:
    """Which line has the names of a block of data with lines above it. Raises DataError if several may."""
    width = len(sample[block[0]].cells)
    found = [at for at in range(block[0]) if _are_names(sample[at].cells, width)]
    timed = [at for at in found if any(plain(cell) in TIMES for cell in sample[at].cells)]
    if len(timed) == 1 and (0 not in found or len(block) >= len(sample) - block[0] - 1):
        return timed[0]
    if len(found) < 2 or 0 in found:
        return min(found, default=0)
    rows = " or ".join(str(sample[at].number) for at in found)
    raise DataError(f"{name}: are the columns' names in row {rows}? Remove the lines above it")


def _are_names(cells: Sequence[str], width: int) -> bool:
    given = [cell.strip() for cell in cells if cell.strip()]
    return len(cells) == width and 2 <= len(given) == len(set(given)) and not any(map(is_data, given))


def _between(names: Line, lines: Iterable[Line], left: Counter[str]) -> Iterator[Line]:
    """The lines without empty ones at the end, and without the names where they are repeated."""
    empty: list[Line] = []
    for line in lines:
        if not any(map(str.strip, line.cells)):
            empty.append(line)
        elif line.cells == names.cells:
            left["the names once more"] += 1
        else:
            yield from empty
            empty.clear()
            yield line
    left["empty, at the end"] = len(empty)


def _table(name: str, header: Line, lines: Iterable[Line]) -> tuple[pl.DataFrame, pl.Series]:
    names = [cell.strip() for cell in header.cells]
    if names.count("") > 1:
        names = [each or f"Unnamed: {place}" for place, each in enumerate(names)]
    if len(set(names)) < len(names):
        given = ", ".join(map(repr, names))
        raise DataError(f"{name}: row {header.number}: two columns of the same name among {given}")
    schema, rows = dict.fromkeys(names, pl.String), list[int]()
    cells: list[list[str]] = []
    chunks: list[pl.DataFrame] = []
    for line in lines:
        if len(line.cells) != len(names) and (len(line.cells) < len(names) or any(line.cells[len(names) :])):
            raise DataError(f"{name}: row {line.number}: {_ragged(names, line.cells)}")
        rows.append(line.number)
        cells.append(line.cells[: len(names)])
        if len(cells) == CHUNK:
            chunks.append(pl.DataFrame(cells, schema, orient="row"))
            cells = []
    chunks.append(pl.DataFrame(cells, schema, orient="row"))
    return pl.concat(chunks), pl.Series(rows, dtype=pl.Int64)


def _ragged(header: Sequence[str], row: Sequence[str]) -> str:
    if len(row) < len(header):
        return f"{len(row)} cells for {len(header)} columns: none for column {header[len(row)]!r}"
    what = f"{len(row)} cells for {len(header)} columns: too many after column {header[-1]!r}"
    return f"{what}; lines above the columns' names are to be removed" if len(header) == 1 else what
