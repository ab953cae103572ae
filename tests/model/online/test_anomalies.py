"""Scores of new actuals, and what is found of the data: by streaming made-up series through Anomalies."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.online.anomalies.anomalies import Anomalies
from model.online.anomalies.findings import DATA_FAULTS, Finding, sentence
from model.online.rounds import Rounds
from model.online.tracks import TrackStore

Floats = npt.NDArray[np.float64]
DAY, STEPS = 24, 600
HOUR = 3_600_000
ANY = st.floats(-1e30, 1e30) | st.sampled_from([0.0, 1.0, -1.0, 1e30, -1e30, 1e-30, 7.0])
MAYBE = ANY | st.just(float("nan"))


@dataclass
class Streamed:
    """What came of one series, by step."""

    scores: list[float] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)

    def begun(self) -> list[tuple[str, int]]:
        """Kinds, and the steps at which they were seen."""
        return [(finding.kind, finding.ts // HOUR) for finding in self.found if finding.phase == "begin"]


def streamed(
    values: Floats, day: int = DAY, error: Floats | None = None, swap: int = 10**9, naive_from: int = 0
) -> Streamed:
    """Stream a series, NaN where there is no event. Its forecast, unless errors are given, is the value of the step
    before moved as a day before. naive_from: the first step with a naive forecast, if later than the second day's."""
    anomalies = Anomalies(day)
    store = TrackStore(anomalies.fields, 1)
    rows, result = np.array([store.allocate()]), Streamed()
    index = np.where(np.isnan(values), 0, np.arange(len(values)))
    filled = values[np.maximum.accumulate(index)]
    naive = np.concatenate([np.full(day, np.nan), filled[day:] - filled[:-day]])
    naive[:naive_from] = np.nan
    if error is None:
        error = np.concatenate([[np.nan], np.diff(naive)])
    by = 1 + (np.arange(len(values)) >= swap)
    there = np.flatnonzero(~np.isnan(values))
    for start in range(0, len(there), 50):
        at, tracks = there[start : start + 50], store.gather(rows)
        none = np.full((len(at), 2), np.nan)
        score, found = anomalies.update(
            tracks, [1] * len(at), values[at], error[at], naive[at], none, at, at * HOUR, by[at]
        )
        store.scatter(rows, tracks)
        result.scores += score.tolist()
        result.found += found
    return result


def daily(steps: int = STEPS, level: float = 100.0, seed: int = 0) -> Floats:
    """A daily shape and a little noise."""
    noise = np.random.default_rng(seed).normal(size=steps)
    return level * (1 + 0.3 * np.sin(2 * np.pi * np.arange(steps) / DAY) + 0.02 * noise)


def test_a_clean_series_has_no_findings_and_few_scores_above_the_bound() -> None:
    result = streamed(daily(3000))
    assert not result.found
    assert 0 < np.mean(result.scores) < 1
    assert np.mean(np.array(result.scores) > 1) < 0.01


def test_a_spike_scores_far_above_the_bound_at_once_and_is_one_finding() -> None:
    values = daily()
    values[500] += 200
    result = streamed(values)
    assert result.scores[500] > 3
    begin, end = result.found
    assert (begin.kind, begin.phase, end.phase) == ("spike", "begin", "end")
    assert begin.since == 500 * HOUR
    assert begin.size == pytest.approx(200, rel=0.1)
    assert begin.usual == pytest.approx(values[500] - 200, rel=0.1)


