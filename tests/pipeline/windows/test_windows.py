"""Windows: the stream and the batch give the same bits; each rule by an example; the grid."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import get_args
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import examples

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import Event
from pipeline.state.records import encode_series
from pipeline.windows.arrays.table import ROW_BYTES
from pipeline.windows.batch import Dropped, Section, Sections, SeriesState, Silence, Windows
from pipeline.windows.choices import Aggregate
from pipeline.windows.grid import Counts, WindowConfig
from pipeline.windows.sliding import SlidingWindows, sliding_windows
from pipeline.windows.snapshot import Snapshot
from pipeline.windows.steps import Grid
from pipeline.windows.streaming import WindowStore

MINUTE = 60_000
START = 1_700_000_040_000  # a full minute
FREQS = ("250ms", "7s", "30m", "1h", "1d", "1w", "1mo", "5mo", "1y")
PHASES = [
    *((freq, None) for freq in FREQS),
    ("B", None),
    ("1h", "30m"),
    ("B", "16h"),
    ("1mo", "-1d"),
    ("3mo", "2mo14d"),
]
STRIDES = (1, 1, 1, 2, 3, 5, 12, 0, -1, -4)


@st.composite
def configs(draw: st.DrawFn) -> WindowConfig:
    freq, offset = draw(st.just((None, None)) | st.sampled_from(PHASES))
    return WindowConfig(
        seq_len=draw(st.integers(2, 8)),
        features=("flow", "heat", "load")[: draw(st.integers(1, 3))],
        freq=freq,
        offset=offset,
        max_gap=draw(st.integers(0, 4)),
        lateness=draw(st.sampled_from((0, 1, 3))) * length(freq),
        aggregate=draw(st.none() | st.sampled_from(get_args(Aggregate))) if freq else None,
    )


def length(freq: str | None) -> int:
    """About how long a step is, in milliseconds."""
    grid = Grid.parse(freq or "1s")
    return grid.milliseconds or grid.months * 30 * 86_400_000


@st.composite
def streams(draw: st.DrawFn, config: WindowConfig) -> list[Event]:
    """Several series, each in legs of equal strides (holes, repeats, steps back), finely interleaved."""
    legs = st.lists(st.tuples(st.sampled_from(STRIDES), st.integers(1, 90)), min_size=1, max_size=5)
    series = draw(st.lists(legs, min_size=1, max_size=4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    waiting = [_events(f"series {number}", each, config, random) for number, each in enumerate(series)]
    turns = random.permutation(np.repeat(np.arange(len(waiting)), [len(events) for events in waiting]))
    return [waiting[turn].pop() for turn in turns]


def _events(
    name: str, legs: Sequence[tuple[int, int]], config: WindowConfig, random: np.random.Generator
) -> list[Event]:
    strides = np.concatenate([np.full(count, stride, np.int64) for stride, count in legs])
    grid = config.grid or Grid.parse("1s")
    step = grid.index(START) + np.cumsum(strides)
    ts = grid.time(step) + (random.uniform(-0.5, 0.4999, len(step)) * grid.milliseconds).astype(np.int64)
    size = (len(step), len(config.features))
    values = random.normal(size=size) * 10.0 ** random.integers(-44, 37, size)
    kind = random.integers(0, 4)  # decimals of a few digits and float32 are kept in fewer bytes
    if kind == 1:
        values = np.round(random.normal(size=size) * 1000, random.integers(0, 9))
    elif kind == 2:
        values = values.astype(np.float32).astype(np.float64)
    elif kind == 3:
        values = np.where(random.uniform(size=size) < 0.9, np.round(values % 100, 3), values)
    rows = zip(ts.tolist(), values.tolist(), strict=True)
    return [Event(name, at, tuple(row)) for at, row in rows][::-1]


def batch(events: Sequence[Event], config: WindowConfig, partition: Sequence[int] = ()) -> SlidingWindows:
    values = np.array([event.values for event in events]).reshape(len(events), len(config.features))
    ts = np.array([event.ts for event in events], np.int64)
    places = np.array(partition, np.int64) if partition else None
    return sliding_windows([event.series for event in events], ts, values, config, places)


def stream(
    events: Sequence[Event],
    config: WindowConfig,
    take: int = 1000,
    restart: int = 1000,
    idle: int | None = None,
    limit: int = 100,
    short: bool = False,
) -> tuple[Windows, Counts]:
    """All windows, taken after every `take` events; after every `restart` events a new store goes on from states."""
    store, taken, counts = WindowStore(config, idle, limit, short=short), [], Counter[str]()
    for offset, event in enumerate(events):
        with contextlib.suppress(InvalidEvent):  # older than the window, or a sum beyond float32, or a series too many
            store.push(event, offset)
        if offset % take == 0:
            taken.append(store.take())
        if offset % restart == 0:
            taken.append(store.take())
            counts.update(asdict(store.counts))
            store, old = WindowStore(config, idle, limit, short=short), store
            store.stream_time = old.stream_time
            store.restore({name: of(old, name) for name in old})
    counts.update(asdict(store.counts))
    return Windows.concat([*taken, store.take()]), Counts(**counts)


@given(st.data(), configs(), st.integers(1, 200), st.integers(1, 400))
def test_short_windows_are_those_of_a_shorter_look_back(
    data: st.DataObject, config: WindowConfig, take: int, restart: int
) -> None:
    events = data.draw(streams(config))
    all_of_them, _ = stream(events, config, take, restart, short=True)
    for length in np.unique(all_of_them.length[all_of_them.length > 1]).tolist():
        shorter, _ = stream(events, replace(config, seq_len=length), take, restart)
        known = {(name, ts): row for row, (name, ts) in enumerate(zip(shorter.series, shorter.ts, strict=True))}
        for row in np.flatnonzero(all_of_them.length == length):
            same = known[all_of_them.series[row], all_of_them.ts[row]]
            np.testing.assert_array_equal(bits(all_of_them.x[row, -length:]), bits(shorter.x[same]))
            np.testing.assert_array_equal(all_of_them.observed[row, -length:], shorter.observed[same])
            assert (all_of_them.x[row, :-length] == all_of_them.x[row, -length]).all()
            assert not all_of_them.observed[row, :-length].any()
            assert all_of_them.start[row] == shorter.start[same]


def of(store: WindowStore, series: str) -> SeriesState:
    state = store.state(series)
    assert state is not None
    return state


def bits(array: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    assert array.dtype == np.float64
    return array.view(np.uint64)


def of_minutes(*minutes: float, series: str = "a") -> list[Event]:
    """An event at each of the minutes after START, its value the minute."""
    return [Event(series, START + round(minute * MINUTE), (minute,)) for minute in minutes]


@given(st.data(), configs(), st.integers(1, 200), st.integers(1, 400))
def test_stream_and_batch_give_the_same_windows(
    data: st.DataObject, config: WindowConfig, take: int, restart: int
) -> None:
    events = data.draw(streams(config))
    expected = batch(events, config)
    streamed, counts = stream(events, config, take, restart)
    if not config.reorders:
        assert [events[offset].ts for offset in streamed.offset] == streamed.ts.tolist()
    assert counts == expected.counts
    order = np.argsort([expected.names.index(series) for series in streamed.series], kind="stable")
    ends = expected.ends
    assert [streamed.series[at] for at in order] == [expected.names[number] for number in expected.series[ends]]
    np.testing.assert_array_equal(bits(streamed.x[order]), bits(expected.x(ends)))
    np.testing.assert_array_equal(streamed.observed[order], expected.x_observed(ends))
    np.testing.assert_array_equal(streamed.step[order], expected.step[ends])
    np.testing.assert_array_equal(streamed.ts[order], expected.ts[ends])


@given(st.data(), configs())
@settings(max_examples=examples(50))
def test_each_partition_has_a_stream_time_of_its_own(data: st.DataObject, config: WindowConfig) -> None:
    parts = [data.draw(streams(config)) for _ in range(2)]
    renamed = [
        Event(f"{event.series} of {number}", event.ts, event.values)
        for number, events in enumerate(parts)
        for event in events
    ]
    together = batch(renamed, config, [number for number, events in enumerate(parts) for _ in events])
    alone = [batch(events, config) for events in parts]
    assert len(together) == sum(map(len, alone))
    x = np.concatenate([each.x(each.ends) for each in alone])
    np.testing.assert_array_equal(bits(together.x(together.ends)), bits(x))


@given(st.data(), configs())
@settings(max_examples=examples(50))
def test_chunks_and_restarts_do_not_change_windows(data: st.DataObject, config: WindowConfig) -> None:
    events = data.draw(streams(config))
    idle = data.draw(st.none() | st.integers(1, 40).map(lambda steps: config.max_delay + steps * length(config.freq)))
    limit = data.draw(st.integers(1, 5))
    whole, _ = stream(events, config, idle=idle, limit=limit)
    take, restart = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 100))
    pieces, _ = stream(events, config, take, restart, idle, limit)
    assert whole.series == pieces.series
    for name in ("x", "observed", "step", "ts", "start", "spacing", "offset"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name), name)


@given(st.data(), configs())
@settings(max_examples=examples(50))
def test_the_layout_of_sliding_windows(data: st.DataObject, config: WindowConfig) -> None:
    windows = batch(data.draw(streams(config)), config)
    follows = np.diff(windows.run) == 0
    assert (np.diff(windows.step)[follows] == 1).all()
    assert (np.diff(windows.ts)[follows] > 0).all()
    assert (np.diff(windows.series) >= 0).all()
    assert (np.diff(windows.run) >= 0).all()
    assert windows.observed[windows.ends].all()
    assert (windows.run[windows.ends] == windows.run[windows.ends - config.seq_len + 1]).all()


def test_every_event_is_a_step_without_a_freq() -> None:
    streamed, counts = stream(of_minutes(0, 1, 7, 7.5), WindowConfig(seq_len=3))
    assert streamed.x.tolist() == [[[0], [1], [7]], [[1], [7], [7.5]]]
    assert streamed.step.tolist() == [2, 3]
    assert streamed.spacing.tolist() == [6 * MINUTE, MINUTE // 2]
    assert (streamed.start - streamed.ts).tolist() == streamed.spacing.tolist()
    assert streamed.observed.all()
    assert counts == Counts(accepted=4)


def test_without_a_freq_an_event_must_be_later_than_the_last() -> None:
    streamed, counts = stream(of_minutes(0, 5, 3, 5, 6), WindowConfig(seq_len=3))
    assert streamed.x.tolist() == [[[0], [5], [6]]]
    assert counts == Counts(accepted=3, late=1, duplicate=1)


def test_events_belong_to_the_nearest_step_and_keep_their_own_time() -> None:
    events = of_minutes(-0.2, 1.49, 1.5)  # steps 0, 1, 2
    streamed, _ = stream(events, WindowConfig(seq_len=2, freq="1m"))
    first = START // MINUTE
    assert streamed.step.tolist() == [first + 1, first + 2]
    assert streamed.ts.tolist() == [event.ts for event in events[1:]]
    assert streamed.spacing.tolist() == [MINUTE, MINUTE]


def test_a_gap_is_filled_on_the_next_real_step_which_alone_ends_a_window() -> None:
    store = WindowStore(WindowConfig(seq_len=3, freq="1m", max_gap=2))
    for event in of_minutes(0, 1):
        store.push(event)
    assert len(store.take()) == 0
    store.push(Event("a", START + 4 * MINUTE, (7.0,)), offset=17)
    windows = store.take()
    assert windows.x.tolist() == [[[3], [5], [7]]]
    assert windows.observed.tolist() == [[[False], [False], [True]]]
    assert windows.offset.tolist() == [17]
    assert store.counts == Counts(accepted=3, filled=2)


def test_filling_is_linear_in_each_feature() -> None:
    config = WindowConfig(seq_len=5, features=("up", "down"), freq="1s")
    windows = batch([Event("a", 0, (0.1, 8.0)), Event("a", 4000, (0.5, -8.0))], config).x(np.array([4]))
    np.testing.assert_allclose(windows[0].T, [[0.1, 0.2, 0.3, 0.4, 0.5], [8.0, 4.0, 0.0, -4.0, -8.0]], rtol=1e-6)


def test_filling_spans_the_range_of_float32() -> None:
    largest = float(np.finfo(np.float32).max)
    streamed, _ = stream([Event("a", 0, (-largest,)), Event("a", 2000, (largest,))], WindowConfig(seq_len=3, freq="1s"))
    assert streamed.x[0, 1, 0] == 0


def test_a_longer_gap_empties_the_window() -> None:
    streamed, counts = stream(of_minutes(0, 1, 5, 6), WindowConfig(seq_len=2, freq="1m", max_gap=2))
    assert streamed.x.tolist() == [[[0], [1]], [[5], [6]]]
    assert counts == Counts(accepted=4, reset=1)


def test_no_gap_is_filled_with_max_gap_0() -> None:
    _, counts = stream(of_minutes(0, 2), WindowConfig(seq_len=2, freq="1m", max_gap=0))
    assert counts == Counts(accepted=2, reset=1)


def test_a_gap_longer_than_the_window_and_its_slack_is_filled() -> None:
    events = of_minutes(0, 500)
    config = WindowConfig(seq_len=3, freq="1m", max_gap=499)
    streamed, counts = stream(events, config)
    assert streamed.x.tolist() == [[[498], [499], [500]]]
    assert counts.filled == 499


def test_late_and_duplicate_events_are_counted_and_dropped() -> None:
    streamed, counts = stream(of_minutes(0, 2, 1, 2.2, 3), WindowConfig(seq_len=4, freq="1m"))
    assert streamed.x.tolist() == [[[0], [1], [2], [3]]]
    assert streamed.observed.ravel().tolist() == [True, False, True, True]
    assert counts == Counts(accepted=3, late=1, duplicate=1, filled=1)


def minutes_of(windows: Windows) -> list[list[float]]:
    rows: list[list[float]] = windows.x[:, :, 0].tolist()
    return rows


def test_with_lateness_events_wait_until_stream_time_is_that_far_past_them() -> None:
    store = WindowStore(WindowConfig(seq_len=3, freq="1m", lateness=2 * MINUTE))
    given = [store.push(event, offset) for offset, event in enumerate(of_minutes(0, 2, 1, 1.1, 3, 4, 0))]
    assert given == [True, True, True, False, True, True, False]
    windows = store.take()
    assert minutes_of(windows) == [[0, 1, 2]]
    assert windows.offset.tolist() == [5], "the record that moved stream time completes a window"
    assert store.counts == Counts(accepted=3, late=1, duplicate=1)


def test_above_the_limit_of_waiting_steps_the_earliest_are_taken_before_their_time() -> None:
    config = WindowConfig(seq_len=2, freq="1m", lateness=60 * MINUTE)
    store = WindowStore(config, limit=1, waiting_limit=3)
    given = [store.push(event, offset) for offset, event in enumerate(of_minutes(5, 6, 4, 7, 8, 4, 9))]
    assert given == [True, True, True, True, True, False, True]
    assert minutes_of(store.take()) == [[4, 5], [5, 6]]
    assert store.counts == Counts(accepted=3, late=1, early=3)
    state = store.state("a")
    assert state
    assert [pending.place - state.step for pending in state.pending] == [1, 2, 3]


def test_a_step_of_each_series_may_wait() -> None:
    """So a step that is still open is never taken."""
    config = WindowConfig(seq_len=2, freq="1m", aggregate="sum")
    store = WindowStore(config, limit=4, waiting_limit=1)
    for name in "abcd":
        for event in of_minutes(0.1, 0.9, series=name):
            store.push(event)
    assert store.counts == Counts()
    for name in "abcd":
        store.push(of_minutes(1, series=name)[0])
    assert store.counts == Counts(accepted=4)


@given(st.data())
def test_a_limit_of_waiting_steps_survives_a_restart(data: st.DataObject) -> None:
    config = data.draw(configs().filter(lambda config: config.reorders))
    events = data.draw(streams(config))
    whole, limit = WindowStore(config, waiting_limit=5, limit=5), data.draw(st.integers(0, len(events)))
    first, second = (WindowStore(config, waiting_limit=5, limit=5) for _ in range(2))
    pushed(whole, events)
    pushed(first, events[:limit])
    second.restore({name: of(first, name) for name in first})
    second.stream_time = first.stream_time
    pushed(second, events[limit:])
    assert first.counts.early + second.counts.early == whole.counts.early
    assert {name: _pending(whole, name) for name in whole} == {name: _pending(second, name) for name in second}


def pushed(store: WindowStore, events: Sequence[Event]) -> None:
    for event in events:
        with contextlib.suppress(InvalidEvent):
            store.push(event)


def _pending(store: WindowStore, name: str) -> list[int]:
    state = store.state(name)
    assert state
    return [each.place for each in state.pending]


def test_another_series_advances_stream_time_too() -> None:
    store = WindowStore(WindowConfig(seq_len=2, freq="1m", lateness=2 * MINUTE))
    for event in [*of_minutes(1, 0), *of_minutes(3, series="b")]:
        store.push(event)
    assert minutes_of(store.take()) == [[0, 1]]


@pytest.mark.parametrize(
    ("aggregate", "made"),
    [("mean", [2, 5]), ("sum", [6, 5]), ("last", [1, 5]), ("count", [3, 1]), ("min", [1, 5]), ("max", [3, 5])],
)
def test_events_of_a_step_are_aggregated(aggregate: Aggregate, made: list[float]) -> None:
    config = WindowConfig(seq_len=2, freq="10m", aggregate=aggregate)
    store, first = WindowStore(config), START // (10 * MINUTE) * 10 * MINUTE
    for minute, value in [(0, 2.0), (9.9, 1.0), (4, 3.0), (15, 5.0), (20, 0.0), (14, 9.0)]:
        store.push(Event("a", first + round(minute * MINUTE), (value,)))
    windows = store.take()
    assert minutes_of(windows) == [made]
    assert (windows.ts.tolist(), windows.start.tolist()) == ([first + 10 * MINUTE], [first + 20 * MINUTE])
    assert store.counts == Counts(accepted=2, late=1)


def test_a_sum_beyond_float32_is_invalid() -> None:
    store = WindowStore(WindowConfig(seq_len=2, freq="1m", aggregate="sum"))
    store.push(Event("a", START, (3e38,)))
    with pytest.raises(InvalidEvent, match="out_of_range"):
        store.push(Event("a", START, (3e38,)))
    for event in of_minutes(1, 2):
        store.push(event)
    assert minutes_of(store.take()) == [[np.float32(3e38), 1]]


@pytest.mark.parametrize(("freq", "minute"), [("1m", 5), (None, 4.9)])
def test_an_event_before_the_whole_window_is_invalid(freq: str | None, minute: float) -> None:
    store = WindowStore(WindowConfig(seq_len=5, freq=freq))
    for event in of_minutes(*range(11)):
        store.push(event)
    assert not store.push(of_minutes(6.1)[0])
    with pytest.raises(InvalidEvent, match="bad_time"):
        store.push(of_minutes(minute)[0])
    assert (store.counts.accepted, store.counts.late) == (11, 2)


def test_an_idle_series_expires_by_stream_time_and_frees_its_row() -> None:
    store = WindowStore(WindowConfig(seq_len=2), idle=10 * MINUTE, limit=2)
    for event in [*of_minutes(0, 1), *of_minutes(5, 11, series="b")]:
        store.push(event)
    with pytest.raises(InvalidEvent, match="series_limit"):
        store.push(of_minutes(11, series="c")[0])
    store.snapshot()
    store.push(of_minutes(12, series="c")[0])
    assert list(store) == ["b", "c"]
    assert store.dirty() == ["a", "c"]
    assert store.state("a") is None
    store.push(of_minutes(13, series="c")[0])
    assert minutes_of(store.take()) == [[0, 1], [5, 11], [12, 13]]


def test_an_expired_series_restarts_without_its_sections() -> None:
    store = WindowStore(WindowConfig(seq_len=2), idle=10 * MINUTE)
    store.push(of_minutes(0)[0])
    sections = {"scores": Section(1, b"x")}
    store.restore({"a": replace(of(store, "a"), sections=sections)})
    assert of(store, "a").sections == sections
    for event in [*of_minutes(11, series="b"), *of_minutes(12)]:
        store.push(event)
    assert of(store, "a").sections == {}


def test_a_lower_limit_keeps_the_restored_series() -> None:
    store, smaller = WindowStore(WindowConfig(seq_len=2)), WindowStore(WindowConfig(seq_len=2), limit=1)
    for event in [*of_minutes(0), *of_minutes(0, series="b")]:
        store.push(event)
    smaller.restore({name: of(store, name) for name in store})
    assert all(smaller.push(of_minutes(1, series=name)[0]) for name in "ab")
    with pytest.raises(InvalidEvent, match="series_limit"):
        smaller.push(of_minutes(1, series="c")[0])


def test_an_event_beyond_the_series_limit_still_advances_stream_time() -> None:
    store = WindowStore(WindowConfig(seq_len=2), idle=10 * MINUTE, limit=1)
    store.push(of_minutes(0)[0])
    for minute in (5, 11):
        with contextlib.suppress(InvalidEvent):
            store.push(of_minutes(minute, series=f"at {minute}")[0])
    assert list(store) == ["at 11"]


def test_idle_must_be_longer_than_a_step_may_be_delayed() -> None:
    with pytest.raises(ValueError, match="idle"):
        WindowStore(WindowConfig(seq_len=2, freq="1m", aggregate="mean", lateness=MINUTE), idle=2 * MINUTE)


def test_a_calendar_step_begins_and_ends_with_its_month() -> None:
    config = WindowConfig(seq_len=2, freq="1mo")
    days = [(2023, 12, 5), (2024, 1, 31), (2024, 2, 1)]
    events = [Event("a", round(datetime(*day, tzinfo=UTC).timestamp() * 1000), (1.0,)) for day in days]
    streamed, counts = stream(events, config)
    assert [datetime.fromtimestamp(start / 1000, UTC).day for start in streamed.start.tolist()] == [1, 1]
    assert (streamed.spacing / 86_400_000).tolist() == [29, 31]
    assert counts == Counts(accepted=3)


def test_series_do_not_mix() -> None:
    events = [event for pair in zip(of_minutes(0, 1), of_minutes(5, 6, series="b"), strict=True) for event in pair]
    streamed, _ = stream(events, WindowConfig(seq_len=2, freq="1m"))
    assert streamed.series == ["a", "b"]
    assert streamed.x.tolist() == [[[0], [1]], [[5], [6]]]
    assert streamed.offset.tolist() == [2, 3]


def test_no_windows_still_have_shapes() -> None:
    config = WindowConfig(seq_len=5, features=("flow", "heat"))
    store = WindowStore(config)
    store.push(Event("a", START, (1.0, 2.0)))
    taken, none = store.take(), batch([], config)
    for windows in (taken.x, taken.observed, none.x(none.ends), none.x_observed(none.ends)):
        assert windows.shape == (0, 5, 2)
    assert taken.step.shape == taken.ts.shape == taken.spacing.shape == taken.offset.shape == none.step.shape == (0,)
    assert len(taken) == len(none) == 0


def test_a_series_changes_when_a_step_is_added() -> None:
    store = WindowStore(WindowConfig(seq_len=2))
    for event in [*of_minutes(1), *of_minutes(1, series="b")]:
        store.push(event)
    assert store.dirty() == ["a", "b"]
    store.snapshot()
    for event in [*of_minutes(0, 1), *of_minutes(2, series="b")]:
        store.push(event)
    assert store.dirty() == ["b"]
    assert list(store) == ["a", "b"]
    assert len(store) == 2


def test_a_state_holds_no_more_than_a_window() -> None:
    store = WindowStore(WindowConfig(seq_len=3, freq="1m"))
    for event in of_minutes(*range(200)):
        store.push(event)
    state = of(store, "a")
    assert state.values.ravel().tolist() == [197, 198, 199]
    assert state.observed.all()
    assert (state.step, state.ts) == (START // MINUTE + 199, START + 199 * MINUTE)


def test_restoring_a_series_keeps_its_completed_windows() -> None:
    store = WindowStore(WindowConfig(seq_len=2, freq="1m"))
    store.push(of_minutes(8)[0])
    state = of(store, "a")
    store.push(of_minutes(9)[0])
    store.restore({"a": state})
    store.push(Event("a", START + 9 * MINUTE, (5.0,)))
    assert store.take().x.tolist() == [[[8], [9]], [[8], [5]]]


@pytest.mark.parametrize("features", [("value",), ("flow", "heat", "load")])
def test_memory_is_as_documented(features: tuple[str, ...]) -> None:
    for freq, times in (("1m", 0), (None, 8)):
        store = WindowStore(WindowConfig(seq_len=96, features=features, freq=freq))
        for number in range(256):
            store.push(Event(f"series {number}", START, (1.0,) * len(features)))
        steps = (96 + 4) * (len(features) * 4 + times) + 5 * len(features) + 8
        flags = 2 * (96 + 4) * len(features)
        assert store.nbytes == 256 * (steps + ROW_BYTES) + flags


def test_a_wrong_number_of_values_is_refused() -> None:
    with pytest.raises(ValueError, match="2 values"):
        WindowStore(WindowConfig(seq_len=2)).push(Event("a", START, (1.0, 2.0)))


def test_sliding_windows_refuse_wrong_shapes_and_values() -> None:
    config, ts = WindowConfig(seq_len=2), np.array([START])
    for value in (np.nan, np.inf, 1e39):
        with pytest.raises(ValueError, match="float32"):
            sliding_windows(["a"], ts, np.array([[value]]), config)
    with pytest.raises(ValueError, match="features"):
        sliding_windows(["a"], ts, np.array([[1.0, 2.0]]), config)
    with pytest.raises(ValueError, match="ts"):
        sliding_windows(["a", "b"], ts, np.array([[1.0], [2.0]]), config)


@pytest.mark.parametrize(
    ("field", "setting"),
    [
        ("seq_len", {"seq_len": 1}),
        ("features", {"features": ()}),
        ("features", {"features": ("flow", "flow")}),
        ("max_gap", {"max_gap": -1}),
        ("lateness", {"lateness": -1}),
        ("aggregate", {"aggregate": "median", "freq": "1h"}),
        ("aggregate", {"aggregate": "mean"}),
        *[
            ("freq", {"freq": freq})
            for freq in ("", "m", "0m", "-1h", "1.5h", "1 h", "1min", "1H", "1h\n", "123456789s")
        ],
    ],
)
def test_an_invalid_config_names_its_field(field: str, setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        WindowConfig(**({"seq_len": 4} | setting))  # type: ignore[arg-type]


@given(st.sampled_from(FREQS), st.booleans(), st.lists(st.integers(-(10**12), 10**13), min_size=1))
def test_a_time_belongs_to_one_step(freq: str, bucket: bool, times: list[int]) -> None:
    grid = Grid.parse(freq, bucket)
    index = grid.index(np.array(times))
    assert index.tolist() == [grid.index(ts) for ts in times]
    start = grid.time(index)
    assert start.tolist() == [grid.time(each) for each in index.tolist()]
    assert grid.index(start).tolist() == index.tolist()
    away = np.array(times) - start
    if grid.months or bucket:
        assert ((away >= 0) & (np.array(times) < grid.time(index + 1))).all()
    else:
        assert ((-grid.milliseconds <= 2 * away) & (2 * away < grid.milliseconds)).all()


@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), st.sampled_from((1, 3, 12)))
def test_calendar_steps_start_with_a_month(moment: datetime, months: int) -> None:
    ts = int(moment.replace(tzinfo=UTC).timestamp() * 1000)
    moment = datetime.fromtimestamp(ts / 1000, UTC)
    index = Grid.parse(f"{months}mo").index(ts)
    assert index == ((moment.year - 1970) * 12 + moment.month - 1) // months
    start = datetime.fromtimestamp(Grid.parse(f"{months}mo").time(index) / 1000, UTC)
    assert (start.day, start.hour, start.minute, start.second, start.microsecond) == (1, 0, 0, 0, 0)


def test_a_year_is_twelve_months() -> None:
    assert Grid.parse("1y") == Grid.parse("12mo")


@given(st.lists(st.floats(3e9 - 40, 3e9 + 40), min_size=2, max_size=20), st.lists(st.integers(1, 4), min_size=20))
def test_a_large_level_keeps_every_digit(values: list[float], ahead: list[int]) -> None:
    minutes = np.cumsum(ahead)[: len(values)].tolist()
    events = [Event("a", START + minute * MINUTE, (value,)) for minute, value in zip(minutes, values, strict=True)]
    config = WindowConfig(seq_len=2, freq="1m", max_gap=3)
    streamed, _ = stream(events, config)
    assert streamed.x[:, -1, 0].tolist() == values[1:]
    kept = batch(events, config)
    exact = np.interp(kept.step, [int(minute) + START // MINUTE for minute in minutes], values)
    np.testing.assert_allclose(kept.values[:, 0] - 3e9, exact - 3e9, atol=80 / 64)


def test_filling_an_ordinary_hole_gives_the_float32_of_earlier_versions() -> None:
    config, ends = WindowConfig(seq_len=4, freq="1m"), (np.float32(20.1), np.float32(20.13))
    (window,) = batch([Event("a", START, (20.1,)), Event("a", START + 3 * MINUTE, (20.13,))], config).x(np.array([3]))
    expected = [np.float32(float(ends[0]) + (float(ends[1]) - float(ends[0])) * number / 3) for number in (1, 2)]
    assert window[1:3, 0].tolist() == [float(value) for value in expected]
    assert window[[0, 3], 0].tolist() == [20.1, 20.13]


class Heard:
    """A companion that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def sections(self, series: str) -> Sections:
        return {"of": Section(1, series.encode())}

    def restore(self, series: str, sections: Sections) -> Sections:
        return {name: section for name, section in sections.items() if name != "of"}

    def expired(self, series: str, place: int, offset: int) -> None:
        self.told.append((series, place, offset))

    def silent(self, silence: Silence) -> None:
        self.told.append(silence)


