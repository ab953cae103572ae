"""States and metadata as bytes: they come back, and damage is noticed."""

import gzip
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.state import records
from pipeline.state.records import PartitionRecord
from pipeline.windows.batch import Section, SeriesState
from pipeline.windows.reorder import PendingStep
from tidecast.errors import CorruptState

LEFT_BY_B0BAF3E = Path(__file__).resolve().parents[2] / "fixtures" / "b0baf3e" / "log.db.gz"

sections = st.dictionaries(st.text(), st.builds(Section, st.integers(0, 2**63 - 1), st.binary()), max_size=3)
times = st.integers(-(2**60), 2**60)
pending = st.builds(
    PendingStep, times, times, st.integers(1, 9), st.lists(st.floats(-1e38, 1e38), min_size=3, max_size=3)
)
states = st.integers(0, 9).flatmap(
    lambda steps: st.builds(
        SeriesState,
        values=st.sampled_from([32, 64]).flatmap(
            lambda width: hnp.arrays(
                np.float64,
                (steps, 3),
                elements=st.floats(-(2.0**127), 2.0**127, width=width),  # type: ignore[arg-type]
            )
        ),
        observed=hnp.arrays(np.bool_, (steps, 3)),
        step=st.integers(-(2**40), 2**40),
        ts=times,
        times=hnp.arrays(np.int64, st.sampled_from([0, steps]), elements=times),
        last_event_ts=times,
        pending=st.lists(pending, min_size=not steps, max_size=3),
        sections=sections,
    )
)


@given(states, st.binary(min_size=8, max_size=8))
def test_the_state_of_a_series_round_trips(state: SeriesState, config: bytes) -> None:
    name, decoded = records.decode_series(config, b"s:pump", records.encode_series(config, "pump", state))
    assert name == "pump"
    assert decoded.values.dtype == np.float64
    assert decoded.values.tobytes() == state.values.tobytes()
    np.testing.assert_array_equal(decoded.observed, state.observed)
    np.testing.assert_array_equal(decoded.times, state.times)
    assert (decoded.values.shape, decoded.step, decoded.ts) == (state.values.shape, state.step, state.ts)
    assert (decoded.last_event_ts, decoded.pending, decoded.sections) == (
        state.last_event_ts,
        state.pending,
        state.sections,
    )
    assert records.encode_series(config, name, decoded) == records.encode_series(config, "pump", state)


@given(states, st.integers(1, 80))
def test_a_state_larger_than_a_record_is_split(state: SeriesState, size: int) -> None:
    encoded = records.encode_series(b"", "pump", state)
    rows = records.split("pump", encoded, size)
    assert len(rows) == max(1, -(-len(encoded) // size))
    assert records.joined(b"s:pump", dict(rows)) == (encoded, len(rows))
    if len(rows) == 1:
        assert rows == [(b"s:pump", encoded)], "as earlier versions wrote it"
    else:
        assert all(len(value) <= size + 9 for _, value in rows)


@given(states, st.integers(1, 40), st.data())
def test_a_missing_or_changed_part_is_detected(state: SeriesState, size: int, data: st.DataObject) -> None:
    held = dict(records.split("pump", records.encode_series(b"", "pump", state), size))
    key = data.draw(st.sampled_from(sorted(held)))
    if data.draw(st.booleans()) and key != b"s:pump":
        del held[key]
    else:
        value = bytearray(held[key])
        value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        held[key] = bytes(value)
    with pytest.raises(CorruptState):
        records.decode_series(b"", b"s:pump", records.joined(b"s:pump", held)[0])


@given(st.integers(0, 2**40), sections)
def test_the_record_of_a_partition_round_trips(position: int, sections: dict[str, Section]) -> None:
    record = PartitionRecord(position=position, partitions=2, topic_id="three", sections=sections)
    assert records.decode_partition(records.encode_partition(record)) == record


@given(states)
def test_sections_follow_the_fields_of_earlier_versions(state: SeriesState) -> None:
    state = replace(state, sections={"scores": Section(1, b"x")})
    bare = records.encode_series(b"", "pump", replace(state, sections={}))
    assert fields(records.encode_series(b"", "pump", state)) == [*fields(bare), {"scores": [1, b"x"]}]


def fields(encoded: bytes) -> list[object]:
    found: list[object] = msgspec.msgpack.decode(encoded[1:-4])
    return found


def test_bytes_of_b0baf3e_are_read_and_written_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    file.write_bytes(gzip.decompress(LEFT_BY_B0BAF3E.read_bytes()))
    with closing(sqlite3.connect(file)) as log:
        rows: list[tuple[bytes, bytes]] = log.execute("SELECT key, value FROM records WHERE compacted").fetchall()
    kept = dict.fromkeys(("partition", "series"), 0)
    for key, value in rows:
        if key == records.PARTITION_KEY:
            assert records.encode_partition(records.decode_partition(value)) == value
            kept["partition"] += 1
        else:
            config = fields(value)[0]
            assert isinstance(config, bytes)
            assert records.encode_series(config, *records.decode_series(config, key, value)) == value
            kept["series"] += 1
    assert min(kept.values()) >= 7


@given(states, st.data())
def test_changed_bytes_are_detected(state: SeriesState, data: st.DataObject) -> None:
    key = b"s:pump"
    both = bytearray(key + records.encode_series(b"", "pump", state))
    both[data.draw(st.integers(0, len(both) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptState):
        records.decode_series(b"", bytes(both[: len(key)]), bytes(both[len(key) :]))


@given(states, st.data())
def test_missing_bytes_are_detected(state: SeriesState, data: st.DataObject) -> None:
    encoded = records.encode_series(b"", "pump", state)
    with pytest.raises(CorruptState):
        records.decode_series(b"", b"s:pump", encoded[: data.draw(st.integers(0, len(encoded) - 1))])


def test_bytes_of_another_kind_of_record_are_detected() -> None:
    record = PartitionRecord(position=1, partitions=2, topic_id="three")
    assert records.decode_partition(records.encode_partition(record)) == record
    with pytest.raises(CorruptState):
        records.decode_series(b"", b"partition", records.encode_partition(record))


@given(st.integers(0, 2**63 - 1))
def test_metadata_round_trips(replay_from: int) -> None:
    metadata = records.encode_metadata(replay_from)
    assert metadata.isascii()
    assert len(metadata) < 50
    assert records.decode_metadata(metadata) == replay_from
    assert records.decode_metadata(metadata.replace("tidecast:1", "tidecast:2")) is None


@given(st.text())
def test_metadata_of_other_programs_is_ignored(metadata: str) -> None:
    assert records.decode_metadata(metadata) is None
    assert records.decode_metadata(f"tidecast:1:{metadata}") is None


@given(states)
def test_a_state_is_written_as_in_earlier_versions_unless_it_would_lose_digits(state: SeriesState) -> None:
    encoded = records.encode_series(b"", "pump", state)
    lossless = (state.values.astype(np.float32) == state.values).all()
    assert encoded[0] == (2 if lossless else 4)
    values = fields(encoded)[4]
    assert isinstance(values, bytes)
    assert len(values) == state.values.size * (4 if lossless else 8)
