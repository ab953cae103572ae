"""Columnar events: what any writer of Arrow streams writes is read as JSON would be, and no bytes do any harm."""

import random
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from arrow import by_polars, by_pyarrow, points
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import examples
from records import Given

from pipeline.formats.columnar.batches import MAX_ROWS
from pipeline.formats.columnar.ipc import count_rows
from pipeline.formats.columnar.points import Points
from pipeline.formats.columnar.writing import Column, Moments, words_of, write_stream
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import decode_records
from pipeline.formats.events import Decoder, Event
from pipeline.formats.paths import Paths
from pipeline.log.limits import MAX_COLUMNAR_BYTES, within_limits

NOW = 1_700_000_000_000
FRAME = points([(f"s{row % 7}", NOW + row, row / 3) for row in range(50)])
EVENTS = [Event(series, ts, (value,)) for series, ts, value in FRAME.rows()]
CATEGORIES = FRAME.with_columns(pl.col("series").cast(pl.Categorical))


def decoded(value: bytes, decoder: Decoder | None = None, **record: Any) -> tuple[list[Event], list[str]]:
    """A record's events, and the reasons for which it, or rows of it, have none."""
    found = list(decode_records([Given(value, **record)], (decoder or Decoder()).decode))
    events = [event for _, events, _ in found for event in events]
    return events, [error.reason for _, _, error in found if error is not None]


MOMENTS = FRAME.with_columns(pl.from_epoch("ts", "ms"))
ZONED = MOMENTS.with_columns(pl.col("ts").dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin"))
BATCHES = FRAME.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches(max_chunksize=20)
OWN: dict[str, Column] = {
    "series": words_of(FRAME["series"].to_list()),
    "ts": Moments(FRAME["ts"].to_numpy()),
    "value": FRAME["value"].to_numpy(),
}


@pytest.mark.parametrize(
    "value",
    [
        *(by_polars(frame, views=views) for frame in (FRAME, CATEGORIES) for views in (True, False)),
        *(by_polars(CATEGORIES, compression=codec) for codec in ("lz4", "zstd")),
        *(by_polars(MOMENTS.with_columns(pl.col("ts").cast(pl.Datetime(unit)))) for unit in ("ms", "us", "ns")),
        by_polars(ZONED),
        by_polars(FRAME.with_columns(pl.col("ts") * 1_000)),
        by_polars(FRAME.rename({"series": "sensorId", "ts": "time", "value": "temperature"})),
        by_polars(FRAME.with_columns(pl.lit([[1, 2]]).alias("more"), pl.lit("x").alias("unit"))),
        by_pyarrow(*BATCHES),
        write_stream(OWN),
    ],
)
def test_streams_of_any_writer_are_read(value: bytes) -> None:
    events, reasons = decoded(value)
    assert (events, reasons) == (EVENTS, [])
    assert count_rows(value) == len(EVENTS)


def test_dictionaries_may_be_extended_or_replaced_between_batches() -> None:
    def batch(words: Sequence[str], codes: Sequence[int | None], at: int) -> pa.RecordBatch:
        series = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(words))
        ts, value = (pa.array([NOW + at] * len(codes), kind()) for kind in (pa.int64, pa.float64))
        return pa.record_batch([series, ts, value], names=["series", "ts", "value"])

    parts = batch(["a", "b"], [1, 0], 0), batch(["a", "b", "c"], [2, None], 1), batch(["d"], [0], 2)
    for deltas in (True, False):
        events, reasons = decoded(by_pyarrow(*parts, emit_dictionary_deltas=deltas))
        assert [event.series for event in events] == ["b", "a", "c", "d"]
        assert reasons == ["schema"]


def test_the_key_and_the_record_s_time_stand_in_for_columns() -> None:
    value = by_polars(FRAME.select("value").head(2))
    assert decoded(value, key=b"a", timestamp=NOW)[0] == [Event("a", NOW, (0.0,)), Event("a", NOW, (1 / 3,))]


def test_columns_are_found_by_paths() -> None:
    frame = FRAME.select(site="series", tag=pl.lit(7), at="ts", flow="value", other=pl.col("value") * 2)
    paths = Paths.parse({"series": ["$.site", "$.tag"], "ts": "$.at", "values": {"heat": "$['other']"}})
    events, _ = decoded(by_polars(frame), Decoder(("flow", "heat"), paths=paths))
    assert events == [Event(f"{event.series},7", event.ts, (event.values[0], event.values[0] * 2)) for event in EVENTS]