def one_by_one(store: WindowStore, events: Sequence[Event], offsets: Sequence[int]) -> Dropped:
    dropped = Dropped([], [])
    for row, (event, offset) in enumerate(zip(events, offsets, strict=True)):
        try:
            if not store.push(event, offset):
                dropped.late.append(row)
        except InvalidEvent as invalid:
            dropped.invalid.append((row, invalid))
    return dropped


def at_once(store: WindowStore, events: Sequence[Event], offsets: Sequence[int]) -> Dropped:
    ts = np.array([event.ts for event in events], np.int64)
    values = np.array([event.values for event in events]).reshape(len(events), -1)
    return store.push_many([event.series for event in events], ts, values, np.array(offsets, np.int64))


def assert_same_state(one: WindowStore, other: WindowStore) -> None:
    assert (one.counts, one.stream_time, one.dirty()) == (other.counts, other.stream_time, other.dirty())
    assert list(one) == list(other)
    for name in one:
        first, second = of(one, name), of(other, name)
        for field in fields(SeriesState):
            np.testing.assert_equal(getattr(second, field.name), getattr(first, field.name), field.name)
        np.testing.assert_array_equal(bits(second.values), bits(first.values))


def assert_same_windows(one: Windows, other: Windows) -> None:
    for field in fields(Windows):
        np.testing.assert_equal(getattr(other, field.name), getattr(one, field.name), field.name)
    np.testing.assert_array_equal(bits(other.x), bits(one.x))


