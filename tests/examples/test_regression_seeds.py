"""Scripts 002 and 004 reproduce the figures of their documents, and run on the bundled samples."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seed_002_next_character as next_character
import seed_002_regression as regression
import seed_004_from_scratch as from_scratch
import seeds
import torch
from seed_002_regression import EveryStepNetwork
from torch import Tensor, nn

from model.networks.protocol import State
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import FittedForecaster, fit
from model.windows import WindowData
from tidecast.errors import ShapeError

pytestmark = pytest.mark.usefixtures("one_thread")

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SCRIPTS = Path(seeds.__file__).parent


def shared(name: str) -> Path:
    """A data set of the documents, which is not bundled."""
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name}: the document's data set is not available")
    return SHARED / name


@pytest.fixture(scope="module")
def book() -> str:
    return seeds.read_text(shared("text/anna.txt"))


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def flights() -> Tensor:
    return torch.from_numpy(regression.read_series(shared("series/flights.csv"))["value"].to_numpy().astype(np.float32))


# 002, regression


def test_sliding_windows_are_those_of_the_notebook() -> None:
    values = flights()
    train = regression.min_max_scale(values[: -regression.HELD_OUT])
    pairs = list(regression.sliding_windows(train))
    assert (len(values), len(train), len(pairs)) == (144, 132, 120)
    assert all(x.shape == (1, 12, 1) and y.shape == (12, 1) for x, y in pairs)
    assert all(torch.equal(x[0, 1:], y[:-1]) for x, y in pairs)
    assert torch.equal(pairs[0][0][0], train[:12])
    assert torch.equal(pairs[-1][1][-1], train[-1])


def test_min_max_scale_maps_the_range_to_minus_one_and_one() -> None:
    scaled = regression.min_max_scale(torch.tensor([10.0, 30.0, 20.0]))
    assert scaled.tolist() == [[-1.0], [1.0], [0.0]]


@pytest.mark.parametrize(
    ("sizes", "count"), [((1, 100, 1, 1), 41_301), ((1, 100, 2, 1), 122_101), ((50, 100, 2, 50), 146_650)]
)
def test_parameter_counts_match_the_notebook_and_the_post(sizes: tuple[int, int, int, int], count: int) -> None:
    assert parameters(EveryStepNetwork(*sizes)) == count


@pytest.mark.parametrize(("features", "outputs"), [(1, 1), (50, 50)], ids=["regression", "classification"])
def test_shapes_match_the_post(features: int, outputs: int) -> None:
    network = EveryStepNetwork(features, 100, 2, outputs)
    x_BSF = torch.zeros(4, 7, features)
    assert network.flow(x_BSF) == [(4, 7, features), (4, 7, 100), (28, 100), (28, outputs)]
    rows, (h, c) = network(x_BSF)
    assert (rows.shape, h.shape, c.shape) == ((28, outputs), (2, 4, 100), (2, 4, 100))


def test_a_single_target_is_not_broadcast() -> None:
    rows = torch.zeros(28, 1)
    assert regression.mean_squared_error(rows, torch.full((28, 1), 2.0)).item() == 4
    for single in (torch.zeros(4), torch.zeros(28), torch.zeros(4, 1)):
        with pytest.raises(ShapeError):
            regression.mean_squared_error(rows, single)


def test_an_epoch_has_one_step_per_window_and_carries_the_state() -> None:
    torch.manual_seed(0)
    train, network = regression.min_max_scale(torch.arange(15.0)), EveryStepNetwork(1, 4, 1, 1)
    frozen = torch.optim.SGD(network.parameters(), lr=0.0)
    total, state = regression.run_epoch(network, frozen, train)
    expected, carried = 0.0, None
    for x, y in regression.sliding_windows(train):
        rows, carried = network(x, carried)
        expected += float((rows.detach() - y).square().mean())
    assert total == pytest.approx(expected)
    assert state is not None
    assert carried is not None
    assert torch.equal(state[0], carried[0])
    assert not state[0].requires_grad


def test_parity_returns_the_rmse_in_passengers() -> None:
    """An untrained network forecasts about 0, the middle of the range: sqrt(.48) of half the range of 232."""
    error = regression.parity(flights().numpy(), 1, 0)
    assert 70 < error < 90


def test_honest_does_not_train_on_held_out_months(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[WindowData] = []

    def recording_fit(data: WindowData, *rest: object) -> FittedForecaster:
        fitted.append(data)
        return fit(data, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(regression, "fit", recording_fit)
    frame = regression.read_series(shared("series/flights.csv"))
    scores = regression.honest(frame, ForecastConfig(arch="lstm", hidden=4, epochs=1))
    assert {len(data.values) for data in fitted} == {132}
    assert all(data.ts.max() < frame["ts"][132] for data in fitted)
    assert scores["naive, last"] == pytest.approx(55.4, abs=0.05)
    assert scores["naive, year"] == pytest.approx(50.1, abs=0.05)


def test_daily_prices_are_read_as_they_are() -> None:
    assert len(regression.read_series(shared("series/dowjones.csv"))) == 649


def test_taxi_counts_are_summed_by_day() -> None:
    taxis = regression.read_series(regression.TAXI)
    assert len(taxis) == 215
    first_day = regression.TAXI.read_text().splitlines()[1:49]
    assert taxis["value"][0] == sum(float(line.split(",")[1]) for line in first_day)


# 002, next character


def test_the_book_is_split_as_in_the_notebook(book: str) -> None:
    train, validation = next_character.split_text(book)
    assert (len(train), len(validation)) == (1_786_701, 198_522)
    assert train + validation == book
    assert len(set(book)) == 83


def test_the_batches_are_those_of_the_notebook(book: str) -> None:
    for part, count in zip(next_character.split_text(book), (139, 15), strict=True):
        batches = list(next_character.get_batches(torch.arange(len(part))))
        assert len(batches) == count
        assert all(batch.x.shape == batch.y.shape == (128, 100) for batch in batches)
        assert all(torch.equal(batch.x[:, 1:], batch.y[:, :-1]) for batch in batches)
        assert all(torch.equal(a.y[:, -1], b.x[:, 0]) for a, b in pairwise(batches))
        assert [batch.carried for batch in batches] == [False] + [True] * (count - 1)


def test_the_last_target_wraps_around_to_the_first_character() -> None:
    *_, last = next_character.get_batches(torch.arange(24), streams=2, steps=3)
    assert last.x.tolist() == [[9, 10, 11], [21, 22, 23]]
    assert last.y.tolist() == [[10, 11, 12], [22, 23, 0]]


def test_the_notebooks_network_has_dropout_between_layers_only() -> None:
    model = next_character.build_network(83)
    assert parameters(model) == 1_993_373
    assert (model.core.dropout, model.dropout.p) == (0.5, 0.0)


def test_the_printed_losses_are_sums_over_batches() -> None:
    torch.manual_seed(0)
    model, text = next_character.build_network(5), torch.arange(60) % 5
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    total, nats = next_character.run_epoch(model.eval(), next_character.get_batches(text, 2, 10))
    assert total == pytest.approx(3 * nats)
    assert nats == pytest.approx(np.log(5), abs=0.1)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    steps = torch.optim.Adam(model.parameters(), lr=0.001)
    next_character.run_epoch(model.train(), next_character.get_batches(text, 2, 10), steps)
    _, trained_nats = next_character.run_epoch(model.eval(), next_character.get_batches(text, 2, 10))
    assert trained_nats < nats


def test_generated_characters_are_among_the_most_likely() -> None:
    torch.manual_seed(0)
    model = next_character.build_network(30).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.arange(30) / 10)
    generated = list(next_character.generate(model, [3, 4], str))
    assert len(generated) == next_character.LENGTH
    assert set(generated) == {"25", "26", "27", "28", "29"}


# 004


def flat(result: tuple[Tensor, State]) -> tuple[Tensor, Tensor, Tensor]:
    return result[0], *result[1]


def test_parameter_shapes_match_the_document() -> None:
    own, torchs, x_BSE, _ = from_scratch.make_example(0)
    assert parameters(own) == parameters(torchs) == 129_600
    shapes = [tuple(weight.shape) for weight in from_scratch.layer_weights(own)[0]]
    assert shapes == [(400, 20), (400, 100), (400,), (400,)]
    assert x_BSE.shape == (64, 8, 20)


def test_both_implementations_match_torch_and_so_do_our_gradients() -> None:
    own, torchs, x_BSE, state = from_scratch.make_example(0)
    ours, theirs = own(x_BSE, state), torchs(x_BSE, state)
    assert from_scratch.compare("ours", ours, theirs) <= 1e-6
    assert from_scratch.parity(own, torchs, x_BSE, state) <= 1e-6
    gradients = from_scratch.gradients(own, ours), from_scratch.gradients(torchs, theirs)
    assert len(gradients[0]) == 8
    assert from_scratch.max_abs_difference(*gradients) <= 1e-5


def test_backward_fails_for_the_documents_implementation_only() -> None:
    own, _, x_BSE, state = from_scratch.make_example(0)
    given = state[0].clone(), state[1].clone()
    assert from_scratch.backward_error(own(x_BSE, given)) == ""
    assert torch.equal(given[0], state[0])
    assert torch.equal(given[1], state[1])
    result = from_scratch.in_place_lstm(x_BSE.transpose(0, 1), given, from_scratch.layer_weights(own))
    assert "modified by an inplace operation" in from_scratch.backward_error(result)
    assert not torch.equal(given[0], state[0])
    assert torch.equal(given[0], result[1][0])


def test_compare_detects_a_changed_weight() -> None:
    own, torchs, x_BSE, state = from_scratch.make_example(0)
    with torch.no_grad():
        next(own.parameters())[0, 0] += 0.01
    assert from_scratch.compare("ours", own(x_BSE, state), torchs(x_BSE, state)) > 1e-5


def test_our_implementation_trains() -> None:
    torch.manual_seed(0)
    before, after, naive = from_scratch.train(torch.sin(torch.arange(2000) / 3), epochs=5)
    assert after < naive < before


# all scripts, as subprocesses


def run(script: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPTS / f"seed_{script}.py"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The beginning of the bundled sample: an epoch of the whole sample takes a minute."""
    path = tmp_path_factory.mktemp("anna") / "anna.txt"
    path.write_text(seeds.read_text(seeds.SAMPLES / "anna.txt")[:3_000])
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["parity", "honest"])
def test_the_scripts_run(mode: str, page: str) -> None:
    options = ("--mode", mode, "--epochs", "1", "--seed", "1")
    for script, more, key, low, high in (
        ("002_regression", (), "rmse", 5e4, 5e5),
        ("002_next_character", ("--data", page), "nats", 2.5, 4.5),
        ("004_from_scratch", (), "max_abs", 0.0, 1e-6),
    ):
        result = run(script, *options, *more)
        assert set(result) == {"mode", key, "seconds"}
        assert result["mode"] == mode
        assert low < result[key] <= high


def test_a_too_short_file_is_reported_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("ts,value\n2020-01-01,1\n2020-01-02,2\n")
    command = [sys.executable, str(SCRIPTS / "seed_002_regression.py"), "--data", str(tmp_path / "short.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
