"""A linear network's weights by ridge regression: no steps, a few passes over the windows."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from model.networks.forecast import EnsembleMember
from model.networks.layers import LinearNetwork
from model.networks.protocol import Batch
from model.training import distributed

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Those tried, in mean squares of what the network reads."""
_MIDDLE = 2
_FILLINGS = 3
"""Passes in which targets that did not happen are taken to be as forecast."""


@torch.no_grad()
def solutions(member: EnsembleMember, batches: Callable[[], Iterable[Batch]]) -> Iterator[Tensor]:
    """The weights (S,K) of a member's linear network for each penalty: the least squares over what was observed.

    Errors count in each series' own unit, as in `protocol.loss`. The penalty draws towards the location alone.
    """
    assert isinstance(member.network, LinearNetwork)
    device = member.columns.device
    steps, horizon = member.network.weight.shape
    read = torch.zeros(steps, steps, dtype=torch.float64, device=device)
    complete, weights = True, torch.zeros(steps, horizon, dtype=torch.float64, device=device)
    for z_NS, _, observed_NK in _rows(member, batches()):
        read += (z_NS.T @ z_NS).double()
        complete = complete and bool(observed_NK.all())
    values, vectors = torch.linalg.eigh(distributed.all_reduce_sum(read))
    penalties = [penalty * read.diagonal().mean().clamp(min=1e-12) for penalty in PENALTIES]
    rotated = torch.zeros_like(weights)
    for _ in range(1 if complete else _FILLINGS):
        met = torch.zeros_like(weights)
        for z_NS, y_NK, observed_NK in _rows(member, batches()):
            met += (z_NS.T @ torch.where(observed_NK, y_NK, z_NS @ weights.float())).double()
        rotated = vectors.T @ distributed.all_reduce_sum(met)
        weights = vectors @ (rotated / (values + penalties[_MIDDLE]).unsqueeze(1))
    for penalty in penalties:
        yield (vectors @ (rotated / (values + penalty).unsqueeze(1))).float()


def _rows(member: EnsembleMember, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Window by window and target by target, in the series' own unit: what is read (N,S), what came (N,K), whether."""
    for batch in batches:
        assert batch.scale is not None
        assert batch.observed is not None
        z_BSF, loc_BKF, scale_B1F = member.normalisation(batch.x[:, -member.look :])
        unit_B1O = scale_B1F.index_select(2, member.columns) / batch.scale
        z_BSO = z_BSF.index_select(2, member.columns) * unit_B1O
        y_BKO = (batch.y - loc_BKF.index_select(2, member.columns)) / batch.scale
        yield _flat(z_BSO), _flat(y_BKO), _flat(batch.observed)


def _flat(rows_BSO: Tensor) -> Tensor:
    return rows_BSO.transpose(1, 2).flatten(0, 1)
