"""States and metadata as bytes: they come back, and damage is noticed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import codec
from pipeline.codec import PartitionRecord
from pipeline.reorder import Waiting
from pipeline.windows import SeriesState
from tidecast.errors import CorruptState

times = st.integers(-(2**60), 2**60)
waiting = st.builds(Waiting, times, times, st.integers(1, 9), st.lists(st.floats(-1e38, 1e38), min_size=3, max_size=3))
states = st.integers(0, 9).flatmap(
    lambda steps: st.builds(
        SeriesState,
        values=hnp.arrays(np.float32, (steps, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
        observed=hnp.arrays(np.bool_, (steps, 3)),
        step=st.integers(-(2**40), 2**40),
        ts=times,
        times=hnp.arrays(np.int64, st.sampled_from([0, steps]), elements=times),
        heard=times,
        waiting=st.lists(waiting, min_size=not steps, max_size=3),
    )
)


@given(states, st.binary(min_size=8, max_size=8))
def test_a_state_comes_back_from_its_bytes(state: SeriesState, config: bytes) -> None:
    name, decoded = codec.decode_series(config, b"s:pump", codec.encode_series(config, "pump", state))
    assert name == "pump"
    assert decoded.values.dtype == np.float32
    assert decoded.values.tobytes() == state.values.tobytes()
    np.testing.assert_array_equal(decoded.observed, state.observed)
    np.testing.assert_array_equal(decoded.times, state.times)
    assert (decoded.values.shape, decoded.step, decoded.ts) == (state.values.shape, state.step, state.ts)
    assert (decoded.heard, decoded.waiting) == (state.heard, state.waiting)


@given(states, st.data())
def test_changed_bytes_are_noticed(state: SeriesState, data: st.DataObject) -> None:
    key = b"s:pump"
    both = bytearray(key + codec.encode_series(b"", "pump", state))
    both[data.draw(st.integers(0, len(both) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptState):
        codec.decode_series(b"", bytes(both[: len(key)]), bytes(both[len(key) :]))


@given(states, st.data())
def test_missing_bytes_are_noticed(state: SeriesState, data: st.DataObject) -> None:
    encoded = codec.encode_series(b"", "pump", state)
    with pytest.raises(CorruptState):
        codec.decode_series(b"", b"s:pump", encoded[: data.draw(st.integers(0, len(encoded) - 1))])


def test_whole_bytes_of_something_else_are_noticed() -> None:
    record = PartitionRecord(position=1, partitions=2, topic_id="three")
    assert codec.decode_partition(codec.encode_partition(record)) == record
    with pytest.raises(CorruptState):
        codec.decode_series(b"", b"partition", codec.encode_partition(record))


@given(st.integers(0, 2**63 - 1))
def test_metadata_comes_back(replay_from: int) -> None:
    metadata = codec.encode_metadata(replay_from)
    assert metadata.isascii()
    assert len(metadata) < 50
    assert codec.decode_metadata(metadata) == replay_from
    assert codec.decode_metadata(metadata.replace("tidecast:1", "tidecast:2")) is None


@given(st.text())
def test_metadata_of_others_is_not_ours(metadata: str) -> None:
    assert codec.decode_metadata(metadata) is None
    assert codec.decode_metadata(f"tidecast:1:{metadata}") is None
