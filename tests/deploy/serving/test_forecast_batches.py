import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.serving.forecast_batches import Faults, forecast_batches
from model.card import Card, InputSpec, OutputSpec
from pipeline.formats.dead_letters import InvalidEvent, encode_dead_letter
from pipeline.formats.forecasts import Forecast, encode_forecasts
from pipeline.log.limits import MAX_VALUE_BYTES
from pipeline.windows.batch import Windows

HALF_HOUR = 1_800_000


class Record(NamedTuple):
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    topic: str = "power"
    partition: int = 3
    offset: int = 41
    timestamp: int = 1_700_000_000_000
    key: bytes | None = b"pump"


def windows(count: int) -> Windows:
    numbers = np.arange(count)
    return Windows(
        x=np.zeros((count, 2, 1), np.float32),
        observed=np.ones((count, 2, 1), np.bool_),
        step=numbers,
        ts=1_700_000_000_000 + numbers * HALF_HOUR,
        start=1_700_000_000_000 + (numbers + 1) * HALF_HOUR,
        spacing=np.full(count, HALF_HOUR),
        series=[f"pump-{number}" for number in numbers],
        offset=numbers,
        length=np.full(count, 2),
        first_offset=numbers,
    )


def card(*targets: str, horizon: int = 2) -> Card:
    inputs = InputSpec(seq_len=2, features=targets or ("value",), freq="30m")
    outputs = OutputSpec(horizon=horizon, targets=inputs.features)
    return Card(name="m", arch="lstm", input=inputs, output=outputs, trained_until=0)


def messages(windows: Windows, parts: list[npt.NDArray[np.float32]], card: Card, model: str) -> Iterator[bytes]:
    """The messages that serving writes for a model's outputs."""
    return chain.from_iterable(map(encode_forecasts, forecast_batches(windows, parts, card, model)))


def test_forecast_as_json() -> None:
    values = np.array([[[21.5], [-3.0]]], np.float32)
    assert list(messages(windows(1), [values], card(), "taxi/7")) == [
        b'{"series":"pump-0","ts":1700000000000,"start":1700001800000,"step":1800000,"forecast":[21.5,-3.0],'
        b'"source":"model","model":"taxi/7"}'
    ]


def test_several_targets_are_named() -> None:
    values = np.array([[[1, 10], [2, 20], [3, 30]]], np.float32)
    (payload,) = messages(windows(1), [values], card("flow", "pressure"), "taxi/7")
    assert b'"forecast":{"flow":[1.0,2.0,3.0],"pressure":[10.0,20.0,30.0]}' in payload


@given(st.lists(st.integers(0, 5), max_size=6), st.data())
def test_chunks_make_no_difference_and_values_are_bit_exact(sizes: list[int], data: st.DataObject) -> None:
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    drawn = data.draw(st.lists(finite, min_size=2 * sum(sizes), max_size=2 * sum(sizes)))
    values = np.array(drawn, np.float32).reshape(-1, 2, 1)
    parts = np.split(values, np.cumsum(sizes)[:-1]) if sizes else []
    payloads = list(messages(windows(sum(sizes)), parts, card(), "m/1"))
    forecasts = [msgspec.json.decode(payload, type=Forecast) for payload in payloads]
    assert [forecast.series for forecast in forecasts] == [f"pump-{number}" for number in range(sum(sizes))]
    assert np.array([forecast.forecast for forecast in forecasts], np.float32).tobytes() == values.tobytes()


@pytest.mark.parametrize("count", [1, 3])
def test_number_of_forecasts_must_match_the_windows(count: int) -> None:
    with pytest.raises(ValueError, match=r"\d forecasts for 2 windows"):
        list(messages(windows(2), [np.zeros((count, 2, 1), np.float32)], card(), "m/1"))


def test_short_window_gets_a_naive_forecast_marked_as_such() -> None:
    pending = windows(3)
    pending.x[:], pending.length[:] = [[[0.0], [3.5]], [[1.0], [2.0]], [[0.0], [-7.0]]], [1, 2, 1]
    outputs = np.full((3, 2, 1), 99, np.float32)
    forecasts = [msgspec.json.decode(each, type=Forecast) for each in messages(pending, [outputs], card(), "m/1")]
    assert [each.forecast for each in forecasts] == [[3.5, 3.5], [99, 99], [-7, -7]]
    assert [(each.source, each.model) for each in forecasts] == [
        ("naive", "naive/48"),
        ("model", "m/1"),
        ("naive", "naive/48"),
    ]


def test_the_naive_forecast_goes_by_the_season_found_in_the_data() -> None:
    found = card()
    found = msgspec.structs.replace(found, input=msgspec.structs.replace(found.input, seq_len=9, season=3))
    x = np.array([0, 0, 0, 0, 1, 2, 3, 4, 5], np.float64).reshape(1, 9, 1)
    pending = replace(windows(1), x=x, observed=x == x, length=np.array([5]))
    (payload,) = messages(pending, [np.full((1, 2, 1), 99, np.float32)], found, "m/1")
    forecast = msgspec.json.decode(payload, type=Forecast)
    assert (forecast.forecast, forecast.source, forecast.model) == ([3, 4], "naive", "naive/3")


