"""Fits a linear network by ridge regression: closed form, in a few passes over the windows."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from model.networks.forecast import EnsembleMember
from model.networks.layers import LinearNetwork
from model.networks.protocol import Batch
from model.training import distributed

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidate penalties, relative to the mean square of the inputs."""
_MIDDLE_PENALTY = 2
_IMPUTATIONS = 3
"""Passes in which unobserved targets are imputed with the current forecast."""


@torch.no_grad()
def solutions(member: EnsembleMember, batches: Callable[[], Iterable[Batch]]) -> Iterator[Tensor]:
    """The ridge solution (S,K) of a member's linear network for each penalty, over the observed targets.

    Errors are scaled per series, as in `protocol.loss`. The penalty shrinks the forecast towards the location.
    """
    assert isinstance(member.network, LinearNetwork)
    device = member.columns.device
    steps, horizon = member.network.weight.shape
    gram = torch.zeros(steps, steps, dtype=torch.float64, device=device)
    complete, weights = True, torch.zeros(steps, horizon, dtype=torch.float64, device=device)
    for z_NS, _, observed_NK in _rows(member, batches()):
        gram += (z_NS.T @ z_NS).double()
        complete = complete and bool(observed_NK.all())
    values, vectors = torch.linalg.eigh(distributed.all_reduce_sum(gram))
    penalties = [penalty * gram.diagonal().mean().clamp(min=1e-12) for penalty in PENALTIES]
    rotated = torch.zeros_like(weights)
    for _ in range(1 if complete else _IMPUTATIONS):
        moments = torch.zeros_like(weights)
        for z_NS, y_NK, observed_NK in _rows(member, batches()):
            moments += (z_NS.T @ torch.where(observed_NK, y_NK, z_NS @ weights.float())).double()
        rotated = vectors.T @ distributed.all_reduce_sum(moments)
        weights = vectors @ (rotated / (values + penalties[_MIDDLE_PENALTY]).unsqueeze(1))
    for penalty in penalties:
        yield (vectors @ (rotated / (values + penalty).unsqueeze(1))).float()


def _rows(member: EnsembleMember, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A row per window and target, scaled per series: inputs (N,S), actuals (N,K) and which were observed (N,K)."""
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
