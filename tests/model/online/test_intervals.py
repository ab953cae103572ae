from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.online.intervals import Intervals
from model.online.steps import scored_steps
from model.online.tracks import Tracks, TrackStore

Errors = np.ndarray
HORIZON, SEASON = 24, 6
STEPS = scored_steps(HORIZON)


def new(intervals: Intervals, margins: np.ndarray) -> Tracks:
    tracks = {name: np.zeros((len(margins), *field.shape), field.dtype) for name, field in intervals.fields.items()}
    intervals.begin(tracks, margins)
    return tracks


def followed(intervals: Intervals, tracks: Tracks, error: Errors, issued: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The margins (R,H,2) that a step's errors (R,H) lead to."""
    steps = intervals.steps(error, np.isfinite(issued).all(axis=2), now)
    intervals.update(tracks, steps, issued)
    return intervals.margins(tracks, steps)


def served(intervals: Intervals, tracks: Tracks, errors: Errors, steps: Sequence[int], first: int = 0) -> np.ndarray:
    """The margins (T,R,H,2) issued for each of T steps, NaN for none; errors (T,R,H) come in turn, as they do live."""
    T, R, H = errors.shape
    issued = np.full((T + max(steps), R, H, 2), np.nan, np.float32)
    for t, error in enumerate(errors):
        now = np.full(R, first + t)
        margins = followed(intervals, tracks, error, issued[t], now)
        for place, step in enumerate(steps):
            issued[t + step, :, place] = margins[:, place]
    return issued[:T]


def covered(errors: Errors, issued: np.ndarray) -> np.ndarray:
    """The part of errors (T,R,H) inside, by step."""
    inside = (errors >= -issued[..., 0]) & (errors <= issued[..., 1])
    known = np.isfinite(errors) & np.isfinite(issued[..., 0])
    return np.asarray((inside & known).sum(axis=(0, 1)) / known.sum(axis=(0, 1)))


def drifting(rng: np.random.Generator, T: int, R: int) -> Errors:
    """Errors that grow with the step, have a season and a bias, and treble on the way; neighbours are alike."""
    noise = rng.standard_t(4, (T + HORIZON, R))
    sums = np.cumsum(noise, axis=0)
    scale = (1 + np.arange(T) % SEASON)[:, None] * np.where(np.arange(T) < T // 2, 1, 3)[:, None]
    errors = [0.3 + scale * (sums[HORIZON:] - sums[HORIZON - step : -step]) for step in STEPS]
    return np.stack(errors, axis=2)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_covers_what_it_should_at_every_step_while_errors_change(coverage: float) -> None:
    intervals = Intervals(STEPS, coverage, SEASON)
    errors = drifting(np.random.default_rng(1), 3000, 6)
    issued = served(intervals, new(intervals, np.ones((6, len(STEPS), 2))), errors, STEPS)
    assert covered(errors[300:], issued[300:]) == pytest.approx(coverage, abs=0.02)


def test_is_wider_soon_after_errors_grow_and_narrower_again_soon_after_they_shrink() -> None:
    intervals = Intervals([1], 0.9, SEASON * 4)
    rng, scale = np.random.default_rng(5), np.repeat([1, 4, 1], [1000, 20, 60])
    issued = served(
        intervals, new(intervals, np.full((20, 1, 2), 1.6)), rng.normal(size=(1080, 20, 1)) * scale[:, None, None], [1]
    )
    width = issued.sum(axis=3).mean(axis=(1, 2))
    assert width[1015:1021].mean() > 2 * width[900:1000].mean()
    assert width[1050:].mean() < 1.5 * width[900:1000].mean()


special = st.sampled_from([0.0, -0.0, 1e30, -1e30, 1e300, -1e300, np.inf, -np.inf, np.nan, 1e-300, 5e-324])
values = st.floats(-100, 100) | special


@given(
    hnp.arrays(np.float64, (40, 3, len(STEPS)), elements=values, fill=st.floats(-10, 10)), st.sampled_from([1, SEASON])
)
def test_no_errors_make_margins_infinite_or_cross(errors: Errors, season: int) -> None:
    intervals = Intervals(STEPS, 0.9, season)
    with np.errstate(over="ignore"):
        issued = served(intervals, new(intervals, np.ones((3, len(STEPS), 2))), errors, STEPS)[HORIZON:]
    assert np.isfinite(issued).all()
    assert (-issued[..., 0] <= issued[..., 1]).all()


@given(
    hnp.arrays(np.float64, (30, 5, len(STEPS)), elements=values, fill=st.floats(-10, 10)),
    hnp.arrays(np.bool_, (30, 5)),
    st.sampled_from([1, SEASON]),
)
def test_tracks_alone_and_together_are_equal_to_the_bit(errors: Errors, missed: np.ndarray, season: int) -> None:
    errors[missed] = np.nan
    intervals = Intervals(STEPS, 0.9, season)
    margins = np.abs(np.random.default_rng(2).normal(size=(5, len(STEPS), 2)))
    together = new(intervals, margins)
    issued = served(intervals, together, errors, STEPS)
    for row in range(5):
        alone = new(intervals, margins[row : row + 1])
        assert served(intervals, alone, errors[:, row : row + 1], STEPS).tobytes() == issued[:, row : row + 1].tobytes()
        for name, array in alone.items():
            assert array.tobytes() == together[name][row : row + 1].tobytes(), name


def test_a_state_goes_on_from_its_bytes() -> None:
    intervals = Intervals(STEPS, 0.9, SEASON)
    errors = drifting(np.random.default_rng(3), 400, 1)
    whole = served(intervals, new(intervals, np.ones((1, len(STEPS), 2))), errors, STEPS)
    store, names = TrackStore(intervals.fields, 1), list(intervals.fields)
    tracks = new(intervals, np.ones((1, len(STEPS), 2)))
    for t, error in enumerate(errors):
        now, row = np.array([t]), store.allocate()
        margins = followed(intervals, tracks, error, whole[t], now)
        if t + 1 < len(errors):
            assert margins[0, 0].tobytes() == whole[t + 1, 0, 0].tobytes()
        store.scatter(np.array([row]), tracks)
        data = store.to_bytes(row, names)
        other = TrackStore(intervals.fields, 1)
        row = other.allocate()
        assert other.from_bytes(row, names, data)
        tracks = other.gather(np.array([row]))


def test_begins_with_the_margins_it_is_given() -> None:
    intervals = Intervals(STEPS, 0.9, SEASON)
    margins = np.random.default_rng(4).uniform(1, 5, (7, len(STEPS), 2))
    unknown = np.full((7, len(STEPS)), np.nan)
    steps = intervals.steps(unknown, np.isfinite(unknown), np.zeros(7, np.int64))
    assert intervals.margins(new(intervals, margins), steps) == pytest.approx(margins, rel=1e-6)


def test_a_series_takes_at_most_1200_bytes() -> None:
    assert TrackStore(Intervals(scored_steps(24), 0.9, 24).fields, 1).series_bytes <= 1200


def test_between_scored_steps_margins_follow_the_season() -> None:
    """Errors of one place in the season are ten times as large: margins for it are, at steps that aren't scored too."""
    rng, T, intervals = np.random.default_rng(0), 3000, Intervals(STEPS, 0.9, SEASON)
    scale = np.where(np.arange(T + HORIZON) % SEASON == 3, 10, 1)
    errors = rng.normal(size=(T, 1, len(STEPS))) * scale[:T, None, None]
    tracks = new(intervals, np.ones((1, len(STEPS), 2)))
    issued = np.full((T + HORIZON, 1, len(STEPS), 2), np.nan, np.float32)
    inside: dict[int, list[bool]] = {step: [] for step in range(1, HORIZON + 1)}
    for t, error in enumerate(errors):
        steps = intervals.steps(error, np.isfinite(issued[t]).all(axis=2), np.array([t]))
        intervals.update(tracks, steps, issued[t])
        margins = intervals.margins(tracks, steps)
        for place, step in enumerate(STEPS):
            issued[t + step, :, place] = margins[:, place]
        every = intervals.between(intervals.seasonal(tracks, steps), margins)
        assert (every[..., np.array(STEPS) - 1] == margins.swapaxes(1, 2)).all()
        for step, kept in inside.items() if t > T // 2 else ():
            error = rng.normal() * scale[t + step]
            kept.append(bool(-every[0, 0, step - 1] <= error <= every[0, 1, step - 1]))
    assert [np.mean(kept) for kept in inside.values()] == pytest.approx([0.9] * HORIZON, abs=0.04)


def test_between_steps_margins_stay_finite() -> None:
    intervals = Intervals(STEPS, 0.9, SEASON)
    tracks = new(intervals, np.full((1, len(STEPS), 2), 1e30))
    tracks["scales"][:] = np.where(np.arange(tracks["scales"].shape[1]) % 2, 5, -5)
    steps = intervals.steps(np.full((1, len(STEPS)), np.nan), np.ones((1, len(STEPS)), bool), np.array([0]))
    assert np.isfinite(intervals.between(intervals.seasonal(tracks, steps), intervals.margins(tracks, steps))).all()
