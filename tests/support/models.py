"""Untrained networks as model files, each made once a run: an export takes seconds."""

import hashlib
from pathlib import Path

import torch
from sharing import Shared

from model.artifacts.export import export
from model.card import Card
from model.networks.forecast import build_network


def exported(shared: Shared, card: Card, seed: int = 0) -> Path:
    """NAME.onnx of a network of this card, with the weights that come of this seed."""
    name = hashlib.sha256(f"{seed} {card.to_json()}".encode()).hexdigest()[:16]

    def make(folder: Path) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            export(build_network(card), card, folder / f"{card.name}.onnx")

    return shared.made(f"model-{name}", make) / f"{card.name}.onnx"
