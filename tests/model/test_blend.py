import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.blend import weigh


@given(seed=st.integers(0, 2**32 - 1), members=st.integers(1, 5))
def test_the_mean_is_no_worse_than_its_best_member(seed: int, members: int) -> None:
    numbers = np.random.default_rng(seed)
    errors = numbers.normal(size=(members, 50)) * numbers.uniform(0.5, 2, (members, 1))
    weights = weigh(errors)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert ((weights @ errors) ** 2).mean() <= (errors**2).mean(axis=1).min() * (1 + 1e-9)


def test_opposite_errors_cancel_and_a_copy_or_a_fool_adds_nothing() -> None:
    error = np.array([1.0, -2.0, 3.0])
    assert weigh(np.stack([error, -error])).tolist() == [0.5, 0.5]
    assert weigh(np.stack([error, error, 9 * error])).tolist() == [1.0, 0.0, 0.0]
