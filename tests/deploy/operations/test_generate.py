"""`tidecast generate`: how tokens are sampled, and that the ONNX file generates what the network does."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploy.models.loading import load_onnx
from deploy.models.predictor import Predictor
from deploy.operations.generate import Floats, Sampling, generate, generate_text, sample_token
from model.artifacts.export import export
from model.card import ClassifierCard
from model.networks.text import NextToken, build_next_token
from model.training.next_token import NextTokenConfig, next_token_card
from pipeline.windows.tokens import PAD, UNKNOWN, Vocabulary
from tidecast.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

OnnxFile = Callable[..., Path]

LETTERS = Vocabulary(tokeniser="char", lower=False, digits=False, entries=tuple("abcdef "))
LOGITS = np.array([99.0, 99, 1.0, 3.0, 2.0, -1.0])
CLASSIFIER = """
classifier (int64[batch, steps] x, int64[batch] lengths) => (float[batch, 2] probability) <int64[1] axes = {1}> {
    length = Cast <to = 1> (lengths)
    column = Unsqueeze (length, axes)
    probability = Concat <axis = 1> (column, column)
}"""

random_logits = hnp.arrays(np.float64, st.integers(3, 20), elements=st.floats(-50, 50))
samplings = st.builds(Sampling, temperature=st.just(0.0) | st.floats(0.01, 100), top_k=st.integers(0, 25))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(random_logits, samplings, st.integers(0, 9))
def test_sampled_token_is_known_and_among_the_top_k(logits: Floats, sampling: Sampling, seed: int) -> None:
    before = logits.copy()
    token = sample_token(logits, sampling, generator(seed))
    assert token not in (PAD, UNKNOWN)
    assert 0 <= token < len(logits)
    more_probable = int((logits[2:] > logits[token]).sum())
    assert more_probable < (1 if not sampling.temperature else sampling.top_k or len(logits))
    assert logits.tobytes() == before.tobytes()


@given(random_logits, samplings, st.integers(0, 9))
def test_same_seed_samples_the_same(logits: Floats, sampling: Sampling, seed: int) -> None:
    first, second = generator(seed), generator(seed)
    assert [sample_token(logits, sampling, first) for _ in range(5)] == [
        sample_token(logits, sampling, second) for _ in range(5)
    ]


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(temperature=1.0), [2, 3, 4, 5]),
        (Sampling(temperature=0.5), [2, 3, 4, 5]),
        (Sampling(temperature=3.0), [2, 3, 4, 5]),
        (Sampling(temperature=1.0, top_k=2), [3, 4]),
        (Sampling(temperature=2.0, top_k=1), [3]),
        (Sampling(temperature=1.0, top_k=99), [2, 3, 4, 5]),
    ],
)
def test_tokens_follow_the_models_distribution(sampling: Sampling, kept: list[int]) -> None:
    weights = np.zeros(6)
    weights[kept] = np.exp(LOGITS[kept] / sampling.temperature)
    random = generator()
    tokens = [sample_token(LOGITS, sampling, random) for _ in range(5000)]
    np.testing.assert_allclose(np.bincount(tokens, minlength=6) / 5000, weights / weights.sum(), atol=0.025)


def test_temperature_zero_is_greedy() -> None:
    assert {sample_token(LOGITS, Sampling(temperature=0, top_k=3), generator(seed)) for seed in range(20)} == {3}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": -1}, "top-k"),
        ({"seed": -1}, "seed"),
    ],
)
def test_invalid_sampling_option_is_named(options: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        Sampling(**options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> tuple[NextToken, Path]:
    """An untrained model of seven letters, with its file; large weights make its distributions far from uniform."""
    config = NextTokenConfig(hidden=12, embedding=6, layers=2)
    card = next_token_card(msgspec.to_builtins(LETTERS), len(LETTERS), config, "letters")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = build_next_token(card).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(4)
    path = tmp_path_factory.mktemp("letters") / "letters.onnx"
    export(model, card, path)
    return model, path


@pytest.fixture(scope="module")
def predictor(letters: tuple[NextToken, Path]) -> Predictor:
    return load_onnx(letters[1], "letters/1", "cpu")


@torch.no_grad()
def by_torch(model: NextToken, tokens: list[int], length: int, sampling: Sampling) -> list[int]:
    """The tokens that follow, each predicted from the whole text before it."""
    random, text = np.random.default_rng(sampling.seed), list(tokens)
    for _ in range(length):
        logits, _, _ = model(torch.tensor([text]), *model.start(1))
        text.append(sample_token(logits[0, -1].double().numpy(), sampling, random))
    return text[len(tokens) :]


@pytest.mark.parametrize("prompt", ["", "a", "fade a bed", "no ZZZ", "abc" * 40])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0),
        Sampling(temperature=0.7, seed=3),
        Sampling(temperature=1.5, top_k=3, seed=4),
    ],
)
def test_file_generates_what_the_network_does(
    letters: tuple[NextToken, Path], predictor: Predictor, prompt: str, sampling: Sampling
) -> None:
    tokens = LETTERS.encoder().encode(prompt) or [UNKNOWN]
    expected = [LETTERS.decoded(token) for token in by_torch(letters[0], tokens, 40, sampling)]
    assert list(generate(predictor, prompt, 40, sampling)) == expected
    assert len(set(expected)) > 1 or not sampling.temperature


def test_seed_decides_the_text(predictor: Predictor) -> None:
    def text(seed: int | None) -> str:
        return "".join(generate(predictor, "a", 60, Sampling(temperature=1.5, seed=seed)))

    assert text(1) == text(1)
    assert len({text(1), text(2), text(None), text(None)}) == 4
    assert len(text(1)) == 60


def test_tokens_are_generated_lazily(predictor: Predictor) -> None:
    endless = generate(predictor, "a", 10**9, Sampling(seed=1))
    assert list(islice(endless, 5)) == list(generate(predictor, "a", 5, Sampling(seed=1)))


def test_words_are_separated_by_spaces(predictor: Predictor) -> None:
    words = Vocabulary(entries=("one", "two", "three", "four", "five", "six", "!"))
    card = msgspec.structs.replace(predictor.card, vocabulary=msgspec.to_builtins(words))
    word_model = replace(predictor, card=card)
    words_generated = list(generate(word_model, "One TWO nobody", 30, Sampling(temperature=1.0, seed=1)))
    assert all(piece.startswith(" ") and piece[1:] in words.entries for piece in words_generated)
    assert words_generated == list(generate(word_model, "one two  somebody", 30, Sampling(temperature=1.0, seed=1)))


def test_prompt_comes_first(letters: tuple[NextToken, Path], predictor: Predictor, tmp_path: Path) -> None:
    sampling = Sampling(seed=1)
    pieces = list(generate_text(str(letters[1]), "bad ", 9, sampling, f"sqlite:///{tmp_path}/mlflow.db"))
    assert pieces == ["bad ", *generate(predictor, "bad ", 9, sampling)]


def test_model_of_another_task_is_rejected(onnx_file: OnnxFile, own_model: Path) -> None:
    card = ClassifierCard(
        name="classifier",
        arch="lstm",
        vocabulary=msgspec.to_builtins(LETTERS),
        tokens=len(LETTERS),
        labels=("ham", "spam"),
    )
    for path in (onnx_file(CLASSIFIER, card.to_json()), own_model):
        with pytest.raises(ConfigError, match=r"^m/7 does not continue texts: .* --task next-token$"):
            next(generate(load_onnx(path, "m/7", "cpu"), "a", 3, Sampling()))
