from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation.splits import Cuts, held_out, last_share, split, step_numbers
from model.windows import WindowData
from pipeline.windows.grid import WindowConfig
from pipeline.windows.sliding import sliding_windows

MakeData = Callable[..., WindowData]


@given(steps=st.integers(1, 10_000), fraction=st.floats(0.01, 0.99), horizon=st.integers(0, 500))
def test_held_out_is_a_fraction_and_more_of_short_series(steps: int, fraction: float, horizon: int) -> None:
    count = held_out(steps, fraction, horizon)
    assert max(1, round(steps * fraction)) <= count <= steps
    assert count in {1, round(steps * fraction), 2 * horizon, steps // 4}


lengths = st.lists(st.integers(1, 120), min_size=1, max_size=4)


@given(
    lengths=lengths,
    horizon=st.integers(1, 8),
    cuts=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    breaks=st.sets(st.integers(1, 100)),
)
def test_no_target_crosses_a_split_time(
    make_data: MakeData, lengths: list[int], horizon: int, cuts: tuple[int, int], breaks: set[int]
) -> None:
    rows = sum(lengths)
    data = make_data(*[np.zeros(n) for n in lengths], seq_len=4, breaks=[row for row in breaks if row < rows])
    validation, test = (3_600_000 * step for step in sorted(cuts))
    try:
        parts = split(data, horizon, Cuts(validation, test))
    except ValueError as error:
        assert "too few windows" in str(error)  # noqa: PT017
        return
    ahead = np.arange(1, horizon + 1)
    bounds = ((parts.train, 0, validation), (parts.validation, validation, test), (parts.test, test, 2**62))
    for ends, begin, end in bounds:
        times = data.ts[ends[:, None] + ahead]
        assert ((times >= begin) & (times < end)).all()
        assert (data.run[ends[:, None] + ahead] == data.run[ends][:, None]).all()


def test_too_few_events_error_says_how_many_are_needed(make_data: MakeData) -> None:
    data = make_data(np.zeros(39), seq_len=24)
    assert len(split(data, 6, last_share(data, 0.2, 6)).validation) == 4, "a quarter of a series so short"
    nothing = sliding_windows([], np.zeros(0, np.int64), np.zeros((0, 1)), WindowConfig(seq_len=24))
    with pytest.raises(ValueError, match=r"^too few windows: 0 to train on"):
        split(nothing, 6, last_share(nothing, 0.2, 6))
    with pytest.raises(ValueError, match=r"needs 30 events without a break to train on .* and 6 more"):
        split(data, 6, last_share(data, 0.8, 6))


@pytest.mark.parametrize("freq", [None, "1h"])
def test_steps_of_series_with_jitter_are_counted_once(freq: str | None) -> None:
    """Two series, the second one an eighth of a step later and shorter, each event at its own second."""
    step, horizon, rng = 3_600_000, 6, np.random.default_rng(0)
    long, short = (step * np.arange(start, 200) + rng.integers(0, step // 8, 200 - start) for start in (0, 50))
    ts = np.concatenate([long, short + step // 8])
    names = ["a"] * len(long) + ["b"] * len(short)
    data = sliding_windows(names, ts, np.zeros((len(ts), 1)), WindowConfig(seq_len=24, freq=freq))
    every = np.arange(len(ts))
    assert len(np.unique(step_numbers(data, every))) == 200
    assert (np.diff(step_numbers(data, every[np.argsort(data.ts)])) >= 0).all(), "in order of time"
    cuts = last_share(data, 0.01, horizon)
    for series in range(2):
        own = (data.series == series) & (data.ts >= cuts.validation)
        assert own.sum() == held_out(200, 0.01, horizon) == 2 * horizon
    assert len(split(data, horizon, cuts).validation) == 2 * (horizon + 1)
