from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation.splits import Cuts, held_out, last_share, split
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