LONG = points([("a" * 400, NOW, 1.0)] * 60_000)
BAD: dict[str, tuple[str, bytes]] = {
    "cut": ("malformed_arrow", by_polars(FRAME)[:700]),
    "the mark alone": ("malformed_arrow", b"\xff" * 4),
    "no value": ("schema", by_polars(FRAME.drop("value"))),
    "no series": ("bad_key", by_polars(FRAME.drop("series"))),
    "words for values": ("schema", by_polars(FRAME.with_columns(value=pl.lit("x")))),
    "lists for times": ("schema", by_polars(FRAME.with_columns(ts=pl.lit([1])))),
    "too many rows": ("too_large", by_polars(points([("a", NOW, 1.0)] * (MAX_ROWS + 1)), compression="zstd")),
    "too long": ("too_large", by_polars(points([("a" * 100, NOW, 1.0)] * 30_000), views=False)),
    "unpacks to too much": ("too_large", by_polars(LONG, views=False, compression="zstd")),
    "two columns of a name": ("schema", by_pyarrow(pa.record_batch([pa.array([1.0])] * 2, names=["value", "value"]))),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_messages_are_refused_with_their_reason(what: str) -> None:
    reason, value = BAD[what]
    tracemalloc.start()
    events, reasons = decoded(value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (events, reasons) == ([], [reason])
    assert peak < 40 << 20


def test_a_log_keeps_columnar_values_whole_up_to_their_own_limit() -> None:
    largest = b"\xff" * MAX_COLUMNAR_BYTES
    assert within_limits(largest) is largest
    assert decoded(within_limits(largest + b"\xff"))[1] == ["too_large"]


def test_damaged_streams_do_no_harm() -> None:
    """Each byte may be any, and the end anywhere: libraries that were tried end the process by such."""
    rng = random.Random(0)
    given = [by_polars(frame, views=views) for frame in (FRAME, CATEGORIES) for views in (True, False)]
    given += [by_polars(CATEGORIES, compression="lz4"), by_polars(FRAME, compression="zstd")]
    read = 0
    for _ in range(3_000):
        value = bytearray(rng.choice(given))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            value[rng.randrange(8, min(len(value), rng.choice((700, 10_000))))] = rng.choice((0, 1, 127, 128, 255))
        cut = bytes(value[: rng.randrange(8, len(value))] if rng.random() < 0.15 else value)
        count_rows(cut)
        with suppress(InvalidEvent):
            read += len(Decoder().decode(Given(cut))) > 0
    assert read > 100, "most were refused for nothing but the writer's magic bytes"


names = st.one_of(st.sampled_from(["a", "b", "", " ", "x" * 129, "ü" * 64, "a\n", None]), st.text(max_size=20))
times = st.one_of(
    st.integers(NOW - 10**9, NOW + 400_000),
    st.sampled_from(
        [0, -5, 5, NOW // 1000, NOW * 1000, NOW * 10**6, 20231114221320, 202311142213, 20231114, 2**62, None]
    ),
)
numbers = st.one_of(st.floats(allow_nan=True), st.integers(-5, 5).map(float), st.sampled_from([3.5e38, -1e300, None]))


@settings(max_examples=examples(200))
@given(rows=st.lists(st.tuples(names, times, numbers), min_size=1, max_size=8), views=st.booleans())
def test_each_row_is_what_it_would_be_in_json(rows: list[tuple[Any, Any, Any]], views: bool) -> None:
    """The same event, or no event; then the row is a record of its own, which is refused in JSON too."""
    decoder = Decoder()
    found = list(decode_records([Given(by_polars(points(rows), views=views))], decoder.decode))
    expected, refused = list[Event](), 0
    for name, ts, value in rows:
        body = {"series": name, "ts": ts, "value": value}
        ((_, events, error),) = decode_records([Given(msgspec.json.encode(body))], decoder.decode)
        missing = name is None or ts is None
        expected += [] if missing else events
        refused += missing or error is not None
    assert list(found[0][1]) == expected
    letters = [record for record, _, error in found if error is not None]
    assert len(letters) == refused
    for letter in letters:
        assert letter.value is not None
        body = msgspec.json.decode(letter.value)
        assert any(body["series"] == name and body["ts"] == ts for name, ts, _ in rows)


def test_a_decoder_says_which_columns_it_reads() -> None:
    decoder, value = Decoder(), by_polars(FRAME.rename({"series": "sensorId", "value": "temperature"}))
    (note,) = decoder.describe([Given(value)])
    assert "series from `sensorId`; time from `ts`" in note.text
    assert "value from `temperature`" in note.text


def test_points_hold_the_columns_themselves() -> None:
    decoded = Decoder().decode(Given(by_polars(FRAME)))
    assert isinstance(decoded, Points)
    assert decoded.series == FRAME["series"].to_list()
    np.testing.assert_array_equal(decoded.values[:, 0], FRAME["value"])
    assert msgspec.json.decode(decoded.row(3).value or b"") == {"series": "s3", "ts": NOW + 3, "value": 1.0}
