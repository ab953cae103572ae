"""Scripts 000, 001 and 003 reproduce the figures of their documents, and run on the bundled samples."""

import gzip
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import seed_000_spam
import seed_001_tweets
import seed_003_reviews
import seeds
import torch
from seed_000_spam import LastStepClassifier
from seed_001_tweets import Tweets
from torch import Tensor

from deploy.training.texts import ClassifyJob
from model.networks.protocol import Head, Select
from model.training.classification import ClassifyConfig, Ints
from model.training.loop import Epoch, TrainConfig, repeatable
from tidecast.errors import ShapeError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "text"
SCRIPTS = Path(seeds.__file__).parent
Run = Callable[..., tuple[dict[str, Any], str]]


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name}: the document's data set is not available")
    return SHARED / name


@pytest.fixture(scope="module")
def tweets() -> Tweets:
    return seed_001_tweets.read_tweets(shared("twitter_training.csv.gz"))


@pytest.fixture(scope="module")
def split(tweets: Tweets) -> tuple[Ints, Ints]:
    """The document's random split."""
    return seed_001_tweets.split_rows(tweets, np.arange(len(tweets.y)), "leaky", 0.2, 42)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script with --json; the JSON of its last line, and its stderr."""

    def run(script: ModuleType, *arguments: object) -> tuple[dict[str, Any], str]:
        monkeypatch.setattr(sys, "argv", ["script", "--json", *map(str, arguments)])
        script.main()
        out, err = capsys.readouterr()
        return json.loads(out.splitlines()[-1]), err

    return run


def shapes(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def test_the_training_set_is_the_first_four_fifths_of_the_messages() -> None:
    texts, labels = seeds.read_sms(shared("SMSSpamCollection"))
    cut = seed_000_spam.train_size(texts)
    assert (cut, len(texts) - cut) == (4459, 1115)
    assert {label: labels.count(label) for label in seed_000_spam.LABELS} == {"ham": 4827, "spam": 747}


@pytest.mark.parametrize("batches", [0, 1])
def test_spam_parity_has_the_shapes_of_the_document(batches: int) -> None:
    texts, labels = seeds.read_sms(seeds.SAMPLES / "sms.tsv")
    y = np.array([label == "spam" for label in labels], np.int64)
    model, activations, accuracy = seed_000_spam.parity(texts, y, 0, batches)
    assert shapes(activations) == {
        "X": [4, 5],
        "embed": [4, 5, 10],
        "lstm_out": [4, 5, 3],
        "h": [2, 4, 3],
        "c": [2, 4, 3],
        "last": [4, 3],
        "out": [4],
    }
    assert torch.equal(activations["last"], activations["h"][-1])
    assert torch.equal(activations["last"], activations["lstm_out"][:, -1])
    assert (model.parameters_without_embedding(), model.encode.embedding_dim) == (280, 10)
    assert 0 <= accuracy <= 1


def test_train_step_fits_a_batch() -> None:
    model = LastStepClassifier(9, 10, 3, layers=2)
    x, y = torch.tensor([[1, 2, 0, 0, 0], [3, 4, 5, 6, 7]]), torch.tensor([0.0, 1.0])
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    with repeatable(TrainConfig()):
        losses = [float(model.train_step(optimiser, x, y)) for _ in range(60)]
    assert losses[-1] < losses[0] / 2
    assert model.accuracy(x, y) == 1.0
    assert model.accuracy(x, 1 - y) == 0.0


def test_the_most_frequent_word_and_the_padding_are_both_0() -> None:
    x, tokens = seed_000_spam.encode_words(["see you, you", "c b a c b a c", "You 2"])
    assert tokens == 8  # c a b you , 2 You see: by frequency, then by character
    assert x.tolist() == [[7, 3, 4, 3, 0], [0, 2, 1, 0, 2], [6, 5, 0, 0, 0]]


def test_test_texts_do_not_influence_training() -> None:
    texts, labels = seeds.read_sms(seeds.SAMPLES / "sms.tsv")
    y = np.array([label == "spam" for label in labels], np.int64)[:300]
    first, second = (
        training_losses(texts[:250] + test, y) for test in (texts[250:300], ["words of no other message"] * 50)
    )
    assert len(first) == 2
    assert first == second


def training_losses(texts: list[str], y: Ints) -> list[float]:
    """The loss of each epoch on the first 250 texts."""
    job = ClassifyJob(name="spam", config=replace(ClassifyConfig(), epochs=2, hidden=8))
    epochs: list[Epoch] = []

    def keep(done: int, total: int, history: list[Epoch]) -> None:
        epochs[:] = history

    seed_000_spam.train_and_evaluate(
        texts, y, seed_000_spam.LABELS, np.arange(250), np.arange(250, len(texts)), job, keep
    )
    return [epoch.train_loss for epoch in epochs]


def test_tweet_counts_match_the_document(tweets: Tweets, split: tuple[Ints, Ints]) -> None:
    train, test = split
    assert len(tweets.texts) == 43_013
    assert (len(train), len(test)) == (34_410, 8_603)
    assert round(float(np.bincount(tweets.y[test]).max()) / len(test), 4) == 0.5192


def test_the_character_vocabulary_matches_the_document(tweets: Tweets, split: tuple[Ints, Ints]) -> None:
    numbers = seed_001_tweets.character_vocabulary([tweets.texts[row] for row in split[0]])
    assert len(numbers) == 274
    assert list(numbers.items())[:10] == list(zip("I downlaeG", range(1, 11), strict=True))
    assert list(numbers.items())[-1] == ("<UNK>", 274)


def test_the_character_vocabulary_includes_the_separator() -> None:
    assert seed_001_tweets.character_vocabulary(["ab", "cb"]) == {"a": 1, "b": 2, " ": 3, "c": 4, "<UNK>": 5}


def test_tweet_length_statistics_match_the_document(tweets: Tweets, split: tuple[Ints, Ints]) -> None:
    lengths = seed_001_tweets.describe([len(tweets.texts[row]) for row in split[0]])
    assert {name: round(value, 6) for name, value in lengths.items()} == {
        "mean": 103.600262,
        "std": 79.972798,
        "min": 1,
        "25%": 41,
        "50%": 83,
        "75%": 148,
        "max": 727,
    }


def test_tweets_parity_has_the_parameter_count_of_the_document(tweets: Tweets) -> None:
    model, accuracy = seed_001_tweets.parity(tweets, 0, 0)
    assert (model.encode.num_embeddings, model.core.hidden_size) == (275, 1)
    assert sum(weight.numel() for weight in model.parameters()) == 4_478
    assert sum(weight.numel() for weight in model.core.parameters()) == 76
    assert 0.4 < accuracy < 0.6


@pytest.mark.parametrize(("how", "rate"), [("leaky", 0.9986), ("id", 0.0)])
def test_only_the_leaky_split_shares_tweet_ids(tweets: Tweets, how: str, rate: float) -> None:
    train, test = seed_001_tweets.split_rows(tweets, np.arange(len(tweets.y)), how, 0.2, 42)
    assert sorted(np.concatenate([train, test]).tolist()) == list(range(len(tweets.y)))
    assert len(test) / len(tweets.y) == pytest.approx(0.2, abs=0.01)
    assert round(seed_001_tweets.shared_id_rate(tweets, train, test), 4) == rate


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_missing_tweet_texts_are_those_of_pandas(tmp_path: Path, suffix: str) -> None:
    text = (
        '7,A,Positive,"two, and\na ""line"""\n7,A,Positive,\n8,B,Negative,NA\n8,B,Negative,nan\n'
        "8,B,Negative, \n9,B,Neutral,so so\n9,B,Irrelevant,off\n9,B,Negative,None of it\n"
    )
    path = tmp_path / f"tweets{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix == ".csv.gz" else text.encode())
    found = seed_001_tweets.read_tweets(path)
    assert list(found.ids) == [7, 8, 9]
    assert list(found.texts) == ['two, and\na "line"', " ", "None of it"]
    assert found.y.tolist() == [0, 1, 1]


