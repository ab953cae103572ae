"""Texts continued: how a token is drawn, and that the file says what the network would."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploy.operations.generate import Floats, Sampling, continued, draw, generate
from deploy.serving.model_loading import load_onnx
from deploy.serving.predictor import Predictor
from model.artifacts.export import export
from model.card import ClassifierCard
from model.networks.text import NextToken, build_next_token
from model.training.next_token import NextTokenConfig, next_token_card
from pipeline.windows.tokens import PAD, UNKNOWN, Vocabulary
from tidecast.errors import ConfigError

OnnxFile = Callable[..., Path]

LETTERS = Vocabulary(tokeniser="char", lower=False, digits=False, entries=tuple("abcdef "))
LOGITS = np.array([99.0, 99, 1.0, 3.0, 2.0, -1.0])
SAYING = """
saying (int64[batch, steps] x, int64[batch] lengths) => (float[batch, 2] probability) <int64[1] axes = {1}> {
    length = Cast <to = 1> (lengths)
    column = Unsqueeze (length, axes)
    probability = Concat <axis = 1> (column, column)
}"""

logits = hnp.arrays(np.float64, st.integers(3, 20), elements=st.floats(-50, 50))
samplings = st.builds(Sampling, temperature=st.just(0.0) | st.floats(0.01, 100), top_k=st.integers(0, 25))


def randomly(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(deadline=None)
@given(logits, samplings, st.integers(0, 9))
def test_a_drawn_token_is_a_known_one_and_among_the_likeliest(given: Floats, sampling: Sampling, seed: int) -> None:
    before = given.copy()
    token = draw(given, sampling, randomly(seed))
    assert token not in (PAD, UNKNOWN)
    assert 0 <= token < len(given)
    likelier = int((given[2:] > given[token]).sum())
    assert likelier < (1 if not sampling.temperature else sampling.top_k or len(given))
    assert given.tobytes() == before.tobytes()


@settings(deadline=None)
@given(logits, samplings, st.integers(0, 9))
def test_the_same_seed_draws_the_same(given: Floats, sampling: Sampling, seed: int) -> None:
    first, again = randomly(seed), randomly(seed)
    assert [draw(given, sampling, first) for _ in range(5)] == [draw(given, sampling, again) for _ in range(5)]


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
def test_tokens_come_up_as_often_as_the_model_says(sampling: Sampling, kept: list[int]) -> None:
    odds = np.zeros(6)
    odds[kept] = np.exp(LOGITS[kept] / sampling.temperature)
    random = randomly()
    drawn = [draw(LOGITS, sampling, random) for _ in range(5000)]
    np.testing.assert_allclose(np.bincount(drawn, minlength=6) / 5000, odds / odds.sum(), atol=0.025)


def test_without_temperature_it_is_always_the_likeliest() -> None:
    assert {draw(LOGITS, Sampling(temperature=0, top_k=3), randomly(seed)) for seed in range(20)} == {3}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": -1}, "top-k"),
        ({"seed": -1}, "seed"),
    ],
)
def test_an_impossible_sampling_is_named(given: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        Sampling(**given)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> tuple[NextToken, Path]:
    """An untrained model of seven letters, with its file; its weights are great, so that it has a will."""
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
    """The tokens that follow, each from the whole text before it read anew."""
    random, text = np.random.default_rng(sampling.seed), list(tokens)
    for _ in range(length):
        said, _, _ = model(torch.tensor([text]), *model.start(1))
        text.append(draw(said[0, -1].double().numpy(), sampling, random))
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
def test_the_file_continues_as_the_network_does(
    letters: tuple[NextToken, Path], predictor: Predictor, prompt: str, sampling: Sampling
) -> None:
    tokens = LETTERS.encoder().encode(prompt) or [UNKNOWN]
    wanted = [LETTERS.decoded(token) for token in by_torch(letters[0], tokens, 40, sampling)]
    assert list(generate(predictor, prompt, 40, sampling)) == wanted
    assert len(set(wanted)) > 1 or not sampling.temperature


def test_a_text_is_another_without_its_seed(predictor: Predictor) -> None:
    def text(seed: int | None) -> str:
        return "".join(generate(predictor, "a", 60, Sampling(temperature=1.5, seed=seed)))

    assert text(1) == text(1)
    assert len({text(1), text(2), text(None), text(None)}) == 4
    assert len(text(1)) == 60


def test_a_text_comes_piece_by_piece(predictor: Predictor) -> None:
    endless = generate(predictor, "a", 10**9, Sampling(seed=1))
    assert list(islice(endless, 5)) == list(generate(predictor, "a", 5, Sampling(seed=1)))


def test_words_are_joined_by_spaces(predictor: Predictor) -> None:
    words = Vocabulary(entries=("one", "two", "three", "four", "five", "six", "!"))
    card = msgspec.structs.replace(predictor.card, vocabulary=msgspec.to_builtins(words))
    speaking = replace(predictor, card=card)
    said = list(generate(speaking, "One TWO nobody", 30, Sampling(temperature=1.0, seed=1)))
    assert all(piece.startswith(" ") and piece[1:] in words.entries for piece in said)
    assert said == list(generate(speaking, "one two  somebody", 30, Sampling(temperature=1.0, seed=1)))


def test_the_prompt_comes_first(letters: tuple[NextToken, Path], predictor: Predictor, tmp_path: Path) -> None:
    sampling = Sampling(seed=1)
    pieces = list(continued(str(letters[1]), "bad ", 9, sampling, f"sqlite:///{tmp_path}/mlflow.db"))
    assert pieces == ["bad ", *generate(predictor, "bad ", 9, sampling)]


def test_a_model_that_continues_no_texts_is_refused(onnx_file: OnnxFile, own_model: Path) -> None:
    card = ClassifierCard(
        name="saying",
        arch="lstm",
        vocabulary=msgspec.to_builtins(LETTERS),
        tokens=len(LETTERS),
        labels=("ham", "spam"),
    )
    for path in (onnx_file(SAYING, card.to_json()), own_model):
        with pytest.raises(ConfigError, match=r"^m/7 does not continue texts: .* --task next-token$"):
            next(generate(load_onnx(path, "m/7", "cpu"), "a", 3, Sampling()))
