from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from models import fragile
from properties import examples

from deploy.models.loading import load_onnx
from deploy.models.predictor import CHUNK, Predictor
from deploy.settings.serve import window_config
from deploy.settings.values import Device
from model.card import Card, InputSpec, OutputSpec
from pipeline.formats.events import Event
from pipeline.windows.batch import Windows
from pipeline.windows.streaming import WindowStore
from tidecast.errors import ConfigError, ModelUnavailable, ShapeError

OnnxFile = Callable[..., Path]
HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
ONE_TO_ONE = "g (float[batch, 12, 1] x) => (float[batch, 12] y) <int64[1] axes = {2}> { y = Squeeze (x, axes) }"


def random_windows(count: int, seq_len: int = 12) -> Windows:
    x = np.random.default_rng(0).normal(100, 20, (count, seq_len, 1))
    numbers = np.arange(count)
    return Windows(
        x=x,
        observed=np.ones_like(x, np.bool_),
        step=numbers,
        ts=numbers * 3_600_000,
        start=(numbers + 1) * 3_600_000,
        spacing=np.full(count, 3_600_000),
        series=["s"] * count,
        offset=numbers,
        length=np.full(count, seq_len),
        first_offset=numbers,
    )


def part(windows: Windows, start: int, stop: int) -> Windows:
    rows = slice(start, stop)
    return Windows(
        x=windows.x[rows],
        observed=windows.observed[rows],
        step=windows.step[rows],
        ts=windows.ts[rows],
        start=windows.start[rows],
        spacing=windows.spacing[rows],
        series=windows.series[rows],
        offset=windows.offset[rows],
        length=windows.length[rows],
        first_offset=windows.first_offset[rows],
    )


def forecasts(predictor: Predictor, windows: Windows) -> bytes:
    parts = list(predictor.predict(windows))
    assert all(each.dtype == np.float32 and each.shape[1:] == (4, 1) for each in parts)
    assert [len(each) for each in parts[:-1]] == [CHUNK] * (len(parts) - 1)
    assert sum(map(len, parts)) == len(windows)
    return b"".join(each.tobytes() for each in parts)


def test_own_model_is_loaded_with_its_card(own_model: Path) -> None:
    predictor = load_onnx(own_model, "tiny/7", "cpu")
    assert (predictor.label, predictor.device, predictor.device_reason) == ("tiny/7", "cpu", "asked for")
    assert isinstance(predictor.card, Card)
    assert predictor.card.input == InputSpec(seq_len=12, freq="1h")
    assert predictor.card.output == OutputSpec(horizon=4)
    (outputs,) = predictor.session.run(None, {"x": random_windows(9).x.astype(np.float32)})
    assert forecasts(predictor, random_windows(9)) == outputs.tobytes()


def test_foreign_model_gets_a_card_from_its_shapes(foreign_model: Path) -> None:
    predictor = load_onnx(foreign_model, "foreign.onnx", "cpu")
    assert isinstance(predictor.card, Card)
    assert predictor.card.input == InputSpec(seq_len=12)
    assert predictor.card.output == OutputSpec(horizon=4)
    (outputs,) = predictor.session.run(None, {"x": random_windows(9).x.astype(np.float32)})
    assert forecasts(predictor, random_windows(9)) == outputs.tobytes()


@pytest.mark.parametrize("which", ["own_model", "foreign_model"])
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bounds=st.tuples(st.integers(0, 599), st.integers(1, 600)))
@example(bounds=(5, CHUNK))
@example(bounds=(5, CHUNK + 1))
def test_forecast_does_not_depend_on_its_batch(
    request: pytest.FixtureRequest, which: str, bounds: tuple[int, int]
) -> None:
    predictor = load_onnx(request.getfixturevalue(which), "m", "cpu")
    whole, (start, count) = forecasts(predictor, random_windows(600)), bounds
    windows = part(random_windows(600), start, start + count)
    assert forecasts(predictor, windows) == whole[16 * start : 16 * (start + len(windows))]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_batches_give_the_same_bits_as_one_large_batch(own_model: Path, size: int) -> None:
    predictor, windows = load_onnx(own_model, "m", "cpu"), random_windows(240)
    apart = [forecasts(predictor, part(windows, start, start + size)) for start in range(0, 240, size)]
    assert b"".join(apart) == forecasts(predictor, windows)