def test_substitute_sentences_have_unique_ids_and_1_for_negative(tmp_path: Path) -> None:
    path = tmp_path / "sentences.tsv"
    path.write_text("pos\tfine\nneg\tdull\nneg\tdull\n")
    found = seed_001_tweets.read_substitute(path)
    assert len(set(found.ids)) == 3
    assert found.y.tolist() == [0, 1, 1]


def test_a_file_without_tweets_is_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("type,text\nham,hello\n")
    with pytest.raises(SystemExit, match=r"other.csv: no rows of id, entity, Positive or Negative, and a text"):
        seed_001_tweets.read_tweets(path)


def test_the_scalar_cell_step_matches_the_document() -> None:
    step = seed_001_tweets.scalar_cell_step()
    assert [round(value, 5) for value in (step.f, step.kept, step.c)] == [0.45412, -0.37336, -1.02900]
    assert [round(value, 5) for value in (step.o, step.h)] == [0.93510, -0.72331]


def test_reviews_parity_has_the_shapes_of_the_document() -> None:
    texts, _ = seeds.read_sentences(seeds.SAMPLES / "sentences.tsv")
    model, activations, max_abs = seed_003_reviews.parity(texts, 0)
    assert shapes(activations) == {
        "X": [50, 200],
        "Embedding layer weights": [model.encode.num_embeddings, 30],
        "Embedding layer": [50, 200, 30],
        "LSTM layer": [50, 200, 512],
        "FC layer": [10_000, 1],
        "Sigmoid layer": [10_000, 1],
        "Output layer": [50, 200],
        "Final": [50],
    }
    assert model.parameters_without_embedding() == 1_114_625
    assert max_abs <= 1e-6
    assert float(activations["Final"].std()) > 0


