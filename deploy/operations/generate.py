"""`tidecast generate`: continue a text with a next-token model, one token at a time, from its ONNX file alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deploy.models.loading import load_model
from deploy.models.predictor import Predictor
from deploy.settings.serve import vocabulary
from model.card import NextTokenCard
from pipeline.windows.tokens import PAD, UNKNOWN
from tidecast.errors import ConfigError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is sampled."""

    temperature: float = 0.7
    """0: always the most probable token; 1: the model's distribution; higher: flatter."""
    top_k: int = 0
    """Sample from this many most probable tokens; 0: from all."""
    seed: int | None = None
    """The same seed gives the same text; None: a different one each time."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature: {self.temperature} is not a number >= 0")
        if self.top_k < 0:
            raise ConfigError(f"top-k: {self.top_k} is negative")
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"seed: {self.seed} is negative")


def generate(predictor: Predictor, prompt: str, length: int, sampling: Sampling) -> Iterator[str]:
    """`length` tokens that follow the prompt, as text. Raises ConfigError if the model is not a next-token model."""
    card = predictor.card
    if not isinstance(card, NextTokenCard):
        raise ConfigError(f"{predictor.label} does not continue texts: it was not trained with --task next-token")
    return _generate(predictor, card, prompt, length, sampling)


def _generate(predictor: Predictor, card: NextTokenCard, prompt: str, length: int, sampling: Sampling) -> Iterator[str]:
    words = vocabulary(card.vocabulary)
    separator = " " if words.tokeniser == "word" else ""
    shape = [1 if size == "batch" else int(size) for size in card.inputs["h"].shape]
    h = c = np.zeros(shape, np.float32)
    tokens, random = words.encoder().encode(prompt) or [UNKNOWN], np.random.default_rng(sampling.seed)
    for _ in range(length):
        logits, h, c = predictor.session.run(None, {"x": np.array([tokens], np.int64), "h": h, "c": c})
        tokens = [sample_token(logits[0, -1].astype(np.float64), sampling, random)]
        yield separator + words.decoded(tokens[0])


def sample_token(logits: Floats, sampling: Sampling, random: np.random.Generator) -> int:
    """Sample a token from logits (V,); never padding or the unknown token."""
    logits = logits.copy()
    logits[[PAD, UNKNOWN]] = -np.inf
    if not sampling.temperature:
        return int(logits.argmax())
    if 0 < sampling.top_k < len(logits):
        logits[logits < np.partition(logits, -sampling.top_k)[-sampling.top_k]] = -np.inf
    weights = np.exp((logits - logits.max()) / sampling.temperature)
    return int(random.choice(len(weights), p=weights / weights.sum()))


def generate_text(model: str, prompt: str, length: int, sampling: Sampling, tracking_uri: str) -> Iterator[str]:
    """`tidecast generate`: the prompt, then each token as it is generated."""
    predictor = load_model(model, tracking_uri, "cpu")
    tokens = generate(predictor, prompt, length, sampling)
    yield prompt
    yield from tokens
