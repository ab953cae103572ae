"""Rows of a file that are no measurements: units below the columns' names, totals at the end, rows without a cell."""

import re
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from pipeline.datasets.numbers import is_missing
from pipeline.datasets.separated import TIMES, is_data
from pipeline.datasets.tables import Table, listed
from pipeline.datasets.times import looks_like_time
from pipeline.formats.names import plain

SAMPLED = 20
"""Rows by which it is known what a column holds."""
LEAST_ROWS = 3
MOST = 10
"""The most rows at the end that are looked at."""
TOTAL = re.compile(
    r"(?:grand |sub-?)?(?:totals?|totale|sum|summe|gesamt\w*|insgesamt|somme|suma|average|avg|mean|mittel\w*"
    r"|durchschnitt|moyenne|media|median|min|minimum|max|maximum|count|anzahl|std|stddev)\b.{0,20}",
    re.IGNORECASE,
)
"""What the rows below the measurements are called."""


def without_margins(table: Table) -> Table:
    """A CSV's table without rows that are no measurements; what they were is in the notes."""
    if not table.delimiter or len(table.columns) < LEAST_ROWS:
        return table
    frame, rows = table.columns, len(table.columns)
    units = _units(table)
    start, end = int(bool(units)), rows
    named = next(
        count for count in range(rows + 1) if count == MOST or not _at_end(frame[rows - 1 - count : rows - count])
    )
    head = frame[start : min(start + SAMPLED, rows - named)]
    measured = [name for name in head.columns if _is_data(head[name])]
    times = [name for name in measured if plain(name) in TIMES or looks_like_time(_given(head[name]))]
    while end > rows - named and _is_total(frame[end - 1 : end], measured, times):
        end -= 1
    totals = sum(bool(_totals(frame[at : at + 1])) for at in range(end, rows))
    place = pl.int_range(rows, eager=True)
    keep = (place >= start) & (place < end)
    if times and (frame[times[0]].str.strip_chars() == "").any():
        keep &= frame.select(pl.any_horizontal(pl.all().str.strip_chars() != "")).to_series()
    empty = rows - int(keep.sum()) - start - totals
    left = {"totals, at the end": totals, "empty": empty}
    notes = [f"row {table.rows[0]} left out: no measurements but units, {listed(units)}"] if units else []
    notes += [f"{count:,} row{'s' * (count > 1)} left out: {what}" for what, count in left.items() if count]
    if not notes:
        return table
    return replace(table, columns=frame.filter(keep), rows=table.rows.filter(keep), notes=(*table.notes, *notes))


def _units(table: Table) -> list[str]:
    """The cells of a first row that has none where all the next rows have numbers or times; else none."""
    first, rest = table.columns.row(0), table.columns.slice(1, SAMPLED)
    measured = [name for name in rest.columns if _is_data(rest[name])]
    cells = table.columns.select(measured).head(1)
    if any(map(is_data, first)) or any(re.search(r"\d{4}", cell) for cell in first) or not measured:
        return []
    said = [cell for cell in cells.row(0) if cell.strip() and not is_missing(pl.Series([cell.strip()]))[0]]
    return said if len(rest) >= LEAST_ROWS - 1 else []


def _totals(row: pl.DataFrame) -> list[str]:
    """The columns in which a row has a word for totals."""
    return [name for name in row.columns if TOTAL.fullmatch(row[name][0].strip())]


def _at_end(row: pl.DataFrame) -> bool:
    return row.height > 0 and (bool(_totals(row)) or not any(row[name][0].strip() for name in row.columns))


def _is_total(row: pl.DataFrame, measured: Sequence[str], times: Sequence[str]) -> bool:
    """Whether a row has such a word in place of a number or time, or beside a time that is missing, or is empty."""
    named, given = _totals(row), {name for name in row.columns if row[name][0].strip()}
    if not named:
        return not given
    return not set(named).isdisjoint(measured) or (bool(times) and given.isdisjoint(times))


def _is_data(cells: pl.Series) -> bool:
    """Whether those of a column's cells that are there are numbers or times."""
    given = _given(cells)
    return len(given) > 0 and all(map(is_data, given))


def _given(cells: pl.Series) -> list[str]:
    text = cells.str.strip_chars()
    return text.filter(~is_missing(text)).to_list()
