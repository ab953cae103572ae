"""Scores as a table for people: as wide as the terminal, its numbers never shortened."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.table import Table

from deploy.console import printable
from deploy.grading.totals import Row
from deploy.settings.values import ScoreView
from tidecast.times import format_time


def number(value: float | None, form: str = "") -> str:
    """A number for people; by default four significant digits, or all before the point."""
    if value is None:
        return "-"
    return f"{value:{form or (',.0f' if 999.95 <= abs(value) < 1e9 else '.4g')}}"


class Column(NamedTuple):
    """One of a table's numbers."""

    heading: str
    cell: Callable[[Row], str]
    meaning: str = ""


MAE = Column("MAE", lambda row: number(row.mae), "in the series' unit")
NAIVE_MAE = Column("naive MAE", lambda row: number(row.naive_mae), "the seasonal naive's")
MASE = Column("MASE", lambda row: number(row.scaled_mae), "MAE / the naive's MAE one step ahead")
SKILL = Column("skill", lambda row: number(row.skill, ".3f"), "1 - MAE / naive MAE")
OTHERS = (
    Column("coverage", lambda row: number(row.coverage, ".1%"), "share of values inside their intervals"),
    Column("width", lambda row: number(row.width), "of the intervals"),
    Column("Winkler", lambda row: number(row.winkler), "width and a penalty for values outside, lower is better"),
    Column("n", lambda row: number(row.count, ",d"), "forecast values graded"),
    Column("unscored", lambda row: number(row.unscored, ",d"), "whose step was never observed"),
    Column("since", lambda row: format_time(row.since)),
)
COLUMNS = (MAE, NAIVE_MAE, MASE, SKILL, *OTHERS)
RELATIVE = (
    MASE._replace(
        cell=lambda row: number(row.mae), meaning="MAE / the naive's MAE one step ahead, as width and Winkler"
    ),
    Column("naive MASE", NAIVE_MAE.cell, NAIVE_MAE.meaning),
    SKILL._replace(meaning="1 - MASE / naive MASE"),
    *OTHERS,
)
"""Where series of several units are added up, relative to each series' scale."""
DISPENSABLE = ("Winkler", "width", "since", "unscored", "naive MAE", "naive MASE", "MASE", "coverage")
"""What is left out of a table that is too wide, the first first."""
SHORTEST = 16
"""Characters of a name that are shown rather than one more of these columns."""
PADDING = 2
"""Characters between two columns."""


def score_table(
    title: str, by: ScoreView, names: Sequence[str], rows: Sequence[Row], overall: Row | None, width: int | None
) -> tuple[Table, str]:
    """A row for each of `rows`, with its `names`, and one for all; and a legend.

    It has at most `width` characters, if they suffice for the fewest columns.
    """
    shown = [*rows, *([overall] if overall else [])]
    cells = {column: [column.cell(row) for row in shown] for column in (COLUMNS if by == "series" else RELATIVE)}
    labels = [[printable(str(getattr(row, name))) for name in names] for row in rows]
    labels += [["all" for _ in names]] * (len(shown) - len(rows))
    wanted = [max(cell_len(text) for text in column) for column in zip(names, *labels, strict=True)]
    columns, left_out = _fitting(cells, wanted, width)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    room = None if width is None else width + PADDING - sum(_width(column, cells) for column in columns)
    for name, limit in zip(names, _shared(wanted, room), strict=True):
        table.add_column(name, no_wrap=True, max_width=limit)
    for column in columns:
        least = _width(column, cells) - PADDING
        table.add_column(
            column.heading, justify="left" if column.heading == "since" else "right", no_wrap=True, min_width=least
        )
    for place, (row, label) in enumerate(zip(shown, labels, strict=True)):
        style = "bold" if row is overall else None
        table.add_row(*label, *(cells[column][place] for column in columns), style=style)
    return table, _legend(columns, left_out)


def _width(column: Column, cells: dict[Column, list[str]]) -> int:
    return PADDING + max(map(len, [column.heading, *cells[column]]))


def _fitting(
    cells: dict[Column, list[str]], wanted: Sequence[int], width: int | None
) -> tuple[list[Column], list[str]]:
    """The columns beside which names of at least SHORTEST have room, and the headings of the others."""
    names = sum(PADDING + min(each, SHORTEST) for each in wanted)
    columns, left_out = list(cells), list[str]()
    for heading in DISPENSABLE:
        if width is None or names + sum(_width(column, cells) for column in columns) <= width + PADDING:
            break
        kept = [column for column in columns if column.heading != heading]
        left_out += [heading] * (len(columns) - len(kept))
        columns = kept
    return columns, left_out


def _shared(wanted: Sequence[int], room: int | None) -> Iterator[int | None]:
    """The characters for each of the names, the shorter ones whole if possible."""
    if room is None:
        return (None for _ in wanted)
    left = dict.fromkeys(range(len(wanted)), 0)
    free = max(room - PADDING * len(wanted), len(wanted))
    for done, place in enumerate(sorted(left, key=wanted.__getitem__)):
        left[place] = min(wanted[place], free // (len(wanted) - done))
        free -= left[place]
    return iter(left.values())


def _legend(columns: Sequence[Column], left_out: Sequence[str]) -> str:
    meanings = "; ".join(f"{column.heading}: {column.meaning}" for column in columns if column.meaning)
    return meanings + (f"\ntoo narrow for {', '.join(left_out)}: --json has all" if left_out else "")
