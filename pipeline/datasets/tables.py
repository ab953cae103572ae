"""Files as tables: CSV, JSON lines and Parquet, read as a whole or not at all. Errors name the row and column."""

import codecs
import gzip
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from pipeline.datasets.separated import read_separated
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.series import check_series
from tidecast.errors import DataError, unusable

WIDTH = 60
"""The most characters of a cell that a message shows."""
LARGEST_INT = 2**63
LIST = re.compile(rb"\s*\[\s*\{")
"""How a list of JSON objects begins."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file's cells, not yet interpreted: text for CSV, typed for the others. `rows` are row numbers in the file."""

    name: str
    columns: pl.DataFrame
    rows: pl.Series
    delimiter: str = ""
    """What separates the columns of a CSV."""
    notes: tuple[str, ...] = ()
    """What of the file is not in it, for people."""

    def fault(self, at: int, column: str, what: str) -> DataError:
        """The error of one cell; `at` is the table's row, from 0."""
        return DataError(f"{self.name}: row {self.rows[at]}, column {column!r}: {what}")

    def names(self, column: str) -> pl.Series:
        """The column as names of series. Raises DataError for a missing or invalid one."""
        names = self.columns[column].cast(pl.String).fill_null("")
        for name in names.unique(maintain_order=True):
            try:
                check_series(name)
            except InvalidEvent as error:
                raise self.fault(first_of(names == name), column, error.detail) from None
        return names

    def refuse(self, wrong: pl.Series, column: str, what: str) -> None:
        """Raises DataError for the first row of `wrong`, if there is one; its cell takes the place of {}."""
        if wrong.any():
            at = first_of(wrong)
            raise self.fault(at, column, what.format(shortened(self.columns[column][at])))


def read_table(path: str, *, header: bool = True) -> Table:
    """Read a file, or standard input for ``-``. Its extension, else its first bytes, tell the format. Raises DataError.

    Without a `header` line the columns of a CSV are called 1, 2 and so on.
    """
    name, data = _content(path)
    ending = Path(path.removesuffix(".gz")).suffix.lower()
    if ending in {".parquet", ".pq"} or data.startswith(b"PAR1"):
        table = _parquet(name, data)
    elif ending in {".jsonl", ".ndjson", ".json"} or data.lstrip().startswith(b"{") or LIST.match(data):
        table = _json(name, _text(name, data))
    else:
        table = parse_csv(name, _text(name, data), header)
    if table.columns.is_empty():
        raise DataError(f"{name}: no rows below the header")
    return table


def read_text(path: str) -> str:
    """A file, or standard input for ``-``, as one UTF-8 text. Raises DataError."""
    return _text(*_content(path))


def listed(names: Sequence[str]) -> str:
    """Names as a quoted list, for messages."""
    return ", ".join(map(repr, names))


def said(name: str) -> str:
    """A column's name, for notes."""
    return f"`{repr(name)[1:-1]}`" if name else "a column without a name"


def shortened(cell: Any) -> Any:
    """A cell for a message: only the beginning of a long text."""
    return f"{cell[:WIDTH]}..." if isinstance(cell, str) and len(cell) > WIDTH else cell


def first_of(wrong: pl.Series) -> int:
    """The first row, from 0, that is marked."""
    return int(wrong.arg_true()[0])


def _content(path: str) -> tuple[str, bytes]:
    """The file's name in messages, and its bytes, decompressed; at least one."""
    name = "standard input" if path == "-" else path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise unusable(name, error, DataError) from None
    try:
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{name}: the gzip file is truncated or damaged ({error})") from None
    if not data.strip():
        raise DataError(f"{name}: the file is empty")
    return name, data


def _text(name: str, data: bytes) -> str:
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8 text (byte {data[error.start]:#x}): save it as UTF-8, as iconv -f cp1252 -t utf-8 does"
        raise DataError(f"{name}: row {row}: {what}") from None


def parse_csv(name: str, text: str, header: bool = True) -> Table:
    """A CSV's text as a table; see read_separated. Raises DataError."""
    return Table(name, *read_separated(name, text, header))


def _json(name: str, text: str) -> Table:
    """JSON lines, or one list of objects."""
    objects: Iterable[tuple[int, dict[str, object]]] = _json_lines(name, text)
    if text.lstrip().startswith("["):
        try:
            objects = enumerate(msgspec.json.decode(text, type=list[dict[str, object]]), start=1)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise DataError(f"{name}: not a list of JSON objects: {error}") from None
    rows: list[int] = []
    cells: list[dict[str, object]] = []
    for number, parsed in objects:
        nested = parsed.pop("values", None)
        cells.append({**parsed, **nested} if isinstance(nested, dict) else parsed)
        rows.append(number)
    names = dict.fromkeys(key for parsed in cells for key in parsed)
    columns = [_typed(key, [parsed.get(key) for parsed in cells]) for key in names]
    return Table(name, pl.DataFrame(columns), pl.Series(rows, dtype=pl.Int64))


def _json_lines(name: str, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    decode = msgspec.json.Decoder(dict[str, object]).decode
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, decode(line)
        except (msgspec.MsgspecError, RecursionError) as error:
            what = f"not a JSON object: {error}; JSON is read as an object a line, or as one list of objects"
            raise DataError(f"{name}: row {number}: {what}") from None


def _typed(name: str, cells: list[Any]) -> pl.Series:
    """Cells of one numeric type keep it; all others, or mixed ones, become text that is parsed later."""
    kinds = {type(cell) for cell in cells} - {type(None)}
    if len(kinds) == 1 and kinds <= {int, float} and all(cell is None or abs(cell) < LARGEST_INT for cell in cells):
        return pl.Series(name, cells)
    return pl.Series(name, [None if cell is None else str(cell) for cell in cells], dtype=pl.String)


def _parquet(name: str, data: bytes) -> Table:
    try:
        frame = pl.read_parquet(data)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{name}: not a complete Parquet file ({str(error).splitlines()[0]})") from None
    columns = [_typed(column.name, column.to_list()) if _opaque(column) else column for column in frame]
    return Table(name, pl.DataFrame(columns), pl.int_range(1, len(frame) + 1, eager=True))


def _opaque(column: pl.Series) -> bool:
    """Whether polars cannot cast its type to text: lists, structs, bytes, durations."""
    return column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Duration, pl.Object)
