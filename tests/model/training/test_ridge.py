from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.card import Card, InputSpec, OutputSpec
from model.networks.forecast import EnsembleMember, build_member
from model.networks.normalization import Pooled
from model.networks.protocol import Batch
from model.training.ridge import PENALTIES, solutions

STEPS, HORIZON = 6, 3


def linear(location: Literal["last", "mean", "season"], **settings: Any) -> EnsembleMember:
    card = Card(
        name="m", arch="linear", input=InputSpec(seq_len=STEPS), output=OutputSpec(horizon=HORIZON), trained_until=0
    )
    return build_member(
        card,
        {"arch": "linear", "location": location, **settings},
        Pooled(torch.tensor([1e-3]), torch.zeros(1), torch.ones(1)),
    )


def batch(numbers: np.random.Generator, rows: int, missing: float = 0) -> Batch:
    walk = torch.from_numpy(numbers.normal(size=(rows, STEPS + HORIZON, 1)).cumsum(axis=1)).float()
    return Batch(
        task="forecast",
        x=walk[:, :STEPS],
        y=walk[:, STEPS:],
        observed=torch.from_numpy(numbers.random((rows, HORIZON, 1)) >= missing),
        scale=torch.from_numpy(numbers.uniform(0.5, 2, (rows, 1, 1))).float(),
    )


def penalised(made: EnsembleMember, whole: Batch, weights: torch.Tensor) -> torch.Tensor:
    """What ridge regression is to make least, from the definition: the loss on the forecasts and the penalty."""
    z_BSF, loc, scale = made.normalisation(whole.x[:, -made.look :])
    assert whole.scale is not None
    read = z_BSF[..., 0].double() * scale[:, 0].double() / whole.scale[:, 0].double()
    wanted = ((whole.y - loc) / whole.scale)[..., 0].double()
    penalty = PENALTIES[2] * read.square().sum(0).mean()
    error: torch.Tensor = (read @ weights - wanted).square().sum() + penalty * weights.square().sum()
    return error


@pytest.mark.parametrize(
    ("location", "settings"), [("last", {}), ("mean", {"look": 5}), ("season", {"lag": 2})], ids=["last", "mean", "day"]
)
def test_ridge_solution_minimises_the_penalised_error(
    location: Literal["last", "mean", "season"], settings: dict[str, int]
) -> None:
    made, whole = linear(location, **settings), batch(np.random.default_rng(1), 200)
    halves = [
        replace(whole, **{name: getattr(whole, name)[part] for name in ("x", "y", "observed", "scale")})
        for part in (slice(0, 70), slice(70, None))
    ]
    found = list(solutions(made, lambda: halves))[2].double().requires_grad_()
    (slope,) = torch.autograd.grad(penalised(made, whole, found), found)
    assert float(slope.abs().max()) < 1e-3


def test_ridge_ignores_unobserved_targets() -> None:
    made, whole = linear("last"), batch(np.random.default_rng(2), 200, missing=0.3)
    assert whole.observed is not None
    other = replace(whole, y=torch.where(whole.observed, whole.y, 1e6))
    for first, second in zip(solutions(made, lambda: [whole]), solutions(made, lambda: [other]), strict=True):
        assert torch.equal(first, second)


def test_ridge_with_missing_targets_is_close_to_the_complete_solution() -> None:
    made = linear("last")
    whole, holed = (batch(np.random.default_rng(3), 5000, missing) for missing in (0, 0.2))
    without, with_holes = next(solutions(made, lambda: [whole])), next(solutions(made, lambda: [holed]))
    torch.testing.assert_close(with_holes, without, atol=0.05, rtol=0)


@given(scale=st.floats(1e-6, 1e6), shift=st.floats(-10, 10))
def test_ridge_is_invariant_to_scale_and_shift(scale: float, shift: float) -> None:
    made = linear("last")
    numbers = np.random.default_rng(4)
    plain = batch(numbers, 100)
    assert plain.scale is not None
    other = replace(plain, x=(plain.x + shift) * scale, y=(plain.y + shift) * scale, scale=plain.scale * scale)
    for first, second in zip(solutions(made, lambda: [plain]), solutions(made, lambda: [other]), strict=True):
        torch.testing.assert_close(first, second, atol=2e-3, rtol=1e-3)
