"""Ratios, a table and a picture of what bench.py measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from model.plots.style import FORECAST, INK, MUTED, OTHERS, headed, page, save

Speeds = Mapping[str, Mapping[str, Sequence[float]]]
"""By model and contender, records a second of each round."""
THOUSANDS = StrMethodFormatter("{x:,.12g}")
OURS, ALONE = "Tidecast", "onnxruntime alone"
QUANTILES = {"p50_ms": "p50", "p99_ms": "p99", "p999_ms": "p99.9"}


def ratios(speeds: Speeds) -> dict[str, dict[str, dict[str, float]]]:
    """By model and variant of ours, how many times as fast as the others and as the other variants."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for model, by_name in speeds.items():
        medians = {name: median(values) for name, values in by_name.items()}
        found[model] = {
            name: {other: round(medians[name] / each, 3) for other, each in medians.items() if other != name}
            for name in medians
            if name.startswith(OURS)
        }
    return found


def table(results: Mapping[str, Any]) -> str:
    """All that was measured, as lines."""
    lines: list[str] = []
    speeds: Speeds = results.get("speed", {})
    for model, by_name in speeds.items():
        best = median(by_name[OURS]) if OURS in by_name else None
        lines += ["", f"{model}: records/s, median of the rounds; {OURS} to it"]
        for name, values in by_name.items():
            ratio = "" if best is None else f"{best / median(values):8.2f}"
            lines.append(f"  {name:38}{median(values):10,.0f}{ratio}   {' '.join(f'{each:,}' for each in values)}")
    for rate, by_name in results.get("latency", {}).items():
        lines += ["", f"latency at {rate} records/s: {', '.join(QUANTILES.values())} in ms"]
        lines += [
            f"  {name:38}{'  '.join(f'{each:8.1f}' for each in _quantiles(runs))}" for name, runs in by_name.items()
        ]
    for part in ("stages", "fleets", "start", "windows"):
        if part in results:
            lines += ["", part, *_tree(results[part], "  ")]
    return "\n".join(lines[1:])


def _quantiles(runs: Sequence[Mapping[str, float]]) -> list[float]:
    return [median(run[name] for run in runs) for name in QUANTILES]


def _tree(figures: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", *_tree(value, indent + "  ")]
        else:
            shown = median(value) if isinstance(value, list) else value
            lines.append(f"{indent}{name:20} {shown:,}")
    return lines


def draw(results: Mapping[str, Any], path: Path) -> None:
    """A panel of bars for each model, and one of latencies for each rate, as a PNG."""
    speeds, latencies = results["speed"], results.get("latency", {})
    machine = results["machine"]
    figure = page(f"{machine['processor']}, {machine['cores']} cores with the broker on them", height=7.5)
    shares = [3 + max(map(len, part.values())) for part in (speeds, latencies) if part]
    ratio, columns = {"height_ratios": shares}, max(len(speeds), len(latencies))
    rows = figure.subplots(len(shares), columns, squeeze=False, gridspec_kw=ratio)
    for panel in rows.ravel()[: rows.size]:
        panel.set_visible(False)
    for panel, (model, by_name) in zip(rows[0], speeds.items(), strict=False):
        shown = {name: median(values) for name, values in by_name.items() if not name.startswith(ALONE)}
        _bars(panel, f"{model}: records a second", shown, "records a second")
    for panel, (rate, by_name) in zip(rows[-1], latencies.items(), strict=False):
        _points(panel, f"latency at {int(rate):,} records a second", by_name)
    save(figure, path)


def _bars(panel: Axes, title: str, shown: Mapping[str, float], unit: str) -> None:
    panel.set_visible(True)
    headed(panel, title, unit, "")
    names = list(shown)[::-1]
    colors = [FORECAST if name.startswith(OURS) else MUTED for name in names]
    bars = panel.barh(names, [shown[name] for name in names], color=colors, height=0.7)
    panel.bar_label(bars, [f"{shown[name]:,.0f}" for name in names], padding=3, fontsize=9, color=INK)
    panel.grid(visible=False)
    panel.xaxis.set_major_formatter(THOUSANDS)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.set_xlim(0, 1.2 * max(shown.values()))


def _points(panel: Axes, title: str, by_name: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    panel.set_visible(True)
    headed(panel, title, "ms, log scale", "")
    names = list(by_name)[::-1]
    for place, (quantile, label) in enumerate(QUANTILES.items()):
        values = [median(run[quantile] for run in by_name[name]) for name in names]
        panel.plot(values, names, "o", color=OTHERS[place], markersize=7)
        first = (values[-1], names[-1])
        panel.annotate(label, first, (0, 6), textcoords="offset points", ha="center", fontsize=9, color=INK)
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    panel.xaxis.set_major_formatter(THOUSANDS)
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.margins(x=0.06, y=0.25)