@pytest.mark.parametrize("kind", ["spike", "level_shift", "unit_change"])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("day", [1, DAY])
@pytest.mark.parametrize("quality", [1.0, 6.0])
def test_a_finding_gives_what_was_measured_and_what_was_forecast_or_usual(
    kind: str, seed: int, day: int, quality: float
) -> None:
    """Also where forecasts are far better, or worse, than the naive ones, from which they then differ most."""
    rng = np.random.default_rng(seed)
    base = daily(900, seed=seed) + 25 * rng.normal(size=38).repeat(DAY)[:900] / quality
    if day == 1:
        base = 100 + rng.normal(size=900)
    error, values, at = 2 * rng.normal(size=900) * quality, base.copy(), 500 + 3 * seed
    if kind == "spike":
        values[at] += 300
    else:
        values[at:] = values[at:] + 150 if kind == "level_shift" else values[at:] * 1000
    error[at] += values[at] - base[at]
    begin, *ended = [each for each in streamed(values, day, error).found if each.kind == kind]
    since, seen = begin.since // HOUR, begin.ts // HOUR
    if kind == "spike":
        assert since == at
        assert begin.value == values[at]
        assert begin.usual == pytest.approx(values[at] - error[at])
    else:
        assert begin.value == pytest.approx(values[since : seen + 1].mean())
        if day > 1:
            assert begin.usual == pytest.approx(values[since - day : seen + 1 - day].mean())
        assert values[since - 30 : since].min() <= begin.usual <= values[since - 30 : since].max()
    if kind != "unit_change":
        assert begin.size == begin.value - begin.usual
    assert [(each.size, each.value, each.usual) for each in ended[:1]] == [begin[5:8]]


def test_a_level_shift_is_one_finding_and_then_the_new_normal() -> None:
    values = daily(900)
    values[500:] += 60
    result = streamed(values)
    begin, end = result.found
    assert (begin.kind, begin.since, begin.phase, end.phase) == ("level_shift", 500 * HOUR, "begin", "end")
    assert (begin.outcome, end.outcome) == (None, "settled")
    assert begin.size == pytest.approx(60, rel=0.1)
    assert begin.ts - begin.since <= 12 * HOUR
    assert max(result.scores[500:510]) > 1
    assert np.mean(np.array(result.scores[540:]) > 1) < 0.02


def test_a_level_that_goes_back_ends_its_shift() -> None:
    values = daily(900)
    values[500:515] += 60
    begin, end = streamed(values).found
    assert (begin.kind, begin.phase, end.phase) == ("level_shift", "begin", "end")
    assert 515 <= end.ts // HOUR <= 520
    assert end.outcome == "back"


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        (lambda x: 1000 * x, 1000),
        (lambda x: x / 1000, 1 / 1000),
        (lambda x: 60 * x, 60),
        (lambda x: x / 60, 1 / 60),
        (lambda x: 3.6 * x, 3.6),
        (lambda x: 1.8 * x + 32, 1.8),
    ],
    ids=["x1000", "/1000", "x60", "/60", "x3.6", "fahrenheit"],
)
def test_another_unit_is_told_from_a_level_shift(change: Callable[[Floats], Floats], factor: float) -> None:
    values = daily(900, level=20)
    values[500:] = change(values[500:])
    found = streamed(values).found
    assert [(finding.kind, finding.phase) for finding in found] == [("unit_change", "begin"), ("unit_change", "end")]
    assert found[0].size == pytest.approx(factor)
    assert found[0].usual == pytest.approx(20, rel=0.5)
    assert 500 <= found[0].ts // HOUR <= 512


@pytest.mark.parametrize("factor", [1000, 1 / 1000])
def test_a_unit_that_changes_back_ends(factor: float) -> None:
    values = daily(900)
    values[500:512] *= factor
    begin, end = streamed(values).found
    assert (begin.kind, begin.phase, end.phase) == ("unit_change", "begin", "end")
    assert 512 <= end.ts // HOUR <= 516


def test_a_stuck_value_begins_and_ends() -> None:
    values = daily()
    values[500:540] = values[499]
    begin, end = streamed(values).found
    assert (begin.kind, begin.since, begin.phase, end.phase) == ("stuck", 499 * HOUR, "begin", "end")
    assert begin.size == values[499]
    assert end.ts == 540 * HOUR


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3])
def test_intermittent_and_constant_series_are_not_stuck(share: float) -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random(3000) < share, rng.poisson(4, 3000) + 1.0, 0.0)
    assert "stuck" not in dict(streamed(values).begun())


