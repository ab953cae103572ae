"""Pictures of a training: its losses, and a classifier's confusions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

from model.plots.style import DASHES, FORECAST, INK, MUTED, headed, legend, page, save
from model.training.loop import Epoch
from tidecast.text import escaped

LONGEST_LABEL, MOST_NUMBERS = 20, 20


def plot_confusion(confusion: npt.NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """Plots a confusion matrix (C,C): true labels in rows, predicted labels in columns. Writes a PNG."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = 3.6 + 0.6 * min(len(labels), 30)
    right = np.trace(confusion) / max(confusion.sum(), 1)
    figure = page(f"{right:.1%} of {confusion.sum():,} held-out texts are right", size + 1.2, size)
    panel = figure.subplots()
    shown = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    whole = map(escaped, labels)
    names = [label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 2]}.." for label in whole]
    panel.set_xticks(range(len(names)), names, rotation=45, ha="right")
    panel.set_yticks(range(len(names)), names)
    panel.set_xlabel("predicted label", color=MUTED)
    panel.set_ylabel("true label", color=MUTED)
    if len(labels) <= MOST_NUMBERS:
        for row, column in np.ndindex(*confusion.shape):
            color = "white" if shares[row, column] > 0.5 else INK
            panel.text(column, row, f"{confusion[row, column]:,}", ha="center", va="center", color=color, fontsize=9)
    panel.tick_params(colors=MUTED, length=0, labelsize=9)
    bar = figure.colorbar(shown, shrink=0.8, format=lambda share, _: f"{share:.0%}")
    bar.set_label("share of the true label's texts", color=MUTED)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, length=0, labelsize=9)
    save(figure, path)


def plot_history(history: Sequence[Epoch], unit: str, path: Path) -> None:
    """Plots training and validation loss by epoch, and which epoch is kept. Writes a PNG."""
    figure = page("loss by epoch", 7, 4)
    panel = figure.subplots()
    headed(panel, "", "epoch", unit)
    numbers = [epoch.number for epoch in history]
    training, validation = ([getattr(epoch, name) for epoch in history] for name in ("train_loss", "validation_loss"))
    panel.plot(numbers, training, color=MUTED, marker="o", markersize=4, label="training")
    panel.plot(numbers, validation, color=FORECAST, marker="o", markersize=4, label="validation")
    best = min(history, key=lambda epoch: epoch.validation_loss)
    label = f"lowest, {best.validation_loss:.4g} after epoch {best.number}"
    panel.axvline(best.number, color=MUTED, linewidth=1, linestyle=DASHES[1], label=label)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.margins(x=0.03)
    legend(panel)
    save(figure, path)
