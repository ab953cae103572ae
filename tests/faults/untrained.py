"""Untrained models of one-minute steps: 12 back, 4 ahead."""

from pathlib import Path

from model.artifacts.export import export
from model.card import Card, InputSpec, OutputSpec, Setting
from model.networks.forecast import build_network

SEQ_LEN, HORIZON = 12, 4


def tiny_model(path: Path) -> Path:
    """A small one, written to `path`."""
    return _written(path, {"hidden": 8, "layers": 1, "segment": 4})


def slow_model(path: Path) -> Path:
    """One that takes some 5 ms a window, so that a full poll takes longer than a transaction may."""
    return _written(path, {"hidden": 768, "layers": 3, "segment": 1})


def _written(path: Path, size: dict[str, Setting]) -> Path:
    card = Card(
        name=path.stem,
        input=InputSpec(seq_len=SEQ_LEN, freq="1m"),
        output=OutputSpec(horizon=HORIZON),
        arch="segment",
        hyperparameters={**size, "dropout": 0.0, "location": "last"},
        trained_until=0,
    )
    export(build_network(card), card, path)
    return path
