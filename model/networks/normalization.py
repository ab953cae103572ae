"""Normalisation of windows and of future covariates, as part of the graph.

B batch   S steps of a window   F features   K horizon steps   C future covariates
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Pooled(NamedTuple):
    """Statistics of the training data, shared by all windows: (F,) each, raw units."""

    floor: Tensor
    """The minimum scale of a window."""
    mean: Tensor
    deviation: Tensor
    """A typical series' standard deviation."""

    @staticmethod
    def unknown(features: int) -> "Pooled":
        """Placeholders, to be replaced by loaded weights."""
        return Pooled(torch.ones(features), torch.zeros(features), torch.ones(features))


class Normalisation(nn.Module):
    """Standardises each window by its own location and scale, feature by feature.

    The location is the window's last value, its mean, or the value one season (`lag` steps) earlier; seasonal
    differencing shortens the window by `lag` steps. The scale is the mean absolute deviation (without squares, which
    would overflow or underflow float32 at 1e30 or 1e-30), at least `floor` (F,), so that a flat window becomes zeros.
    """

    floor: Tensor

    def __init__(self, location: str, floor: Tensor, horizon: int, lag: int) -> None:
        super().__init__()
        self.location, self.horizon, self.lag = location, horizon, lag
        self.register_buffer("floor", floor.clone())

    def forward(self, x_BSF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised window (B,S,F), the forecast's location (B,1,F) or (B,K,F), and its scale (B,1,F)."""
        if self.location == "season":
            differences_BSF = x_BSF[:, self.lag :] - x_BSF[:, : -self.lag]
            scale_B1F = self._scale(differences_BSF)
            return differences_BSF / scale_B1F, self._season_before(x_BSF), scale_B1F
        loc_B1F = x_BSF[:, -1:] if self.location == "last" else _mean(x_BSF)
        scale_B1F = self._scale(x_BSF)
        return (x_BSF - loc_B1F) / scale_B1F, loc_B1F, scale_B1F

    def _scale(self, x_BSF: Tensor) -> Tensor:
        return torch.maximum(_mean((x_BSF - _mean(x_BSF)).abs()), self.floor)

    def _season_before(self, x_BSF: Tensor) -> Tensor:
        season = x_BSF[:, -self.lag :]
        return season.repeat(1, -(-self.horizon // self.lag), 1)[:, : self.horizon]


class FutureCovariates(nn.Module):
    """Normalises the C future covariates twice: against their training mean and against the window's location.

    The first shows unusual values even if the window is flat; the second shows changes from the window.
    """

    columns: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, columns: list[int], pooled: Pooled) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("mean", pooled.mean[columns])
        self.register_buffer("deviation", pooled.deviation[columns])

    def forward(self, future_BKC: Tensor, loc_BKF: Tensor) -> Tensor:
        """(B,K,C), and the window's location (B,1,F) or (B,K,F) -> (B,K,2C)."""
        centred = torch.cat([(future_BKC - self.mean), future_BKC - loc_BKF.index_select(2, self.columns)], dim=2)
        return centred / torch.cat([self.deviation, self.deviation])


def _mean(x_BSF: Tensor) -> Tensor:
    """(B,1,F). Divides before summing, so that no float32 value overflows."""
    return (x_BSF / x_BSF.shape[1]).sum(dim=1, keepdim=True)
