"""The table of shapes, row by row, for each kind of model."""

import pytest
import torch
from torch import Tensor

from model.card import AnyCard, InputSpec, OutputSpec
from model.networks import protocol
from model.networks.forecast import build_network
from model.networks.protocol import State
from model.networks.text import Classifier, NextToken, build_classifier, build_next_token
from model.networks.trace import Trace, trace
from model.training.classification import ClassifyConfig, classifier_card
from model.training.forecasting import ForecastConfig, forecast_card
from model.training.next_token import NextTokenConfig, next_token_card

Row = tuple[str, str, tuple[int, ...], int]

X = torch.tensor([[2, 3, 4, 5, 6], [1, 2, 0, 0, 0]])
LENGTHS = torch.tensor([5, 2])
SERIES = torch.arange(80.0).view(5, 8, 2)


def rows(found: Trace) -> list[Row]:
    return [(step.layer, step.legend, step.shape, step.parameters) for step in found.steps]


def labelling(config: ClassifyConfig, labels: int = 3) -> tuple[Classifier, AnyCard]:
    card = classifier_card([f"label-{number}" for number in range(labels)], {}, 11, config, "labels")
    return build_classifier(card), card


def state(batch: int, layers: int, hidden: int) -> list[Row]:
    return [("", f"(L,B,H) {name}", (layers, batch, hidden), 0) for name in "hc"]


def lstm(width: int, hidden: int) -> int:
    """The weights of a layer: four gates, each with its input, its state and two biases."""
    return 4 * hidden * (width + hidden + 2)


def test_a_classifier() -> None:
    config = ClassifyConfig(hidden=3, layers=2, embedding=4, select="mean_max", both_ways=False)
    model, card = labelling(config)
    found = trace(model, card, {"x": X, "lengths": LENGTHS})
    assert rows(found) == [
        ("input x", "(B,S)", (2, 5), 0),
        ("input lengths", "(B)", (2,), 0),
        ("encode", "(B,S,E)", (2, 5, 4), 11 * 4),
        ("cores.0", "(B,S,H)", (2, 5, 3), lstm(4, 3) + lstm(3, 3)),
        *state(2, 2, 3),
        ("select", "(B,2H)", (2, 6), 0),
        ("head", "(N,O)", (2, 3), 3 * 7),
        ("output probability", "(B,3)", (2, 3), 0),
    ]
    assert found.last_is_state


def one_way(core: str) -> list[Row]:
    return [(core, "(B,S,H)", (2, 5, 3), lstm(11, 3)), *state(2, 1, 3), ("select", "(B,H)", (2, 3), 0)]


def test_a_classifier_of_two_labels_that_reads_both_ways() -> None:
    model, card = labelling(ClassifyConfig(hidden=3, embedding=0, select="last", both_ways=True), labels=2)
    found = trace(model, card, {"x": X, "lengths": LENGTHS})
    assert rows(found) == [
        ("input x", "(B,S)", (2, 5), 0),
        ("input lengths", "(B)", (2,), 0),
        ("encode", "(B,S,V)", (2, 5, 11), 0),
        *one_way("cores.0"),
        *one_way("cores.1"),
        ("head", "(N,O)", (2, 1), 7),
        ("output probability", "(B,2)", (2, 2), 0),
    ]
    assert found.last_is_state


def test_a_next_token_model() -> None:
    card = next_token_card({}, 7, NextTokenConfig(hidden=3, embedding=4), "text")
    model: NextToken = build_next_token(card)
    h, c = (torch.rand(1, 2, 3) for _ in "hc")
    found = trace(model, card, {"x": X, "h": h, "c": c})
    assert rows(found) == [
        ("input x", "(B,S)", (2, 5), 0),
        ("input h", "(1,B,3)", (1, 2, 3), 0),
        ("input c", "(1,B,3)", (1, 2, 3), 0),
        ("encode", "(B,S,E)", (2, 5, 4), 7 * 4),
        ("core", "(B,S,H)", (2, 5, 3), lstm(4, 3)),
        *state(2, 1, 3),
        ("select", "(B*S,H)", (10, 3), 0),
        ("head", "(N,O)", (10, 7), 7 * 4),
        ("output logits", "(B,S,7)", (2, 5, 7), 0),
        ("output h_out", "(1,B,3)", (1, 2, 3), 0),
        ("output c_out", "(1,B,3)", (1, 2, 3), 0),
    ]
    assert found.last_is_state


