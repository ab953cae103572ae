"""How much is taken on at once: by how long the last batch took."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.serving.pace import Pace, micro_batches
from pipeline.log import Record


class Clock:
    """A clock that moves when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(pace: Pace, clock: Clock, seconds_per_record: float, backlog: int = 10**6) -> float:
    """Take one batch; how long it took."""
    records = min(pace.records, backlog)
    with pace.batch(records):
        clock.now += records * seconds_per_record
    return records * seconds_per_record


@pytest.mark.parametrize("seconds", [1e-5, 0.001, 0.1, 1.0, 19.0])
def test_a_batch_of_any_model_takes_no_longer_than_allowed(clock: Clock, seconds: float) -> None:
    pace = Pace(8192, 20)
    taken = [run(pace, clock, seconds) for _ in range(30)]
    assert max(taken) <= 20
    assert pace.records * seconds >= 20 / 32 or pace.records == 8192, "and no shorter than it need be"


def test_a_model_that_becomes_slow_and_fast_again(clock: Clock) -> None:
    pace = Pace(8192, 20)
    for _ in range(10):
        run(pace, clock, 0.0001)
    assert pace.records == 8192
    run(pace, clock, 0.1)
    assert run(pace, clock, 0.1) <= 20
    for _ in range(10):
        run(pace, clock, 0.0001)
    assert pace.records == 8192


def test_a_trickle_does_not_raise_the_limit(clock: Clock) -> None:
    pace = Pace(8192, 20)
    for _ in range(3):
        run(pace, clock, 0.0001)
    before = pace.records
    for _ in range(10):
        run(pace, clock, 0.001, backlog=1)
    assert pace.records == before


def test_without_a_limit_of_time(clock: Clock) -> None:
    pace = Pace(2048, float("inf"))
    for _ in range(10):
        run(pace, clock, 100.0)
    assert pace.records == 2048
    with pace.inference(10):
        clock.now += 1000
    assert not pace.is_slow(1000)
    assert not Pace(2048, float("inf")).is_slow(1000)


def test_windows_that_would_take_too_long_in_a_transaction(clock: Clock) -> None:
    pace = Pace(8192, 20)
    assert not pace.is_slow(256)
    assert pace.is_slow(257), "nothing is known of the model yet"
    with pace.inference(10):
        clock.now += 1
    assert not pace.is_slow(99)
    assert pace.is_slow(101)
    with pace.inference(0):
        clock.now += 1
    assert pace.is_slow(101)


class Stored(NamedTuple):
    """A record of the input."""

    partition: int
    offset: int
    topic: str = "in"
    timestamp: int = 0
    key: bytes | None = b"a"
    value: bytes | None = b"1"
    headers: tuple[tuple[str, bytes], ...] = ()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 50))
def test_every_micro_batch_has_its_share_of_all_partitions(sizes: list[int], most: int) -> None:
    polled: Mapping[int, Sequence[Record]]
    polled = {number: [Stored(number, offset) for offset in range(size)] for number, size in enumerate(sizes)}
    batches = list(micro_batches(polled, most))
    counts = [sum(len(records) for _, records in batch) for batch in batches]
    assert counts[:-1] == [most] * (len(counts) - 1)
    assert 0 < counts[-1] <= most
    done = dict.fromkeys(polled, 0)
    for number, batch in enumerate(batches, 1):
        for partition, records in batch:
            assert list(records) == polled[partition][done[partition] : done[partition] + len(records)]
            done[partition] += len(records)
        share = sum(counts[:number]) / sum(sizes)
        assert all(abs(done[partition] - share * size) <= 2 for partition, size in enumerate(sizes))
    assert done == dict(enumerate(sizes))
