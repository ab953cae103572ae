import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation.promotion import by_origin, decide, required_steps

HORIZON = 12
Reals = npt.NDArray[np.float64]


def rough(numbers: np.random.Generator, size: int, lasting: float) -> Reals:
    """A series of variance one whose values last."""
    noise = numbers.normal(size=size)
    made = np.empty(size)
    made[0] = noise[0]
    for place in range(1, size):
        made[place] = lasting * made[place - 1] + np.sqrt(1 - lasting**2) * noise[place]
    return made


def rivals(seed: int, blocks: int, lasting: float, shared: float = 0.5) -> tuple[Reals, Reals]:
    """The losses of two equally good forecasters at origins a step apart, in good times and bad ones."""
    numbers, steps = np.random.default_rng(seed), blocks * 2 * HORIZON
    common, times = (rough(numbers, steps + HORIZON, lasting) for _ in range(2))
    errors = (
        np.sqrt(shared) * common + np.sqrt(1 - shared) * rough(numbers, steps + HORIZON, lasting) for _ in range(2)
    )
    first, second = (
        np.convolve((error * np.exp(times / 2)) ** 2, np.ones(HORIZON) / HORIZON, "valid")[:steps] for error in errors
    )
    return first, second


@pytest.mark.parametrize("lasting", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("blocks", [10, 30])
def test_false_promotion_rate_of_equal_challengers_is_at_most_5_percent(lasting: float, blocks: int) -> None:
    promoted = 0
    for seed in range(200):
        challenger, champion = rivals(seed, blocks, lasting)
        promoted += decide(challenger, champion, {"last": champion + 9}, HORIZON).decision == "promote"
    assert promoted <= 10


@pytest.mark.parametrize("blocks", [10, 30])
def test_clearly_better_challengers_are_promoted_and_worse_ones_never(blocks: int) -> None:
    better = worse = 0
    for seed in range(50):
        challenger, champion = rivals(seed, blocks, 0.5, shared=0.9)
        better += decide(0.6 * challenger, champion, {"last": champion + 9}, HORIZON).decision == "promote"
        worse += decide(1.2 * challenger, champion, {"last": champion + 9}, HORIZON).decision == "promote"
    assert better > 40
    assert worse == 0


def test_too_few_blocks_are_undecided_however_large_the_gain() -> None:
    challenger, champion = rivals(1, 9, 0.5)
    verdict = decide(challenger / 100, champion, {"last": champion}, HORIZON)
    assert verdict.decision == "undecided"
    assert "origins are too few to decide, 10 are needed" in verdict.why
    assert required_steps(HORIZON) == 10 * 24 + 11


def test_a_naive_forecast_better_than_the_challenger_takes_its_place() -> None:
    champion, _ = rivals(1, 60, 0.5)
    challenger = champion * np.random.default_rng(0).uniform(0.3, 0.7, len(champion))
    naive = {"last": champion, "day": champion / 3, "week": champion / 4}
    won = decide(challenger, champion, naive | {"day": champion / 1.5, "week": champion}, HORIZON, ["last", "day"])
    lost = decide(challenger, champion, naive, HORIZON, ["last", "day"])
    assert (won.decision, won.contender) == ("promote", "challenger")
    assert (lost.decision, lost.contender) == ("promote", "day")
    assert lost.gain == pytest.approx(2 / 3)
    assert "week, has" in lost.why
    assert lost.why.endswith("which a model with these windows can't be")


def test_a_naive_forecast_replaces_a_champion_only_if_it_is_surely_better() -> None:
    champion, other = rivals(1, 30, 0.5)
    for naive in (champion, other):
        kept = decide(champion + 9, champion, {"last": naive}, HORIZON, ["last"])
        assert (kept.decision, kept.contender) == ("keep", "last")
    far_worse = decide(9 * champion, 9 * champion, {"last": champion}, HORIZON, ["last"])
    assert (far_worse.decision, far_worse.contender) == ("promote", "last")


@given(seed=st.integers(0, 99), scale=st.floats(1e-6, 1e6))
def test_promotion_decision_is_scale_invariant_and_deterministic(seed: int, scale: float) -> None:
    challenger, champion = rivals(seed, 12, 0.9)
    once, again = (
        decide(challenger * unit, champion * unit, {"last": champion * unit}, HORIZON) for unit in (1.0, scale)
    )
    assert (once.decision, once.blocks) == (again.decision, again.blocks)
    assert once.gain == pytest.approx(again.gain)
    assert once.low == pytest.approx(again.low, abs=1e-6)
    assert decide(challenger, champion, {"last": champion}, HORIZON) == once


def test_champion_without_error_is_kept() -> None:
    nothing = np.zeros(24 * HORIZON)
    assert decide(nothing, nothing, {"last": nothing + 1}, HORIZON).decision == "keep"


def test_by_origin_averages_losses_at_the_same_origin() -> None:
    origins, losses = by_origin(np.array([7, 3, 7, 5]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert origins.tolist() == [3, 5, 7]
    assert losses.tolist() == [2.0, 4.0, 2.0]