def forecasting(config: ForecastConfig) -> Trace:
    inputs = InputSpec(seq_len=8, features=("flow", "heat"))
    outputs = OutputSpec(horizon=4, targets=("heat",))
    card = forecast_card(inputs, outputs, config, "pump")
    return trace(build_network(card), card, {"x": SERIES})


NORMALISED: list[Row] = [
    ("input x", "(B,8,2)", (5, 8, 2), 0),
    ("normalisation", "(B,S,F) normalised", (5, 8, 2), 0),
    ("", "(B,1,F) location", (5, 1, 2), 0),
    ("", "(B,1,F) scale", (5, 1, 2), 0),
]


def test_a_forecaster_that_reads_step_by_step() -> None:
    found = forecasting(ForecastConfig(arch="lstm", hidden=3, layers=2))
    assert rows(found) == [
        *NORMALISED,
        ("core", "(B,S,H)", (5, 8, 3), lstm(2, 3) + lstm(3, 3)),
        *state(5, 2, 3),
        ("select", "(B,H)", (5, 3), 0),
        ("head", "(N,O)", (5, 4), 4 * 4),
        ("output forecast", "(B,4,1)", (5, 4, 1), 0),
    ]
    assert found.last_is_state


def test_a_forecaster_that_reads_in_segments() -> None:
    found = forecasting(ForecastConfig(arch="segment", hidden=3, segment=2))
    assert rows(found) == [
        *NORMALISED,
        ("embed", "(B,S',H) segments", (5, 4, 3), 3 * 5),
        ("core", "(B,S,H)", (5, 4, 3), lstm(3, 3)),
        *state(5, 1, 3),
        ("core", "(B,S,H)", (10, 1, 3), lstm(3, 3)),
        *state(10, 1, 3),
        ("select", "(B*S,H)", (10, 3), 0),
        ("head", "(N,O)", (10, 2), 2 * 4),
        ("output forecast", "(B,4,1)", (5, 4, 1), 0),
    ]
    assert found.last_is_state


@pytest.mark.parametrize("select", ["last", "mean_max", "last_padded"])
@pytest.mark.parametrize("lengths", [[5, 2], [5, 5], [1, 1], [3, 4]])
def test_the_last_real_output_is_the_state_whatever_the_padding(lengths: list[int], select: str) -> None:
    config = ClassifyConfig(hidden=3, embedding=4, layers=2, select=select)  # type: ignore[arg-type]
    model, card = labelling(config)
    assert trace(model, card, {"x": X, "lengths": torch.tensor(lengths)}).last_is_state


class Core(protocol.Core):
    """One whose state is not its last output."""

    def forward(  # type: ignore[override]
        self, x_BSE: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        out_BSH, (h, c) = super().forward(x_BSE, state, lengths)
        return out_BSH, (h + 1, c)


def test_a_state_that_is_not_the_last_output_is_told() -> None:
    card = next_token_card({}, 7, NextTokenConfig(hidden=3, embedding=4), "text")
    model = build_next_token(card)
    given = dict(zip(("x", "h", "c"), (X, *model.start(2)), strict=True))
    assert trace(model, card, given).last_is_state
    model.core = Core(4, 3, 1)
    assert not trace(model, card, given).last_is_state


def test_a_look_leaves_no_trace() -> None:
    model, card = labelling(ClassifyConfig(hidden=3, embedding=4))
    given = {"x": X, "lengths": LENGTHS}
    before = model.eval()(X, LENGTHS)
    assert rows(trace(model, card, given)) == rows(trace(model.train(), card, given))
    assert torch.equal(model.eval()(X, LENGTHS), before)