def test_empty_batch_has_no_forecasts(own_model: Path) -> None:
    assert list(load_onnx(own_model, "m", "cpu").predict(random_windows(0))) == []


@pytest.mark.parametrize(
    "graph",
    [
        "g (float[batch, seq, 1] x) => (float[batch, seq] y) <int64[1] axes = {2}> { y = Squeeze (x, axes) }",
        "g (float[batch, 12, 2] x) => (float[batch, 12] y) <int64[1] a = {2}> { y = ReduceSum <keepdims = 0> (x, a) }",
        "g (float[batch, 12] x) => (float[batch, 12] y) { y = Relu (x) }",
        "g (float[batch, 12, 1] x) => (float[batch, 12, 1] y) { y = Relu (x) }",
        "g (float[1, 12, 1] x) => (float[1, 12] y) <int64[1] axes = {2}> { y = Squeeze (x, axes) }",
        "g (double[batch, 12, 1] x) => (double[batch, 12] y) <int64[1] axes = {2}> { y = Squeeze (x, axes) }",
        "g (float[batch, 12, 1] x, float[batch, 12, 1] z) => (float[batch, 12] y) <int64[1] axes = {2}>"
        " { both = Add (x, z)  y = Squeeze (both, axes) }",
        "g (float[batch, 12, 1] x) => (float[batch, 12] y, float[batch, 12] z) <int64[1] axes = {2}>"
        " { y = Squeeze (x, axes)  z = Squeeze (x, axes) }",
    ],
    ids=[
        "dynamic sequence",
        "two features",
        "no feature axis",
        "three output axes",
        "one batch",
        "doubles",
        "two inputs",
        "two outputs",
    ],
)
def test_foreign_model_of_another_shape_is_rejected(onnx_file: OnnxFile, graph: str) -> None:
    with pytest.raises(ShapeError, match=r"must be \(batch, seq, 1\) -> \(batch, horizon\): .+") as raised:
        load_onnx(onnx_file(graph), "m", "cpu")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("seq_len", "horizon", "what"), [(24, 12, "'x'"), (12, 4, "'y'")])
def test_model_that_does_not_match_its_card_is_rejected(
    onnx_file: OnnxFile, seq_len: int, horizon: int, what: str
) -> None:
    card = Card(
        name="other",
        input=InputSpec(seq_len=seq_len),
        output=OutputSpec(horizon=horizon),
        arch="lstm",
        trained_until=0,
    )
    with pytest.raises(ShapeError, match=f"{what} is .* and must be .* according to its card"):
        load_onnx(onnx_file(ONE_TO_ONE, card.to_json()), "m", "cpu")


def test_invalid_card_is_rejected(onnx_file: OnnxFile) -> None:
    with pytest.raises(ValueError, match="the model's card: "):
        load_onnx(onnx_file(ONE_TO_ONE, "{}"), "m", "cpu")


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_file_that_is_not_a_model_is_an_error_of_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "some.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"some\.onnx") as raised:
        load_onnx(path, "m", "cpu")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("device", get_args(Device))
def test_device_is_chosen_with_a_reason(own_model: Path, device: Device) -> None:
    if device == "cuda" and not HAS_CUDA:
        with pytest.raises(ConfigError, match="device cuda: this onnxruntime has no CUDA provider"):
            load_onnx(own_model, "m", device)
        return
    predictor = load_onnx(own_model, "m", device)
    assert predictor.device in ("cpu", "cuda")
    assert predictor.device_reason
    if device == "auto" and not HAS_CUDA:
        assert (predictor.device, predictor.device_reason[:28]) == ("cpu", "this onnxruntime has no CUDA")


@given(rests=st.lists(st.floats(0, 6.9), min_size=1, max_size=700))
@example(rests=[6.5])
@example(rests=[1.0] * 300 + [6.5] + [1.0] * 300)
@settings(max_examples=examples(40))
def test_a_window_that_makes_inference_fail_does_not_touch_its_neighbours(rests: list[float]) -> None:
    predictor, windows = fragile(), random_windows(len(rests), 4)
    windows.x[:, -1, 0] = rests
    failed: dict[int, str] = {}
    outputs = np.concatenate(list(predictor.predict(windows, failed)))
    raised = windows.x[:, -1, 0] > 6
    assert sorted(failed) == np.flatnonzero(raised).tolist()
    assert all("Gather" in error and "\n" not in error for error in failed.values())
    assert np.isnan(outputs[raised]).all()
    (rows,) = np.nonzero(~raised)
    alone = [next(predictor.predict(part(windows, row, row + 1))) for row in rows[:20]]
    assert all(each.tobytes() == outputs[row].tobytes() for each, row in zip(alone, rows[:20], strict=True))