def dumped(state: SeriesState | None) -> bytes | None:
    return None if state is None else encode_series(b"", "", state)


def drained(snapshot: Snapshot, store: WindowStore) -> dict[str, bytes | None]:
    """What is left of it."""
    return {name: dumped(state) for name, state in snapshot.take(len(snapshot), store.states)}


@given(st.data(), configs(), st.booleans(), st.booleans())
def test_events_pushed_at_once_are_those_pushed_one_by_one(
    data: st.DataObject, config: WindowConfig, short: bool, accompanied: bool
) -> None:
    if data.draw(st.integers(0, 3)):
        config = replace(config, lateness=0, aggregate=None)  # else none is added at once
    events = data.draw(streams(config))
    steps = data.draw(st.sampled_from((None, None, None, 5, 40)))
    idle = None if steps is None else config.max_delay + steps * length(config.freq)
    limit = data.draw(st.sampled_from((2, 9)))

    def store(old: WindowStore | None = None) -> tuple[WindowStore, Heard]:
        heard = Heard()
        made = WindowStore(config, idle, limit, short=short, waiting_limit=9, companion=heard if accompanied else None)
        if old is not None:
            made.stream_time = old.stream_time
            made.restore({name: of(old, name) for name in old})
        return made, heard

    (points, heard), (arrays, also_heard) = store(), store()
    snapshot, then_dirty, at = Snapshot(), dict[str, bytes | None](), 0
    while at < len(events):
        part = events[at : at + data.draw(st.sampled_from((7, 40, 150, 400)))]
        offsets = range(at, at + len(part))
        first = one_by_one(points, part, offsets)
        with patch("pipeline.windows.streaming.FEW", data.draw(st.sampled_from((1, 8, 64)))):
            second = at_once(arrays, part, offsets)
        assert first.late == second.late
        assert [(row, str(error)) for row, error in first.invalid] == [(row, str(each)) for row, each in second.invalid]
        assert heard.told == also_heard.told
        at += len(part)
        then = data.draw(st.sampled_from(("nothing", "take", "compare", "snapshot", "restart")))
        if then in ("take", "restart"):
            assert_same_windows(points.take(), arrays.take())
        if then in ("compare", "restart"):
            assert_same_state(points, arrays)
        if then == "snapshot":
            assert drained(snapshot, arrays) == then_dirty
            then_dirty = {name: dumped(points.state(name)) for name in points.dirty()}
            points.snapshot()
            snapshot = arrays.snapshot()
        if then == "restart":
            assert drained(snapshot, arrays) == then_dirty
            (points, heard), (arrays, also_heard) = store(arrays), store(points)
            snapshot, then_dirty = Snapshot(), {}
    assert_same_windows(points.take(), arrays.take())
    assert_same_state(points, arrays)
    assert drained(snapshot, arrays) == then_dirty
