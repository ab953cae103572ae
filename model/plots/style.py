"""What all pictures share: colours that mean the same everywhere, axes with names, legends, and how they are saved.

The page (deploy/dashboard/static) shows the same things in the same colours.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tidecast.text import escaped

rcParams["text.parse_math"] = False  # names are text, whatever is in them

ACTUAL, FORECAST, NAIVE, ANOMALY = "#1f2937", "#2563eb", "#9ca3af", "#dc2626"
CHAMPION, CHALLENGER = FORECAST, "#d97706"
OTHERS = (CHAMPION, CHALLENGER, "#0d9488", "#7c3aed", "#db2777", "#65a30d")
"""Models side by side, in the order in which they are named."""
INTERVAL = 0.18
"""How much of the forecast's colour the widest interval has; a narrower one has more."""
INK, MUTED, GRID = ACTUAL, "#6b7280", "#e5e7eb"
DASHES = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
"""Of naive forecasts, the best first."""
ERROR = "mean squared error, in z-scores"
LOG_FROM = 4
"""Errors that differ more than this are shown on a logarithmic scale: two similar ones stay apart."""

Times = npt.NDArray[np.datetime64]


def page(title: str, width: float = 12, height: float = 6.4) -> Figure:
    """An empty page with a title."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    figure.suptitle(title, color=INK, fontsize=12)
    return figure


def grid_of(figure: Figure, count: int) -> list[Axes]:
    """`count` panels, 1 to 4, that fill the page: up to three below each other, four in a square."""
    rows, columns = (2, 2) if count == 4 else (count, 1)
    return list(figure.subplots(rows, columns, squeeze=False).ravel())


def moments(ms: npt.ArrayLike) -> Times:
    """Epoch milliseconds as times."""
    return np.asarray(ms, np.int64).astype("datetime64[ms]")


def blended(color: str, share: float) -> tuple[float, float, float]:
    """A colour with so much of itself, on white: a legend shows it as the picture does."""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(color))
    return red, green, blue


def headed(panel: Axes, title: str, across: str, up: str) -> None:
    """A panel with a title, the names of both axes with their units, and light lines to read values by."""
    panel.set_title(title, loc="left", fontsize=10, color=INK)
    panel.set_xlabel(across, color=MUTED, fontsize=9)
    panel.set_ylabel(up, color=MUTED, fontsize=9)
    panel.grid(axis="y", color=GRID)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(MUTED)
    panel.tick_params(colors=MUTED, length=0, labelsize=9)
    panel.margins(x=0.01)


def timed(panel: Axes) -> None:
    """Times from left to right."""
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def numbered(panel: Axes) -> None:
    """Values from bottom to top, in full."""
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))


def spread(panel: Axes, lines: Sequence[npt.ArrayLike]) -> None:
    """Errors from bottom to top: from 0, or if several differ much on a logarithmic scale, which is said."""
    values = np.concatenate([np.ravel(line) for line in lines] or [np.ones(1)])
    values = values[np.isfinite(values)]
    if len(lines) > 1 and len(values) and values.min() > 0 and values.max() > LOG_FROM * values.min():
        panel.set_yscale("log")
        panel.set_ylabel(f"{panel.get_ylabel()}, log scale")
        panel.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.tick_params(which="minor", length=0)
    else:
        panel.set_ylim(bottom=0)
    numbered(panel)


def legend(on: Figure | Axes, panels: Sequence[Axes] = ()) -> None:
    """Everything drawn in these panels, or in one, each once; a panel that lacks something does not hide it."""
    found: dict[str, Artist] = {}
    for panel in [on] if isinstance(on, Axes) else panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    where: dict[str, Any] = {"fontsize": 9, "frameon": False}
    if isinstance(on, Figure):
        where |= {"loc": "outside lower center", "ncols": min(len(found), 6)}
    on.legend(list(found.values()), list(found), **where)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; names in its texts come from others."""
    for text in figure.findobj(Text):
        text.set_text(escaped(text.get_text()))
    figure.savefig(path)
