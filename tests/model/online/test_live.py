"""Live scores and intervals: the same as one step after another, whatever is computed together."""

from collections import defaultdict
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.online.batch import grade
from model.online.bounds import bounds
from model.online.live import Live
from model.online.scores import SUMS, Bucket
from model.online.steps import Between, scored_steps
from model.online.values import Observed

EVERY = 10
Reals = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Key = tuple[int, ...]


def a_stream(seed: int, series: int, steps: int, horizon: int, targets: int) -> Observed:
    """Steps of several series in a random order, with gaps, and with forecasts missing here and there."""
    rng = np.random.default_rng(seed)
    left, rows, numbers = dict.fromkeys(range(series), steps), [], []
    step = dict(zip(left, rng.integers(-5, 5, series).tolist(), strict=True))
    while left:
        each = int(rng.choice(list(left)))
        for _ in range(int(rng.integers(1, 4))):
            step[each] += 1 if rng.random() < 0.9 else int(rng.integers(2, horizon + 5))
            rows.append(each * targets)
            numbers.append(step[each])
            left[each] -= 1
            if not left[each]:
                del left[each]
                break
    count, scored = len(rows), len(scored_steps(horizon))
    forecast = rng.normal(size=(count, targets, scored))
    forecast[rng.random(count) < 0.1] = np.nan
    return Observed(
        row=np.array(rows),
        step=np.array(numbers),
        ts=np.array(numbers) * 3,
        value=rng.normal(size=(count, targets)),
        forecast=forecast,
        naive=rng.normal(size=(count, targets, scored)),
        by=rng.integers(1, 3, count).astype(np.uint32),
    )


def part(batch: Observed, start: int, stop: int) -> Observed:
    return Observed(**{each.name: getattr(batch, each.name)[start:stop] for each in fields(batch)})


def a_live(horizon: int, targets: int, series: int, coverage: float | None = 0.9) -> Live:
    live = Live(horizon, targets, 4, coverage, EVERY)
    for _ in range(series):
        live.store.allocate()
    return live


def graded(live: Live, batch: Observed, cuts: list[int]) -> tuple[list[bytes], list[tuple[int, Bucket]]]:
    """All results of a stream, computed in these parts."""
    margins, buckets = [], []
    scored = len(live.steps)
    for start, stop in zip([0, *cuts], [*cuts, len(batch.row)], strict=True):
        piece = part(batch, start, stop)

        def first(places: Ints, piece: Observed = piece) -> Reals:
            margins: Reals = np.abs(piece.value[places])[..., None, None] * np.ones((scored, 2)) + 0.5
            return margins

        found = grade(live, piece, first)
        margins += [each.tobytes() for each in found.margins]
        margins += [each.tobytes() for each in found.anomaly]
        buckets += [(start + place, bucket) for place, bucket in found.buckets]
    return margins, buckets


def described(bucket: Bucket) -> object:
    parts = [(each.target, each.by, each.sums.tobytes()) for each in bucket.parts]
    return bucket.start, bucket.until, parts, bucket.unscored, bucket.scale


@given(
    st.integers(0, 10_000),
    st.integers(1, 5),
    st.integers(1, 30),
    st.sampled_from([1, 3, 9, 20]),
    st.integers(1, 2),
    st.data(),
)
def test_results_do_not_depend_on_the_batches(
    seed: int, series: int, steps: int, horizon: int, targets: int, data: st.DataObject
) -> None:
    batch = a_stream(seed, series, steps, horizon, targets)
    count = len(batch.row)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, count - 1)), max_size=count)))
    cuts = [cut for cut in cuts if cut < count]
    at_once, in_parts = a_live(horizon, targets, series), a_live(horizon, targets, series)
    whole, pieces = graded(at_once, batch, []), graded(in_parts, batch, cuts)
    assert sorted(whole[0]) == sorted(pieces[0])
    assert [(place, described(each)) for place, each in whole[1]] == [
        (place, described(each)) for place, each in pieces[1]
    ]
    for row in range(0, series * targets, targets):
        names = list(at_once.store.fields)
        assert at_once.store.to_bytes(row, names) == in_parts.store.to_bytes(row, names)
        last, other = at_once.finish(row), in_parts.finish(row)
        assert (last and described(last)) == (other and described(other))


def by_hand(batch: Observed, live: Live) -> tuple[dict[Key, Reals], dict[Key, int]]:
    """Sums of count, squared and absolute error, the naive's too, one after another; and what was never observed."""
    sums: dict[Key, Reals] = defaultdict(lambda: np.zeros(5))
    unscored: dict[Key, int] = defaultdict(int)
    made: dict[Key, tuple[float, float, int]] = {}
    newest: dict[int, int] = {}
    for place, (row, step) in enumerate(zip(batch.row.tolist(), batch.step.tolist(), strict=True)):
        bucket = int(batch.ts[place]) // EVERY * EVERY
        for target in range(live.targets):
            for number, ahead in enumerate(live.steps):
                for passed in range(newest.get(row, step) + 1, step):
                    if made.pop((row, target, number, passed), None):
                        unscored[row, bucket, target, number] += 1
                if known := made.pop((row, target, number, step), None):
                    forecast, naive, by = known
                    value = batch.value[place, target]
                    error, other = value - forecast, value - naive
                    sums[row, bucket, target, by, number] += (1, error * error, abs(error), other * other, abs(other))
                forecast = batch.forecast[place, target, number]
                if not np.isnan(forecast):
                    made[row, target, number, step + ahead] = (
                        forecast,
                        batch.naive[place, target, number],
                        int(batch.by[place]),
                    )
        newest[row] = step
    for row, target, number, _ in made:
        last = max(int(ts) for each, ts in zip(batch.row, batch.ts, strict=True) if each == row)
        unscored[row, last // EVERY * EVERY, target, number] += 1
    return dict(sums), dict(unscored)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 30), st.sampled_from([1, 5, 12]), st.integers(1, 2))