def test_counts_are_not_stuck() -> None:
    values = np.random.default_rng(2).poisson(0.7, 3000).astype(float)
    assert "stuck" not in dict(streamed(values).begun())


def test_what_differs_after_more_missing_steps_than_ever_is_no_finding() -> None:
    values, often = daily(900), daily(900)
    often[100:500:100] = often[101:500:100] = often[102:500:100] = np.nan
    for missing in (values, often):
        missing[496:500], missing[500:504] = np.nan, missing[500:504] + 40
    assert not streamed(values).found
    assert streamed(often).found
    values[496:500] = daily(900)[496:500]
    assert streamed(values).found


def test_errors_worse_than_their_past_and_than_naive_are_a_drift_until_they_recover() -> None:
    rng = np.random.default_rng(5)
    values, error = daily(3000), rng.normal(size=3000)
    error[1000:1500] *= 8
    begin, end = (finding for finding in streamed(values, error=error).found if finding.kind == "drift")
    assert (begin.phase, end.phase, end.outcome) == ("begin", "end", "back")
    assert 1000 < begin.ts // HOUR < 1300
    assert 1000 < begin.since // HOUR < 1040, "when errors became worse, not when that was sure"
    assert end.since == begin.since
    assert 1500 < end.ts // HOUR < 1800
    assert begin.size > 2 * begin.usual


