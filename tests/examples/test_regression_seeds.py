"""What documents 002 and 004 say is found again on their data, and their scripts run on what the project carries."""

import json
import subprocess
import sys
from collections.abc import Iterator
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
from seed_002_regression import EveryStep
from torch import Tensor, nn

from model.networks.protocol import State
from model.training.forecasting import FittedForecaster, ForecastConfig, fit
from model.windows import WindowData
from tidecast.errors import ShapeError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SCRIPTS = Path(seeds.__file__).parent


def shared(name: str) -> Path:
    """The document's own data, which the project does not carry."""
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name}: the document's data is not here")
    return SHARED / name


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the scripts do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def book() -> str:
    return seeds.lines_of(shared("text/anna.txt"))


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def flights() -> Tensor:
    return torch.from_numpy(regression.series(shared("series/flights.csv"))["value"].to_numpy().astype(np.float32))


# 002, regression


def test_the_notebooks_windows() -> None:
    values = flights()
    train = regression.scaled(values[: -regression.HELD_OUT])
    pairs = list(regression.overlapping(train))
    assert (len(values), len(train), len(pairs)) == (144, 132, 120)
    assert all(x.shape == (1, 12, 1) and y.shape == (12, 1) for x, y in pairs)
    assert all(torch.equal(x[0, 1:], y[:-1]) for x, y in pairs)
    assert torch.equal(pairs[0][0][0], train[:12])
    assert torch.equal(pairs[-1][1][-1], train[-1])


def test_each_part_is_scaled_by_its_own_range() -> None:
    scaled = regression.scaled(torch.tensor([10.0, 30.0, 20.0]))
    assert scaled.tolist() == [[-1.0], [1.0], [0.0]]


@pytest.mark.parametrize(
    ("sizes", "count"), [((1, 100, 1, 1), 41_301), ((1, 100, 2, 1), 122_101), ((50, 100, 2, 50), 146_650)]
)
def test_parameters_of_the_notebook_and_the_post(sizes: tuple[int, int, int, int], count: int) -> None:
    assert parameters(EveryStep(*sizes)) == count


@pytest.mark.parametrize(("features", "outputs"), [(1, 1), (50, 50)], ids=["regression", "classification"])
def test_the_posts_data_flow(features: int, outputs: int) -> None:
    network = EveryStep(features, 100, 2, outputs)
    x_BSF = torch.zeros(4, 7, features)
    assert network.flow(x_BSF) == [(4, 7, features), (4, 7, 100), (28, 100), (28, outputs)]
    rows, (h, c) = network(x_BSF)
    assert (rows.shape, h.shape, c.shape) == ((28, outputs), (2, 4, 100), (2, 4, 100))


def test_a_lone_eighth_day_is_refused() -> None:
    rows = torch.zeros(28, 1)
    assert regression.mean_squared(rows, torch.full((28, 1), 2.0)).item() == 4
    for lone in (torch.zeros(4), torch.zeros(28), torch.zeros(4, 1)):
        with pytest.raises(ShapeError):
            regression.mean_squared(rows, lone)


def test_an_epoch_is_a_step_a_window_and_keeps_the_state() -> None:
    torch.manual_seed(0)
    train, network = regression.scaled(torch.arange(15.0)), EveryStep(1, 4, 1, 1)
    still = torch.optim.SGD(network.parameters(), lr=0.0)
    total, state = regression.one_pass(network, still, train)
    expected, carried = 0.0, None
    for x, y in regression.overlapping(train):
        rows, carried = network(x, carried)
        expected += float((rows.detach() - y).square().mean())
    assert total == pytest.approx(expected)
    assert state is not None
    assert carried is not None
    assert torch.equal(state[0], carried[0])
    assert not state[0].requires_grad


def test_parity_gives_the_error_in_passengers() -> None:
    """An untrained network says about 0, the middle of the last year: sqrt(.48) of half its range of 232."""
    error = regression.parity(flights().numpy(), 1, 0)
    assert 70 < error < 90