def test_without_a_place_for_failures_they_are_raised() -> None:
    windows = random_windows(3, 4)
    windows.x[1, -1, 0] = 6.5
    with pytest.raises(Exception, match="Gather"):
        list(fragile().predict(windows))


def test_a_device_that_fails_for_everything_is_no_fault_of_the_windows() -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(fragile().session, name)

        def run(self, *_: object) -> None:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    failed: dict[int, str] = {}
    broken: Any = Broken()
    with pytest.raises(ModelUnavailable, match=r"fragile\.onnx no longer works on cpu: CUDA failure 700"):
        list(replace(fragile(), session=broken).predict(random_windows(3, 4), failed))


@pytest.mark.parametrize("then", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:100])])
def test_a_loaded_model_outlives_its_file(own_model: Path, tmp_path: Path, then: Callable[[Path], object]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(own_model.read_bytes())
    predictor = load_onnx(path, "m", "cpu")
    then(path)
    assert forecasts(predictor, random_windows(600)) == forecasts(load_onnx(own_model, "m", "cpu"), random_windows(600))


def test_a_large_level_is_added_to_the_forecast_of_the_window_without_it(own_model: Path) -> None:
    without = load_onnx(own_model, "tiny/7", "cpu")
    assert isinstance(without.card, Card)
    predictor = replace(without, card=msgspec.structs.replace(without.card, floors={"value": 0.01}))
    low, high = random_windows(300), random_windows(300)
    high.x[1::2] += 3e9
    expected = np.concatenate(list(without.predict(low)))
    made = np.concatenate(list(predictor.predict(high)))
    assert made[::2].astype(np.float32).tobytes() == expected[::2].tobytes()
    np.testing.assert_allclose(made[1::2] - 3e9, expected[1::2], atol=0.01)
    (coarse,) = without.predict(high.part(1, 2))
    assert np.abs(coarse - 3e9 - expected[1]).max() > 1, "as in earlier versions"


def test_a_spike_does_not_set_the_forecast_and_is_said_once(own_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = load_onnx(own_model, "tiny/7", "cpu")
    assert isinstance(loaded.card, Card)
    spiky, plain = random_windows(9), random_windows(9)
    spiky.x[4, -2] = 1e9
    predictor = replace(loaded, card=msgspec.structs.replace(loaded.card, spans={"value": 150.0}))
    expected, made = (np.concatenate(list(predictor.predict(each))) for each in (plain, spiky))
    rest = [0, 1, 2, 3, 5, 6, 7, 8]
    assert made[rest].tobytes() == expected[rest].tobytes()
    assert np.abs(made[4] - expected[4]).max() < 100
    list(predictor.predict(spiky))
    said = [line for line in caplog.messages if "far from all others" in line]
    assert said == [
        "tiny/7: a few readings far from all others of their window count as the nearest of these; not said again"
    ]
    (unbounded,) = loaded.predict(spiky)
    assert np.abs(unbounded[4]).max() > 1e6, "as in earlier versions"


def test_a_window_that_is_not_full_has_no_spikes(own_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = load_onnx(own_model, "tiny/7", "cpu")
    assert isinstance(loaded.card, Card)
    predictor = replace(loaded, card=msgspec.structs.replace(loaded.card, spans={"value": 150.0}))
    store = WindowStore(window_config(loaded.card.input), short=True)
    for hour in range(12):
        store.push(Event("new", hour * 3_600_000, (5000.0 + hour,)))
    list(predictor.predict(store.take()))
    assert not caplog.messages


def test_digits_that_an_earlier_model_loses_are_said_once(own_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    predictor, windows = load_onnx(own_model, "tiny/7", "cpu"), random_windows(9)
    list(predictor.predict(windows))
    assert not caplog.messages
    windows.x[:] += 3e9
    for _ in range(2):
        list(predictor.predict(windows))
    assert [line for line in caplog.messages if "digits are lost in float32" in line] == caplog.messages
    assert len(caplog.messages) == 1
