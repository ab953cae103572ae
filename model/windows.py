"""The protocol of windowed series that training, splits, metrics and baselines read; without torch.

T rows of all series, one after another   N windows   S steps   F features
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
"""Indices of those T rows."""


class WindowData(Protocol):
    """Windows over one array of rows, series after series, each given by its end row."""

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """(T,F), raw units; filled where not observed."""

    @property
    def observed(self) -> npt.NDArray[np.bool_]:
        """(T,F): False where a gap was filled."""

    @property
    def step(self) -> npt.NDArray[np.int64]:
        """(T,): index on the grid, or counted from 0 in each series."""

    @property
    def gridded(self) -> bool:
        """Whether steps are on a grid, the same for all series."""

    @property
    def ts(self) -> npt.NDArray[np.int64]:
        """(T,): event time, epoch milliseconds."""

    @property
    def series(self) -> npt.NDArray[np.int32]:
        """(T,): index into names."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the series."""

    @property
    def run(self) -> npt.NDArray[np.int32]:
        """(T,): rows of one unbroken stretch share a number."""

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """(N,): the row of each window's last step."""

    @property
    def seq_len(self) -> int:
        """S."""