def test_scores_are_those_counted_one_by_one(seed: int, series: int, steps: int, horizon: int, targets: int) -> None:
    batch = a_stream(seed, series, steps, horizon, targets)
    live = a_live(horizon, targets, series)
    _, closed = graded(live, batch, [len(batch.row) // 2] if len(batch.row) > 1 else [])
    buckets = [(int(batch.row[place]), bucket) for place, bucket in closed]
    buckets += [(row, last) for row in range(0, series * targets, targets) if (last := live.finish(row))]
    sums, unscored = by_hand(batch, live)
    found = {
        (row, bucket.start, each.target, each.by, number): each.sums[number, :5]
        for row, bucket in buckets
        for each in bucket.parts
        for number in range(len(live.steps))
        if each.sums[number, 0]
    }
    assert {key: values.tolist() for key, values in found.items()} == {
        key: values.tolist() for key, values in sums.items()
    }
    missed = {
        (row, bucket.start, target, number): count
        for row, bucket in buckets
        for target, counts in enumerate(bucket.unscored)
        for number, count in enumerate(counts)
        if count
    }
    assert missed == unscored


def test_rows_that_another_series_takes_over_begin_anew() -> None:
    """A partition that goes to another member leaves open buckets behind, of several versions too."""
    batch = a_stream(1, 1, 40, 1, 1)
    row = int(batch.row[0])
    live, fresh = a_live(1, 1, 1), a_live(1, 1, 1)
    graded(live, part(batch, 0, 12), [])
    assert live.scores
    assert live.scores.parked
    live.release(row)
    assert live.store.allocate() == row
    again, first = (graded(each, batch, []) for each in (live, fresh))
    assert again[0] == first[0]
    assert [described(bucket) for _, bucket in again[1]] == [described(bucket) for _, bucket in first[1]]


def test_an_interval_is_graded_by_the_bounds_that_were_issued() -> None:
    live = a_live(1, 1, 1)
    rng = np.random.default_rng(0)
    inside = intervals = 0
    width = winkler = 0.0
    issued = None
    for step in range(200):
        value, forecast = rng.normal(), 0.1
        if issued:
            lower, upper = issued
            intervals += 1
            inside += lower <= value <= upper
            width += upper - lower
            winkler += upper - lower + 20 * (max(value - upper, 0) + max(lower - value, 0))
        batch = Observed(
            row=np.array([0]),
            step=np.array([step]),
            ts=np.array([0]),
            value=np.array([[value]]),
            forecast=np.array([[[forecast]]]),
            naive=np.zeros((1, 1, 1)),
            by=np.ones(1, np.uint32),
        )
        result = grade(live, batch, lambda places: np.ones((len(places), 1, 1, 2)))
        low, high = bounds(batch.forecast, result.margins[:, :, 0], result.margins[:, :, 1])
        issued = float(low[0, 0, 0]), float(high[0, 0, 0])
    last = live.finish(0)
    assert last
    sums = dict(zip(SUMS, last.parts[0].sums[0].tolist(), strict=True))
    assert (sums["intervals"], sums["inside"]) == (intervals, inside)
    assert sums["width"] == pytest.approx(width, rel=1e-12)
    assert sums["winkler"] == pytest.approx(winkler, rel=1e-12)
    assert live.tally.graded == intervals
    assert live.tally.coverage == pytest.approx(inside / intervals)


@given(st.floats(-1e30, 1e30), st.floats(0, 2**100, width=32), st.floats(0, 2**100, width=32))
def test_bounds_are_rounded_outwards(forecast: float, lower: float, upper: float) -> None:
    low, high = bounds(np.array([forecast]), np.array([lower], np.float32), np.array([upper], np.float32))
    slack = (abs(forecast) + lower + upper) * 1e-15
    assert low[0] <= forecast - lower + slack
    assert high[0] >= forecast + upper - slack
    assert high[0] - low[0] <= (lower + upper) * 1.003 + 4 * slack + 2e-15


def test_bounds_are_short_and_may_be_clipped() -> None:
    low, high = bounds(
        np.array([1.23456789]), np.array([2.0], np.float32), np.array([1.0], np.float32), np.array([True])
    )
    assert (low[0], high[0]) == (0.0, 2.235)


def test_interpolation_is_exact_at_the_scored_steps() -> None:
    steps = scored_steps(24)
    scored = np.array([[1.1, 2.3, 0.7, 9.9, 3.3, 5.1]], np.float32)
    filled = Between(np.array(steps))(scored)
    assert filled.shape == (1, 24)
    assert (filled[0, np.array(steps) - 1] == scored[0]).all()
    assert filled[0, 2] == pytest.approx((2.3 + 0.7) / 2)


def test_scored_steps_are_eight_at_most() -> None:
    assert scored_steps(8) == (1, 2, 3, 4, 5, 6, 7, 8)
    assert scored_steps(24) == (1, 2, 4, 8, 16, 24)
    assert scored_steps(336) == (1, 2, 4, 8, 16, 32, 64, 336)
    assert all(len(scored_steps(horizon)) <= 8 for horizon in range(1, 800))