def test_the_view_route_selects_the_last_step() -> None:
    out, head = torch.randn(5, 7, 6), Head(6, 1)
    final = seed_003_reviews.view_route(out, head)["Final"]
    torch.testing.assert_close(final, head(Select("last")(out)).sigmoid().squeeze(1), rtol=0, atol=1e-6)
    assert not torch.allclose(final, head(out[:, 0]).sigmoid().squeeze(1))


def test_the_view_route_rejects_two_outputs() -> None:
    with pytest.raises(ShapeError, match=r"one output only, not for 2$"):
        seed_003_reviews.view_route(torch.randn(5, 7, 6), Head(6, 2))


SCORES = {"mode", "accuracy", "mcc", "seconds"}


@pytest.mark.slow
def test_the_spam_script_runs(run: Run) -> None:
    result, err = run(seed_000_spam, "--mode", "parity")
    assert result.keys() == {"mode", "accuracy", "seconds"}
    assert "Batch size: 4\nX shape: [4, 5]\nembed shape: [4, 5, 10]\nlstm_out shape: [4, 5, 3]\n" in err
    assert "last step == h_n[-1]: True; 280 parameters" in err
    whole, err = run(seed_000_spam)
    assert whole.keys() == SCORES
    assert whole["mode"] == "honest"
    assert whole["accuracy"] > 0.93  # .887 is the majority
    assert "of the 300 test messages are also in the training set" in err
    truncated, _ = run(seed_000_spam, "--words", 1, "--epochs", 3)
    assert truncated["accuracy"] < whole["accuracy"]


@pytest.mark.slow
def test_the_tweets_script_runs_on_substitute_sentences(run: Run) -> None:
    result, err = run(seed_001_tweets, "--mode", "parity", "--epochs", 1)
    assert result.keys() == {"mode", "accuracy", "seconds"}
    assert "using sentences of film reviews instead" in err
    assert "forget gate 0.45412" in err
    assert "Epoch: 0, Loss: 0." in err
    result, err = run(seed_001_tweets, "--epochs", 1)
    assert result.keys() == SCORES
    assert "LEAKY" not in err
    _, err = run(seed_001_tweets, "--epochs", 1, "--split", "leaky")
    assert "LEAKY: 0.00% of the test rows have another wording of the same tweet in the training set" in err


@pytest.mark.slow
def test_the_reviews_script_runs(run: Run) -> None:
    result, err = run(seed_003_reviews, "--mode", "parity")
    assert result.keys() == {"mode", "max_abs", "seconds"}
    assert "Sigmoid layer shape: [10000, 1]\nOutput layer shape: [50, 200]\nFinal shape: [50]\n1,114,625 " in err
    result, err = run(seed_003_reviews, "--epochs", 1, "--folds", 2)
    assert result.keys() == SCORES
    folds = [float(line.split("accuracy ")[1].split(",")[0]) for line in err.splitlines() if line.startswith("fold")]
    assert len(folds) == 2
    assert result["accuracy"] == pytest.approx(sum(folds) / 2, abs=1e-4)


@pytest.mark.slow
def test_a_script_runs_from_another_directory(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "seed_000_spam.py"), "--json", "--mode", "parity"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["mode"] == "parity"


@pytest.mark.parametrize(
    ("script", "arguments", "line"),
    [
        ("000_spam", ["--words", "0"], "max_len: 0 is less than 1"),
        ("001_tweets", ["--epochs", "-1"], "epochs: -1 is not positive"),
        ("003_reviews", ["--epochs", "-1"], "epochs: -1 is not positive"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, script: str, arguments: list[str], line: str
) -> None:
    path = str(SCRIPTS / f"seed_{script}.py")
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    with pytest.raises(SystemExit, match=f"^{line}$"):
        runpy.run_path(path, run_name="__main__")