def drifts(error: Floats, **more: Any) -> list[tuple[str, int, int]]:
    """The phase, the step at which it was noticed, and that since which it is, of each drift."""
    found = streamed(more.pop("values", daily(len(error))), error=error, **more).found
    return [(each.phase, each.ts // HOUR, each.since // HOUR) for each in found if each.kind == "drift"]


@pytest.mark.parametrize("spike", [0, 1000])
def test_a_drift_lasts_as_long_as_errors_are_worse_and_no_spike_ends_it(spike: float) -> None:
    values, error = daily(6000), np.random.default_rng(5).normal(size=6000)
    values[2000] += spike
    error[1000:] *= 8
    error[2000] += spike
    [(phase, seen, _)] = drifts(error, values=values)
    assert (phase, seen < 1200) == ("begin", True)
    error[5000:] /= 8
    end = drifts(error, values=values)[-1]
    assert end[0] == "end"
    assert 5000 < end[1] < 5300


def test_another_version_ends_a_drift_and_is_judged_by_its_own_errors() -> None:
    error = np.random.default_rng(5).normal(size=3000)
    error[1000:] *= 8
    good, later = error.copy(), error.copy()
    good[1500:] /= 8
    later[1040:] /= 8
    begin, end = drifts(good, swap=1500)
    assert (begin[0], end) == ("begin", ("end", 1500, begin[2]))
    assert [each.outcome for each in streamed(daily(3000), error=good, swap=1500).found] == [None, "replaced"]
    first, end, again = drifts(error, swap=1500)
    assert (first, end, again[0]) == (begin, ("end", 1500, begin[2]), "begin")
    assert 1500 < again[2] < 1540
    assert 1596 <= again[1] < 1640
    assert drifts(error, swap=1100)[0][2] > 1100, "what the version before did is not counted in"
    assert drifts(later, swap=1040) == []


def test_nothing_is_found_before_there_is_a_week() -> None:
    values = daily(7 * DAY, seed=6)
    values[100] *= 1000
    values[120:140] = values[119]
    values[150:] *= 60
    assert not streamed(values).found


@pytest.mark.parametrize("day", [1, DAY])
@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_found_in_a_clean_series_whose_first_forecast_comes_after_long_windows(day: int, seed: int) -> None:
    """Two weeks fill a window, and first forecasts have no errors before them to be compared with."""
    values, window, rng = daily(900, seed=seed), 14 * DAY, np.random.default_rng(seed)
    error = 2 * rng.standard_t(3, size=900)
    error[:window] = np.nan
    result = streamed(values, day, error, naive_from=window)
    assert not result.found
    assert max(result.scores[:window]) < 3
    assert max(result.scores[window : window + 50]) < 3
    assert any(result.scores[window + 50 :])


def test_faults_are_found_from_a_week_of_forecasts_on() -> None:
    values, window, rng = daily(900), 14 * DAY, np.random.default_rng(1)
    values[[480, 600]] += 200
    values[400:430] = values[399]
    error = rng.normal(size=900)
    error[window:] += np.where(values > 200, 200, 0)[window:]
    error[:window] = np.nan
    assert streamed(values, DAY, error, naive_from=window).begun() == [("stuck", 407), ("spike", 602)]


def test_an_error_within_the_margins_is_no_anomaly() -> None:
    def score(margin: float) -> float:
        anomalies = Anomalies(1)
        store = TrackStore(anomalies.fields, 1)
        tracks, none = store.gather(np.array([store.allocate()])), np.full(1, np.nan)
        for step in range(300):
            error = np.array([(-1.0) ** step if step < 299 else 10.0])
            at, margins = np.array([step]), np.array([[1.0, margin]])
            result = anomalies.update(tracks, [1], np.zeros(1), error, none, margins, at, at, at)[0]
        return float(result[0])

    assert score(2.0) > 2
    assert score(20.0) < 1


@settings(max_examples=30)
@given(st.lists(st.tuples(*[ANY, MAYBE, MAYBE] * 3), min_size=1, max_size=60), st.sampled_from([1, 2, 24]))
def test_extreme_values_give_finite_results(steps: list[tuple[float, ...]], day: int) -> None:
    anomalies = Anomalies(day)
    store = TrackStore(anomalies.fields, 1)
    rows = np.array([store.allocate() for _ in range(3)])
    tracks = store.gather(rows)
    for step in range(300):
        value, error, naive = np.array(steps[step % len(steps)]).reshape(3, 3).T.copy()
        at = np.full(3, step)
        score, found = anomalies.update(tracks, [3], value, error, naive, np.full((3, 2), np.nan), at, at, at // 7)
        assert np.isfinite(score).all()
        assert (score >= 0).all()
        assert np.isfinite([[finding.size, finding.usual] for finding in found]).all()
        assert all(np.isfinite(array).all() for array in tracks.values())


def faulty(seed: int, steps: int) -> tuple[Floats, Floats, Floats]:
    """Values, errors and naive errors of eight series with all faults, and with stretches without forecasts."""
    rng = np.random.default_rng(seed)
    values = np.stack([daily(steps, seed=series) for series in range(8)])
    for series in range(8):
        since = rng.integers(steps - 150, steps - 40)
        values[series, since:] *= rng.choice([1, 1000, 1 / 60, 1.5])
        values[series, since - 20 : since] = rng.choice([values[series, since], 1e30, 0])
        values[series, since + rng.integers(5, 30)] += rng.choice([50, 1e6])
    values[7] = rng.poisson(0.8, steps)
    naive = np.concatenate([np.full((8, 24), np.nan), values[:, 24:] - values[:, :-24]], 1)
    error = rng.normal(size=values.shape) + np.nan_to_num(naive)
    error[:, steps - 220 :] *= rng.choice([1, 9], (8, 1))
    error[:, steps - rng.integers(1, 60) :] *= rng.choice([0.01, 1])
    error[rng.random((8, steps)) < rng.choice([0, 0.02])] = np.nan
    error[:, : rng.choice([0, 50])] = np.nan
    naive[np.isnan(error) & (rng.random((8, 1)) < 0.5)] = np.nan
    return values, error, naive


@settings(max_examples=4)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 12, 24]), st.integers(1, 400))
def test_results_are_a_track_s_own_to_the_bit_however_steps_are_put_together(seed: int, day: int, most: int) -> None:
    """Steps of eight series in a random order, some missing: one by one, and in batches, from bytes each time."""
    steps, rng, anomalies = 420, np.random.default_rng(seed), Anomalies(day)
    values, error, naive = faulty(seed, steps)
    row, step = rng.permutation(np.repeat(np.arange(8), steps)), np.empty(8 * steps, np.int64)
    for series in range(8):
        step[row == series] = np.arange(steps) + 50 * (np.arange(steps) > rng.integers(steps))
    turn = np.empty_like(row)
    for series in range(8):
        turn[row == series] = np.arange(steps)
    margins = rng.choice([np.nan, 1.0, 5.0], (8 * steps, 2))
    by = np.where(turn < rng.integers(steps // 2, steps, 8)[row], 5, 7) * (rng.random(8 * steps) > rng.choice([0, 0.1]))

    def run(cuts: list[int]) -> tuple[bytes, list[Finding], list[bytes]]:
        store = TrackStore(anomalies.fields, 1)
        for _ in range(8):
            store.allocate()
        names, scores, found = [*anomalies.fields], np.empty(8 * steps), []
        for start, stop in zip([0, *cuts], [*cuts, 8 * steps], strict=True):
            rounds = Rounds.of(row[start:stop])
            at, tracks = start + rounds.order, store.gather(rounds.rows)
            sizes = [part.stop - part.start for part in rounds.parts]
            value, of_model, of_naive = (part[row[at], turn[at]] for part in (values, error, naive))
            scores[at], new = anomalies.update(
                tracks, sizes, value, of_model, of_naive, margins[at], step[at], step[at] * HOUR, by[at]
            )
            store.scatter(rounds.rows, tracks)
            found += [finding._replace(row=int(at[finding.row])) for finding in new]
            if stop > start + 1:
                restored = TrackStore(anomalies.fields, 1)
                for series in range(8):
                    assert restored.from_bytes(restored.allocate(), names, store.to_bytes(series, names))
                store = restored
        return scores.tobytes(), found, [store.to_bytes(series, names) for series in range(8)]

    one_by_one = run([*range(1, 8 * steps)])
    cuts, at = [], 0
    while (at := at + int(rng.integers(1, most + 1))) < 8 * steps:
        cuts.append(at)
    in_batches = run(cuts)
    assert one_by_one[0] == in_batches[0]
    assert sorted(one_by_one[1]) == sorted(in_batches[1])
    assert one_by_one[2] == in_batches[2]
    assert len({finding.kind for finding in one_by_one[1]}) >= 2 or day > 12


def test_a_track_s_state_is_small() -> None:
    assert TrackStore(Anomalies().fields, 1).series_bytes <= 464


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (Finding(0, "spike", "begin", 9, 8, 12.0, 42.0, 30.0), "pump: 42 at 8, where 30 was forecast"),
        (
            Finding(0, "spike", "begin", 9, 8, 1e6, 1234567.8, 234567.8),
            "pump: 1,234,568 at 8, where 234,568 was forecast",
        ),
        (
            Finding(0, "level_shift", "begin", 9, 8, -5.0, 25.0, 30.0),
            "pump: the level fell by 5 at 8, from about 30 to 25",
        ),
        (
            Finding(0, "level_shift", "end", 9, 8, -5.0, 25.0, 30.0, "back"),
            "pump: the level is back where it was, 9; it began 8",
        ),
        (
            Finding(0, "level_shift", "end", 9, 8, -5.0, 25.0, 30.0, "settled"),
            "pump: the new level, about 25, is taken as usual from now on, 9; it began 8",
        ),
        (
            Finding(0, "stuck", "end", 9, 8, 12.0, 12.0, 3.0, "back"),
            "pump: the value changes again after 12, 9; it began 8",
        ),
    ],
)
def test_sentences(finding: Finding, expected: str) -> None:
    assert sentence(finding, "pump", str) == expected


def test_a_unit_s_factor_is_written_as_people_write_it() -> None:
    said = sentence(Finding(0, "unit_change", "begin", 9, 8, 1 / 60, 0.5, 30.0), "pump", str)
    assert said == "pump: values are 1/60 of what they were, about 0.5 instead of 30, since 8: another unit?"
    assert "unit_change" in DATA_FAULTS
    assert "level_shift" not in DATA_FAULTS