def test_honest_learns_from_no_month_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[WindowData] = []

    def watched(data: WindowData, *rest: object) -> FittedForecaster:
        seen.append(data)
        return fit(data, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(regression, "fit", watched)
    frame = regression.series(shared("series/flights.csv"))
    scores = regression.honest(frame, ForecastConfig(arch="lstm", hidden=4, epochs=1))
    assert {len(data.values) for data in seen} == {132}
    assert all(data.ts.max() < frame["ts"][132] for data in seen)
    assert scores["naive, last"] == pytest.approx(55.4, abs=0.05)
    assert scores["naive, year"] == pytest.approx(50.1, abs=0.05)


def test_prices_are_read_and_taxis_counted_by_day() -> None:
    assert len(regression.series(shared("series/dowjones.csv"))) == 649
    taxis = regression.series(regression.TAXI)
    assert len(taxis) == 215
    first_day = regression.TAXI.read_text().splitlines()[1:49]
    assert taxis["value"][0] == sum(float(line.split(",")[1]) for line in first_day)


# 002, next character


def test_the_books_parts_and_characters(book: str) -> None:
    train, validation = next_character.parts(book)
    assert (len(train), len(validation)) == (1_786_701, 198_522)
    assert train + validation == book
    assert len(set(book)) == 83


def test_the_books_batches(book: str) -> None:
    for part, count in zip(next_character.parts(book), (139, 15), strict=True):
        batches = list(next_character.get_batches(torch.arange(len(part))))
        assert len(batches) == count
        assert all(batch.x.shape == batch.y.shape == (128, 100) for batch in batches)
        assert all(torch.equal(batch.x[:, 1:], batch.y[:, :-1]) for batch in batches)
        assert all(torch.equal(a.y[:, -1], b.x[:, 0]) for a, b in pairwise(batches))
        assert [batch.carried for batch in batches] == [False] + [True] * (count - 1)


def test_the_last_target_is_the_first_character() -> None:
    *_, last = next_character.get_batches(torch.arange(24), streams=2, steps=3)
    assert last.x.tolist() == [[9, 10, 11], [21, 22, 23]]
    assert last.y.tolist() == [[10, 11, 12], [22, 23, 0]]


def test_the_notebooks_network_drops_out_between_its_layers_alone() -> None:
    model = next_character.network(83)
    assert parameters(model) == 1_993_373
    assert (model.core.dropout, model.dropout.p) == (0.5, 0.0)


def test_the_losses_printed_are_sums() -> None:
    torch.manual_seed(0)
    model, text = next_character.network(5), torch.arange(60) % 5
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    total, nats = next_character.one_pass(model.eval(), next_character.get_batches(text, 2, 10))
    assert total == pytest.approx(3 * nats)
    assert nats == pytest.approx(np.log(5), abs=0.1)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    steps = torch.optim.Adam(model.parameters(), lr=0.001)
    next_character.one_pass(model.train(), next_character.get_batches(text, 2, 10), steps)
    _, learnt = next_character.one_pass(model.eval(), next_character.get_batches(text, 2, 10))
    assert learnt < nats


def test_a_text_is_drawn_from_the_likeliest_characters_alone() -> None:
    torch.manual_seed(0)
    model = next_character.network(30).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.arange(30) / 10)
    said = list(next_character.drawn(model, [3, 4], str))
    assert len(said) == next_character.LENGTH
    assert set(said) == {"25", "26", "27", "28", "29"}


# 004


def flat(result: tuple[Tensor, State]) -> tuple[Tensor, Tensor, Tensor]:
    return result[0], *result[1]


def test_the_documents_weights() -> None:
    own, torchs, x_BSE, _ = from_scratch.example(0)
    assert parameters(own) == parameters(torchs) == 129_600
    shapes = [tuple(weight.shape) for weight in from_scratch.weights_of(own)[0]]
    assert shapes == [(400, 20), (400, 100), (400,), (400,)]
    assert x_BSE.shape == (64, 8, 20)


def test_both_stacks_are_torchs_and_the_gradients_of_ours_too() -> None:
    own, torchs, x_BSE, state = from_scratch.example(0)
    ours, theirs = own(x_BSE, state), torchs(x_BSE, state)
    assert from_scratch.verified("ours", ours, theirs) <= 1e-6
    assert from_scratch.parity(own, torchs, x_BSE, state) <= 1e-6
    gradients = from_scratch.gradients(own, ours), from_scratch.gradients(torchs, theirs)
    assert len(gradients[0]) == 8
    assert from_scratch.largest(*gradients) <= 1e-5


def test_the_documents_backward_fails_and_ours_does_not() -> None:
    own, _, x_BSE, state = from_scratch.example(0)
    given = state[0].clone(), state[1].clone()
    assert from_scratch.backward_error(own(x_BSE, given)) == ""
    assert torch.equal(given[0], state[0])
    assert torch.equal(given[1], state[1])
    result = from_scratch.in_place(x_BSE.transpose(0, 1), given, from_scratch.weights_of(own))
    assert "modified by an inplace operation" in from_scratch.backward_error(result)
    assert not torch.equal(given[0], state[0])
    assert torch.equal(given[0], result[1][0])


def test_a_check_that_can_fail() -> None:
    own, torchs, x_BSE, state = from_scratch.example(0)
    with torch.no_grad():
        next(own.parameters())[0, 0] += 0.01
    assert from_scratch.verified("ours", own(x_BSE, state), torchs(x_BSE, state)) > 1e-5


def test_ours_learns() -> None:
    torch.manual_seed(0)
    before, after, naive = from_scratch.learn(torch.sin(torch.arange(2000) / 3), epochs=5)
    assert after < naive < before


# All of them, as they are run


def run(script: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPTS / f"seed_{script}.py"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The start of the carried sample: an epoch of all of it takes a minute."""
    path = tmp_path_factory.mktemp("anna") / "anna.txt"
    path.write_text(seeds.lines_of(seeds.SAMPLES / "anna.txt")[:3_000])
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


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("ts,value\n2020-01-01,1\n2020-01-02,2\n")
    command = [sys.executable, str(SCRIPTS / "seed_002_regression.py"), "--data", str(tmp_path / "short.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
