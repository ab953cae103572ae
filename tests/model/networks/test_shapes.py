from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.networks.protocol import Batch, loss
from model.training.batches import WindowBatches
from model.windows import WindowData
from tidecast.errors import ShapeError

MakeData = Callable[..., WindowData]

CPU = torch.device("cpu")


def batch(y: torch.Tensor, observed: torch.Tensor | None = None) -> Batch:
    known = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    scale = torch.full((len(y), 1, 1), 2.0)
    return Batch(task="forecast", x=torch.zeros(len(y), 2, 1), y=y, observed=known, scale=scale)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 1, 1), (1, 3, 1), (4, 3, 2)])
def test_loss_rejects_broadcasting(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="must have one shape"):
        loss(torch.zeros(shape), batch(torch.zeros(4, 3, 1)))


def test_loss_is_relative_to_training_variance_and_ignores_filled_targets() -> None:
    y = torch.tensor([[[1.0], [2.0]], [[3.0], [torch.nan]]])
    observed = torch.tensor([[[True], [True]], [[True], [False]]])
    made = torch.zeros_like(y, requires_grad=True)
    total, counted = loss(made, batch(y, observed))
    assert (total.item(), counted.item()) == ((1 + 4 + 9) / 4, 3)
    total.backward()  # type: ignore[no-untyped-call]
    assert made.grad is not None
    assert made.grad.flatten().tolist() == [-0.5, -1.0, -1.5, 0.0]


def test_batches_hold_each_window_and_its_targets(make_data: MakeData) -> None:
    values = np.arange(40, dtype=np.float32).reshape(20, 2)
    data = make_data(values, values + 100, seq_len=5, holes=[9])
    windows = WindowBatches(data, 3, [1], np.array([[2.0], [7.0]]), CPU)
    got = windows.batch(torch.tensor([6, 24]))
    assert got.x.shape == (2, 5, 2)
    assert got.x[0].tolist() == data.values[2:7].tolist()
    assert got.y[1, :, 0].tolist() == data.values[25:28, 1].tolist()
    assert got.observed is not None
    assert got.scale is not None
    assert got.observed[0, :, 0].tolist() == [True, True, False]
    assert got.scale.flatten().tolist() == [2.0, 7.0]


def test_windows_are_views(make_data: MakeData) -> None:
    data = make_data(np.zeros(1000), seq_len=500)
    windows = WindowBatches(data, 100, [0], np.ones((1, 1)), CPU)
    before = windows.batch(torch.tensor([600])).x.sum()
    data.values[:] = 1
    assert (before.item(), windows.batch(torch.tensor([600])).x.sum().item()) == (0, 500)
