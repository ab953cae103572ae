"""Training batches of windows, gathered from views of the series. Shapes: model/networks/protocol.py.

T rows of all series, one after another   N windows   B batch   S steps   F features   K horizon steps   O targets
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.evaluation.splits import chunks
from model.levels import UNMOVED, Levels
from model.networks.protocol import Batch
from model.windows import WindowData


class WindowBatches:
    """Batches gathered from views over one array: memory is that of the data, not S+K times it.

    `scale` (C,O) holds each series' standard deviations, `columns` the feature indices of the targets, `known` those of
    the future covariates. A window that `levels` move is moved with its targets, before both are cast to float32.
    """

    def __init__(
        self,
        data: WindowData,
        horizon: int,
        columns: Sequence[int],
        scale: npt.NDArray[np.float64],
        device: torch.device,
        known: Sequence[int] = (),
        levels: Levels = UNMOVED,
    ) -> None:
        self.seq_len = data.seq_len
        self._columns = torch.tensor(columns, device=device)
        self._known = torch.tensor(known, device=device) if known else None
        shifts = _shifts(data, levels)
        self._shifts = None if shifts is None else torch.from_numpy(shifts).to(device)
        self._windows = _views(torch.from_numpy(data.values).to(device), data.seq_len + horizon)
        self._observed = _views(torch.from_numpy(data.observed).to(device), data.seq_len + horizon)
        self._step = torch.from_numpy(data.step).to(device)
        self._series = torch.from_numpy(data.series).to(device)
        self._scale = torch.from_numpy(scale.astype(np.float32)).to(device)

    def batch(self, ends: Tensor) -> Batch:
        """The windows with these end rows, (B,) int64, each followed by its whole horizon without a break."""
        ends = ends.to(self._series.device)
        starts = ends - self.seq_len + 1
        rows, observed = self._windows[starts], self._observed[starts][:, self.seq_len :]
        if self._shifts is not None:
            rows = rows - self._shifts[ends].unsqueeze(1)
        rows = rows.float()
        y = rows[:, self.seq_len :].index_select(2, self._columns)
        scale = self._scale[self._series[ends]].unsqueeze(1)
        return Batch(
            task="forecast",
            x=rows[:, : self.seq_len],
            y=y,
            observed=observed.index_select(2, self._columns),
            step=self._step[ends],
            future=None if self._known is None else rows[:, self.seq_len :].index_select(2, self._known),
            scale=scale,
        )


def _shifts(data: WindowData, levels: Levels) -> npt.NDArray[np.float64] | None:
    """What the window that ends in each row is moved by, (T,F); None if none is."""
    ends = data.ends[levels.large(data.values[data.ends]).any(axis=1)]
    back, shifts = np.arange(1 - data.seq_len, 1), np.zeros(data.values.shape if len(ends) else (0, 0))
    for part in chunks(ends):
        if (found := levels.shifts(data.values[part[:, None] + back])) is not None:
            shifts[part] = found
    return shifts if shifts.any() else None


def _views(rows_TF: Tensor, length: int) -> Tensor:
    return rows_TF.unfold(0, length, 1).transpose(1, 2)
