import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from model.card import Card, InputSpec, OutputSpec, read_card

CARD = Card(
    name="taxi",
    input=InputSpec(seq_len=336, features=("rides", "rain"), freq="30m", max_gap=2, inputs=("x", "observed")),
    output=OutputSpec(horizon=48, targets=("rain",)),
    arch="segment",
    hyperparameters={"hidden": 64, "dropout": 0.1, "location": "mean"},
    ranges={"rides": (0.0, 39197.0), "rain": (-0.5, 1e-30)},
    trained_until=1417174200000,
    metrics={"validation_mse": 0.0722},
)


def test_card_round_trips_through_json() -> None:
    assert read_card(CARD.to_json()) == CARD
    assert CARD.target_columns == [1]


def test_seasons_of_a_card_are_its_own_first_and_without_one_the_calendar_s() -> None:
    spec = InputSpec(seq_len=2, freq="1h", season=12)
    assert (spec.season_lag, list(spec.lags.items())) == (12, [("season", 12), ("day", 24), ("week", 168)])
    earlier = read_card(CARD.to_json().replace(',"season":null', ""))
    assert isinstance(earlier, Card)
    assert earlier == CARD, "a card of an earlier version has no such field"
    assert (earlier.input.lags, earlier.input.season_lag) == ({"day": 48, "week": 336}, 48)
    assert InputSpec(seq_len=2).season_lag == 1


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("seq_len", lambda: InputSpec(seq_len=1)),
        ("features", lambda: InputSpec(seq_len=2, features=())),
        ("features", lambda: InputSpec(seq_len=2, features=("a", "a"))),
        ("freq", lambda: InputSpec(seq_len=2, freq="30 minutes")),
        ("freq", lambda: InputSpec(seq_len=2, freq="0h")),
        ("max_gap", lambda: InputSpec(seq_len=2, max_gap=-1)),
        ("season", lambda: InputSpec(seq_len=2, season=1)),
        ("inputs", lambda: InputSpec(seq_len=2, inputs=("observed",))),
        ("inputs", lambda: InputSpec(seq_len=2, inputs=("x", "moon"))),
        ("inputs", lambda: InputSpec(seq_len=2, inputs=("x", "future"))),
        ("known", lambda: InputSpec(seq_len=2, freq="1h", known=("moon",))),
        ("known", lambda: InputSpec(seq_len=2, known=("value",))),
        ("horizon", lambda: OutputSpec(horizon=0)),
        ("targets", lambda: OutputSpec(horizon=1, targets=("",))),
        ("known", lambda: msgspec.structs.replace(CARD, input=msgspec.structs.replace(CARD.input, known=("rain",)))),
        ("targets", lambda: msgspec.structs.replace(CARD, output=OutputSpec(horizon=1, targets=("snow",)))),
    ],
)
def test_card_error_names_the_field(field: str, make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        make()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "truncated"),
        ("{}", "name"),
        (CARD.to_json().replace('"format":1', '"format":2'), "format: 2, this version reads 1"),
        (CARD.to_json().replace('"horizon":48', '"horizon":0'), "horizon: 0"),
        (CARD.to_json().replace('"seq_len":336', '"seq_len":"336"'), "seq_len"),
        (CARD.to_json().replace('"seq_len":336,', ""), "seq_len"),
    ],
)
def test_damaged_card_error_is_one_line_naming_the_field(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        read_card(text)
    assert "\n" not in str(raised.value)


def test_card_and_registry_import_neither_torch_nor_mlflow() -> None:
    modules = "model.card, model.artifacts.registry"
    program = f"import sys, {modules}; print(*{{'torch', 'onnx', 'onnxruntime', 'mlflow'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