def test_naive_forecast_repeats_the_season_once_there_is_one() -> None:
    inputs = InputSpec(seq_len=6, features=("a", "b"), freq="8h")
    outputs = OutputSpec(horizon=4, targets=("b",))
    x = np.array([[0, 0, 1, 2, 3, 4], [0, 0, 0, 0, 3, 4]], np.float32)
    pending = Windows(
        x=np.stack([x, 10 * x], axis=-1),
        observed=np.ones((2, 6, 2), np.bool_),
        step=np.zeros(2, np.int64),
        ts=np.zeros(2, np.int64),
        start=np.zeros(2, np.int64),
        spacing=np.zeros(2, np.int64),
        series=["s", "t"],
        offset=np.zeros(2, np.int64),
        length=np.array([4, 2]),
        first_offset=np.zeros(2, np.int64),
    )
    model_card = Card(name="m", arch="lstm", input=inputs, output=outputs, trained_until=0)
    forecasts = [
        msgspec.json.decode(each, type=Forecast).forecast
        for each in messages(pending, [np.zeros((2, 4, 1), np.float32)], model_card, "m/1")
    ]
    assert forecasts == [[20, 30, 40, 20], [40, 30, 40, 40]]


@given(st.lists(st.sampled_from(["fine", "not finite", "failed", "short"]), min_size=1, max_size=9), st.integers(1, 9))
def test_no_forecast_is_ever_not_finite(kinds: list[str], size: int) -> None:
    pending, outputs = windows(len(kinds)), np.full((len(kinds), 2, 1), 99, np.float32)
    pending.x[:, 1, 0] = 7
    faults = Faults({row: "why" for row, kind in enumerate(kinds) if kind == "failed"})
    for row, kind in enumerate(kinds):
        if kind != "fine":
            outputs[row, row % 2] = np.inf if row % 3 else np.nan
        if kind == "short":
            pending.length[row] = 1
    parts = [outputs[start : start + size] for start in range(0, len(outputs), size)]
    batches = list(forecast_batches(pending, parts, card(), "m/1", faults))
    sources = [source for batch in batches for source in batch.source]
    values = np.concatenate([batch.forecast for batch in batches])
    assert sources == ["model" if kind == "fine" else "naive" for kind in kinds]
    assert values[:, :, 0].tolist() == [[99, 99] if kind == "fine" else [7, 7] for kind in kinds]
    assert sorted(faults.not_finite) == [row for row, kind in enumerate(kinds) if kind == "not finite"]
    assert sorted(faults.failed) == [row for row, kind in enumerate(kinds) if kind == "failed"]


def test_a_window_whose_naive_forecast_is_not_finite_either_has_none() -> None:
    pending, faults = windows(2), Faults()
    pending.x[1] = np.inf
    list(forecast_batches(pending, [np.full((2, 2, 1), np.nan, np.float32)], card(), "m/1", faults))
    assert faults.failed == {1: "neither its forecast nor the naive one is finite"}


def test_dead_letter_has_position_and_reason() -> None:
    _, value, headers = encode_dead_letter(
        Record(b"{", (("trace", b"x"),)), InvalidEvent("malformed_json", "it ends early")
    )
    assert value == b"{"
    assert headers == [
        ("trace", b"x"),
        ("tidecast.reason", b"malformed_json"),
        ("tidecast.detail", b"it ends early"),
        ("tidecast.topic", b"power"),
        ("tidecast.partition", b"3"),
        ("tidecast.offset", b"41"),
        ("tidecast.timestamp", b"1700000000000"),
        ("tidecast.sha256", hashlib.sha256(b"{").hexdigest().encode()),
    ]


@pytest.mark.parametrize("header", [("none", None), ("tidecast.reason", b"mine")])
def test_dead_letter_headers_come_after_the_records_own(header: tuple[str, bytes]) -> None:
    _, _, headers = encode_dead_letter(Record(b"{", (header,)), InvalidEvent("schema", "no value"))
    assert headers[0] == (header[0], header[1] or b"")
    assert dict(headers)["tidecast.reason"] == b"schema"


def test_long_value_is_truncated_and_its_sha256_is_of_the_whole() -> None:
    sent = bytes(range(256)) * 300
    _, value, headers = encode_dead_letter(Record(sent), InvalidEvent("too_large", "76800 bytes"))
    assert (len(value), value) == (65_536, sent[:MAX_VALUE_BYTES])
    assert dict(headers)["tidecast.sha256"] == hashlib.sha256(sent).hexdigest().encode()


def test_dead_letter_is_small_enough_whatever_key_and_headers() -> None:
    record = Record(b"{", (("trace", b"x" * MAX_VALUE_BYTES),), key=b"k" * 2_000_000)
    key, _, headers = encode_dead_letter(record, InvalidEvent("bad_key", "too long"))
    assert key == b"k" * MAX_VALUE_BYTES
    assert headers[0] == ("tidecast.headers", b"left out")
