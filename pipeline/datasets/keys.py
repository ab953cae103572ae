"""Which columns of a table may name its series, where none does by name or option; and which only number its rows."""

from collections.abc import Iterable, Sequence

import polars as pl

from pipeline.datasets.numbers import is_numeric
from pipeline.datasets.separated import UNNAMED
from pipeline.datasets.tables import Table

LEAST_ROWS = 3
FEW = 24
"""The most different whole numbers in a column that may be labels: 24 hours, stores, states."""
MANY_TIMES = 20
"""How often, on average, each of them is there."""
REGULAR = 0.8
"""The share of equal steps that makes rows a series."""


def is_row_number(table: Table, column: str) -> bool:
    """Whether a column numbers the rows, from 0 or 1 on, or is an index without a name that holds whole numbers."""
    cells = table.columns[column]
    if len(cells) < LEAST_ROWS or cells.is_null().any():
        return False
    ends = {str(cells[0]).strip().removesuffix(".0"), str(cells[-1]).strip().removesuffix(".0")}
    unnamed = UNNAMED.fullmatch(column) is not None
    if not unnamed and ends not in ({"0", str(len(cells) - 1)}, {"1", str(len(cells))}):
        return False
    numbers = _whole(cells)
    return numbers is not None and not numbers.is_null().all() and (unnamed or (numbers.diff().drop_nulls() == 1).all())


def naming_columns(table: Table, rows: pl.DataFrame, among: Sequence[str], most: float) -> tuple[str, ...]:
    """The fewest columns by which at most this share of `rows` (series, times) is repeated; () if there are none."""
    columns = {name: cells for name in among if (cells := _labels(table, name)) is not None}
    found: list[str] = []
    for name in sorted(columns, key=lambda name: columns[name].n_unique()):
        found.append(name)
        if repeated_share(rows, [columns[each] for each in found]) <= most:
            break
    else:
        return ()
    for name in sorted(found, key=among.index, reverse=True):
        fewer = [each for each in found if each != name]
        if fewer and repeated_share(rows, [columns[each] for each in fewer]) <= most:
            found = fewer
    return tuple(sorted(found, key=among.index))


def repeated_share(rows: pl.DataFrame, more: Iterable[pl.Series] = ()) -> float:
    """The share of rows that are as an earlier one."""
    named = rows.with_columns(cells.alias(f"key {place}") for place, cells in enumerate(more))
    return 1 - named.n_unique() / len(rows) if len(rows) else 0.0


def interleaved(table: Table, ms: pl.Series, among: Sequence[str], *, measured: bool) -> str | None:
    """A column by which rows are several evenly spaced series, each of a longer step than all rows together.

    Measurements may be whole numbers that come in turn, so with `measured` ones among the columns texts only are sure.
    """
    step, even = _common_step(pl.DataFrame([ms.alias("ms")]), [])
    date = pl.from_epoch("ms", time_unit="ms").dt
    calendar = pl.DataFrame([ms.alias("ms")]).select(
        date.hour(), day=date.day(), week=date.weekday(), month=date.month()
    )
    for name in among:
        cells = _labels(table, name)
        if cells is None or (measured and cells.dtype != pl.String and even >= REGULAR):
            continue
        own, share = _common_step(pl.DataFrame([ms.alias("ms"), cells.alias("by")]), ["by"])
        if own > step and share >= REGULAR and not any(_is_by(cells, part) for part in calendar):
            return name
    return None


def labels_beside_values(table: Table, columns: Sequence[str]) -> list[str]:
    """Columns of a few whole numbers, if beside them are columns of measurements."""
    cells = {name: _whole(table.columns[name]) for name in columns}
    different = {name: len(table.columns) if each is None else each.n_unique() for name, each in cells.items()}
    few = [name for name, count in different.items() if count <= min(FEW, len(table.columns) / MANY_TIMES)]
    most = max(different[name] for name in few) if few else 0
    return few if most and max(different.values()) > 10 * most else []


def _is_by(cells: pl.Series, part: pl.Series) -> bool:
    """Whether a part of the calendar tells a column's cells."""
    return pl.DataFrame([cells.alias("cells"), part]).n_unique() == part.n_unique()


def _common_step(rows: pl.DataFrame, by: list[str]) -> tuple[int, float]:
    """The most common step between a group's rows, in milliseconds, and the share of steps that are it."""
    step = pl.col("ms").diff()
    steps = rows.sort(*by, "ms").select(step=step.over(by) if by else step).drop_nulls()["step"]
    if steps.is_empty():
        return 0, 0.0
    top = steps.value_counts(sort=True)
    return int(top["step"][0]), top["count"][0] / len(steps)


def _labels(table: Table, column: str) -> pl.Series | None:
    """A column's cells if they may be names: texts or whole numbers, at least two, each twice on average."""
    cells = table.columns[column]
    if not 2 <= cells.n_unique() <= len(cells) / 2:
        return None
    return cells if cells.dtype == pl.String and not is_numeric(table, column) else _whole(cells)


def _whole(cells: pl.Series) -> pl.Series | None:
    """A column as integers, null where a cell is empty; None if some are no whole numbers."""
    given = cells.drop_nulls()
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars()
        given = cells.filter(cells.fill_null("") != "")
        cells, given = (each.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False) for each in (cells, given))
    elif cells.dtype.is_float():
        return cells.cast(pl.Int64, strict=False) if (given == given.round()).all() else None
    elif not cells.dtype.is_integer():
        return None
    return None if given.has_nulls() else cells
