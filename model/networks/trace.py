"""The shapes of a batch at each layer of a network."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.card import AnyCard
from model.networks.protocol import Core, Select

LEGENDS = {
    "Normalisation": ("(B,S,F) normalised", "(B,1,F) location", "(B,1,F) scale"),
    "Embedding": ("(B,S,E)",),
    "OneHot": ("(B,S,V)",),
    "Linear": ("(B,S',H) segments",),
    "Core": ("(B,S,H)", "(L,B,H) h", "(L,B,H) c"),
    "Head": ("(N,O)",),
}
SELECTED = {"all": "(B*S,H)", "last": "(B,H)", "mean_max": "(B,2H)", "last_padded": "(B,H)"}


@dataclass(frozen=True, slots=True)
class Step:
    """An output of one layer."""

    layer: str
    legend: str
    """The shape in letters: see model/networks/protocol.py."""
    shape: tuple[int, ...]
    parameters: int
    """Parameter count of the layer."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The layer outputs of one forward pass."""

    steps: list[Step]
    last_is_state: bool
    """Whether the LSTM's output at each row's last real step equals the last layer of its state h_n."""


@torch.inference_mode()
def trace(model: nn.Module, card: AnyCard, inputs: Mapping[str, Tensor]) -> Trace:
    """Runs a model in evaluation mode on the card's named inputs, and records the output shapes of each layer."""
    given = [inputs[name] for name in card.inputs]
    steps = [
        _step(f"input {name}", f"({','.join(_letter(size) for size in card.inputs[name].shape)})", inputs[name])
        for name in card.inputs
    ]
    equal: list[bool] = []

    def note(name: str, layer: nn.Module, taken: tuple[Any, ...], gave: Any) -> None:
        if isinstance(layer, Core):
            lengths = inputs.get("lengths")
            x_BSE, *before = taken
            out, (h, c) = layer.forward(x_BSE, before[0] if before else None, lengths)
            equal.append(torch.equal(Select("last")(out, lengths), h[-1]))
            gave = (gave[0], h, c)
        legends = (SELECTED[layer.mode],) if isinstance(layer, Select) else LEGENDS[type(layer).__name__]
        outputs = gave if isinstance(gave, tuple) else (gave,)
        weights = [sum(weight.numel() for weight in layer.parameters())] + [0] * len(outputs)
        for place, (legend, output) in enumerate(zip(legends, outputs, strict=True)):
            steps.append(_step(name if place == 0 else "", legend, output, weights[place]))

    with ExitStack() as hooks:
        for name, layer in model.eval().named_modules():
            if isinstance(layer, Select) or type(layer).__name__ in LEGENDS:
                said = name.removeprefix("members.0.").removeprefix("network.")
                hook = layer.register_forward_hook(lambda *call, said=said: note(said, *call))
                hooks.callback(hook.remove)
        gave = model(*given)
    for (name, array), output in zip(card.outputs.items(), gave if isinstance(gave, tuple) else (gave,), strict=True):
        steps.append(_step(f"output {name}", f"({','.join(_letter(size) for size in array.shape)})", output))
    return Trace(steps, all(equal))


def _step(layer: str, legend: str, output: Tensor, parameters: int = 0) -> Step:
    return Step(layer, legend, tuple(output.shape), parameters)


def _letter(size: int | str) -> str:
    return {"batch": "B", "steps": "S"}.get(str(size), str(size))
