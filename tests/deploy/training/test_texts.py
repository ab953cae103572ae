"""Texts through the command line: classified, continued, and their shapes shown."""

import json
import math
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.models.loading import load_onnx
from deploy.settings.serve import vocabulary
from deploy.training.texts import ClassifyJob
from model.artifacts.registry import Registry
from model.card import ClassifierCard, NextTokenCard
from model.training.classification import partition
from pipeline.formats.texts import TextEvent
from pipeline.windows.tokens import TextWindower

pytestmark = pytest.mark.usefixtures("one_thread")

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]

START = 1_704_067_200_000
HOUR = 3_600_000
KEPT = ["MLmodel", "card.json", "example.safetensors", "model.onnx", "weights.safetensors"]


def labelled(count: int) -> str:
    """Texts of a few words; that one of them is `prize` or `five` decides the label."""
    chance = random.Random(0)
    lines = ["label,text"]
    for number in range(count):
        words = [chance.choice(["see", "you", "at", "the", "old", "tree", "today"]) for _ in range(3 + number % 7)]
        words[chance.randrange(len(words))] = ("five", "prize")[number % 2]
        lines.append(f"{('ham', 'spam')[number % 2]},{' '.join(words)}")
    return "\n".join(lines)


FILES = {
    "sms.csv": labelled(120),
    "one.csv": "text,label\nsee you,ham\nat five,ham\n",
    "few.csv": "text,label\nsee you,ham\nat five,ham\nwin,spam\na prize,spam\nto go,spam\n",
    "odd.csv": "words,kind\nsee you,ham\nwin,spam\n",
    "short.txt": "see you at five ",
    "sea.txt": "the old man and the sea. " * 60,
    "page.txt": "the old man and the sea. " * 20,
    "hours.csv": "ts,value\n" + "\n".join(f"{START + hour * HOUR},{hour % 24}" for hour in range(200)),
}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)


@pytest.fixture(scope="module")
def store(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking URI that this module's tests share."""
    return f"sqlite:///{shutil.copy(empty_registry, tmp_path_factory.mktemp('store'))}"


def summary(ended: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """The JSON object that is the last line on stdout."""
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def failed(ended: "subprocess.CompletedProcess[str]", code: int, message: str) -> None:
    """It ended with this code, nothing on stdout, and one line that says why."""
    *before, last = ended.stderr.splitlines()
    assert re.match(f"tidecast: .*{message}", last), last
    assert not [line for line in before if line.startswith(("tidecast:", "Traceback", " "))]
    assert (ended.returncode, ended.stdout) == (code, "")


def shapes(ended: "subprocess.CompletedProcess[str]") -> dict[str, list[int]]:
    """Of each layer in the table the shape, as --json gives it."""
    return {step["layer"]: step["shape"] for step in summary(ended)["steps"] if step["layer"]}


def artifacts(store: str, label: str, folder: Path) -> Path:
    registry = Registry(store)
    folder.mkdir()
    return registry.artifacts(registry.resolve(label), folder)


def accuracy(path: Path) -> float:
    """How often a file is right about the texts of sms.csv that are kept for the test."""
    rows = [line.split(",") for line in FILES["sms.csv"].splitlines()[1:]]
    y = np.array([label == "spam" for label, _ in rows], np.int64)
    job, predictor = ClassifyJob(name="m"), load_onnx(path, "sms/1", "cpu")
    assert isinstance(predictor.card, ClassifierCard)
    windower = TextWindower(vocabulary(predictor.card.vocabulary).encoder())
    kept = partition(y, None, job.share, job.config.seed).test
    for row in kept:
        windower.push(TextEvent(int(row), rows[row][1], b""))
    said = np.concatenate(list(predictor.predict(windower.take()))).argmax(1)
    return float((said == y[kept]).mean())


def test_a_classifier_is_trained_registered_and_traced(tidecast: Tidecast, store: str, tmp_path: Path) -> None:
    train = ("train", "--name", "sms", "--task", "classify", "--data", "sms.csv", "--hidden", 8, "--epochs", 2)
    more = ("--device", "cpu", "--balance", "--max-len", 7, "--cut", "tail")
    ended = tidecast(*train, *more, "--tracking-uri", store, "--json")
    found = summary(ended)
    assert len(ended.stdout.splitlines()) == 1
    told = {"model": "sms/1", "task": "classify", "arch": "lstm", "labels": 2, "epochs": 2, "majority": 0.5}
    assert told.items() <= found.items()
    scores = {"accuracy", "mcc", "f1", "validation_loss", "train_loss", "best_epoch", "seconds", "sha256", "run"}
    assert found.keys() == told.keys() | scores
    assert 0 <= found["accuracy"] <= 1
    assert math.isfinite(found["validation_loss"])
    first, *_ = ended.stderr.splitlines()
    assert first == "120 texts of 2 labels: 11 tokens, at most 7 a text"
    assert "on 12 held-out texts: accuracy " in ended.stderr
    assert ended.stderr.splitlines()[-1] == "registered sms/1: the champion"

    folder = artifacts(store, "sms@champion", tmp_path / "kept")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*KEPT, "confusion.png"])
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    card = load_onnx(folder / "model.onnx", "sms/1", "cpu").card
    assert isinstance(card, ClassifierCard)
    assert card.labels == ("ham", "spam")
    assert card.metrics == {name: found[name] for name in card.metrics}
    assert {"accuracy", "mcc", "f1", "majority", "validation_loss"} <= card.metrics.keys()
    assert {"max_len": 7, "cut": "tail", "tokeniser": "word"}.items() <= card.vocabulary.items()
    assert accuracy(folder / "model.onnx") == found["accuracy"]

    ended = tidecast("trace", "sms", "--tracking-uri", store, "--json")
    found, rows = summary(ended), shapes(ended)
    assert (found["task"], found["last_is_state"]) == ("classify", True)
    assert rows["input x"][0] == rows["input lengths"][0] == 8, "the rows it was checked with"
    assert rows["output probability"] == [8, 2]
    assert rows["head"] == [8, 1]
    assert ended.stderr.splitlines()[-1].endswith(" equals its state h_n: yes")
    assert ended.stdout.startswith("sms: classify, lstm")
    beside = tidecast("trace", folder / "model.onnx", "--json")
    assert shapes(beside) == rows

    shutil.copy(folder / "model.onnx", "alone.onnx")
    alone = tidecast("trace", "alone.onnx", "--json")
    assert shapes(alone)["input x"] == [2, 3]
    assert "the ONNX file only" in alone.stderr
    for name, shape in shapes(alone).items():
        assert [size for size, other in zip(shape, rows[name], strict=True) if size != other] in ([2], [2, 3]), name


def test_a_next_token_model_is_trained_traced_and_generates(tidecast: Tidecast, store: str, tmp_path: Path) -> None:
    train = ("train", "--name", "sea", "--task", "next-token", "--data", "sea.txt", "--hidden", 24, "--epochs", 2)
    ended = tidecast(*train, "--tracking-uri", store, "--json")
    found = summary(ended)
    told = {"model": "sea/1", "task": "next_token", "arch": "lstm", "epochs": 2}
    assert told.items() <= found.items()
    scores = {"validation_nats", "train_nats", "bits", "perplexity", "best_epoch", "seconds", "sha256", "run"}
    assert found.keys() == told.keys() | scores
    assert found["bits"] == pytest.approx(found["validation_nats"] / math.log(2))
    assert found["perplexity"] == pytest.approx(math.exp(found["validation_nats"]))
    assert ended.stderr.startswith("1,350 tokens to train on, 150 to validate on, 14 different ones\n")
    folder = artifacts(store, "sea/1", tmp_path / "kept")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*KEPT, "history.png"])
    card = load_onnx(folder / "model.onnx", "sea/1", "cpu").card
    assert isinstance(card, NextTokenCard)
    assert card.tokens == 14

    generate = ("generate", "--model", "sea@champion", "--prompt", "the old", "--tracking-uri", store, "--length", 50)
    first = tidecast(*generate, "--seed", 1)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("the old")
    assert len(first.stdout) == len("the old") + 50 + len("\n")
    assert set(first.stdout[:-1]) <= set(FILES["sea.txt"])
    assert tidecast(*generate, "--seed", 1).stdout == first.stdout
    assert tidecast(*generate, "--seed", 2).stdout != first.stdout
    likeliest = [tidecast(*generate, "--seed", seed, "--temperature", 0).stdout for seed in (1, 2)]
    assert likeliest[0] == likeliest[1] == tidecast(*generate, "--seed", 1, "--top-k", 1).stdout

    rows = shapes(tidecast("trace", "sea/1", "--tracking-uri", store, "--json"))
    rows_and_steps = rows["input x"]
    assert rows["output logits"] == [*rows_and_steps, 14]
    assert rows["head"] == [math.prod(rows_and_steps), 14]
    assert rows["input h"] == rows["output h_out"] == [1, 8, 24]


@pytest.mark.slow
def test_a_short_text_trains(tidecast: Tidecast, store: str) -> None:
    """Of 500 characters the last 50 judge: fewer than the rows that torch and onnxruntime are compared on."""
    train = ("train", "--name", "page", "--task", "next-token", "--data", "page.txt", "--hidden", 8, "--epochs", 1)
    found = summary(tidecast(*train, "--tracking-uri", store, "--json"))
    assert math.isfinite(found["validation_nats"])


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (
            {"task": "classify", "data": "sms.csv", "hidden": 5, "max-len": 4, "balance": True, "json": True},
            {"input x": [4, 4], "input lengths": [4], "output probability": [4, 2], "head": [4, 1]},
        ),
        (
            {"task": "next-token", "data": "sea.txt", "hidden": 5, "tokeniser": "word"},
            {"input h": [1, 4, 5], "output c_out": [1, 4, 5]},
        ),
        (
            {"data": "hours.csv", "hidden": 5, "horizon": 6, "seq_len": 24, "arch": "lstm"},
            {"input x": [4, 24, 1], "core": [4, 24, 5], "select": [4, 5], "output forecast": [4, 6, 1]},
        ),
        (
            {"data": "hours.csv", "hidden": 5, "horizon": 6, "seq-len": 24, "features": ["value"]},
            {"input x": [4, 24, 1], "output forecast": [4, 6, 1]},
        ),
    ],
)
def test_trace_shows_a_settings_file_s_untrained_network(
    tidecast: Tidecast, tmp_path: Path, settings: dict[str, Any], wanted: dict[str, list[int]]
) -> None:
    (tmp_path / "my.toml").write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items()))
    ended = tidecast("trace", "my.toml", "--json")
    assert wanted.items() <= shapes(ended).items()
    assert summary(ended)["last_is_state"]
    assert "untrained, on the first rows of the data" in ended.stderr
    plain = tidecast("trace", "my.toml")
    assert plain.stdout.splitlines() == ended.stdout.splitlines()[:-1], "the table, without the JSON"
    assert not Path(".tidecast").exists(), "a look makes nothing"


CLASSIFY = ["train", "--name", "m", "--task", "classify"]
CONTINUE = ["train", "--name", "m", "--task", "next-token"]


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (78, [*CLASSIFY, "--data", "sms.csv", "--horizon", 3], "--horizon is for --task forecast"),
        (78, [*CLASSIFY, "--data", "sms.csv", "--value-column", "text"], "--value-column is for --task forecast"),
        (78, [*CLASSIFY, "--topic", "power", "--data", "sms.csv"], "--topic is for --task forecast"),
        (78, [*CONTINUE, "--data", "sea.txt", "--balance"], "--balance is for --task classify"),
        (78, [*CONTINUE, "--data", "sea.txt", "--max-len", 9], "--max-len is for --task classify"),
        (
            78,
            ["train", "--name", "m", "--data", "hours.csv", "--tokeniser", "char"],
            "--tokeniser is for --task classify and next-token",
        ),
        (64, [*CLASSIFY[:-1], "guess", "--data", "sms.csv"], "'guess' is not one of 'forecast', 'classify', 'next-tok"),
        (64, [*CLASSIFY, "--data", "sms.csv", "--max-len", 0], "'--max-len'.* greater than or equal to 1"),
        (78, CLASSIFY, "data: --task classify trains on a file, --data FILE"),
        (78, CONTINUE, "data: --task next-token trains on a file, --data FILE"),
        (65, [*CLASSIFY, "--data", "none.csv"], "none.csv: No such file or directory"),
        (65, [*CONTINUE, "--data", "none.txt"], "none.txt: No such file or directory"),
        (
            65,
            [*CLASSIFY, "--data", "odd.csv"],
            r"odd.csv: which column is the text among 'words', 'kind'\? Name it with --text-column",
        ),
        (
            65,
            [*CLASSIFY, "--data", "sms.csv", "--label-column", "kind"],
            r"sms.csv: no column 'kind' among 'label', 'text'\? Name it with --label-column",
        ),
        (65, [*CLASSIFY, "--data", "one.csv"], "one.csv: column 'label' has 1 different labels"),
        (65, [*CLASSIFY, "--data", "few.csv"], "labels: each needs at least 3 texts, and one has 2"),
        (65, ["train", "--name", "a/b", *CLASSIFY[3:], "--data", "sms.csv"], "name: 'a/b'"),
        (65, [*CONTINUE, "--data", "short.txt"], r"batch: the \w+ text of \d+ tokens is too short"),
        (78, ["generate", "--model", "none.onnx"], "none.onnx: there is no such file"),
        (78, ["generate", "--model", "nobody"], "nobody"),
        (78, ["generate", "--model", "nobody", "--temperature", -1], "temperature: -1.0 is not a number >= 0"),
        (64, ["generate"], "Missing option '--model'"),
        (78, ["trace", "none.onnx"], "none.onnx: there is no such file"),
        (78, ["trace", "none.toml"], "none.toml: No such file or directory"),
        (78, ["trace", "nobody"], "nobody"),
        (64, ["trace"], "Missing argument 'MODEL|CONFIG'"),
    ],
)
def test_a_user_error_is_one_line_and_an_exit_code(
    tidecast: Tidecast, store: str, code: int, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDECAST_TRACKING_URI", store)
    failed(tidecast(*arguments), code, message)


@pytest.mark.parametrize(
    ("code", "settings", "message"),
    [
        (78, "task = 'classify'", "data: --task classify trains on a file"),
        (78, "task = 'guess'\ndata = 'sms.csv'", "my.toml: .*'guess'.*task"),
        (78, "task = 'classify'\ndata = 'sms.csv'\nhidden = 'wide'", r"my.toml: .*`\$.hidden`"),
        (78, "task = 'classify'\ndata = 'sms.csv'\nhiden = 9", "my.toml: no option is called 'hiden'"),
        (65, "task = 'classify'\ndata = 'none.csv'", "none.csv: No such file or directory"),
        (65, "task = 'classify'\ndata = 'sms.csv'\nhidden = 0", "hidden: 0 is not positive"),
    ],
)
def test_an_error_in_a_traced_settings_file_is_one_line(
    tidecast: Tidecast, tmp_path: Path, code: int, settings: str, message: str
) -> None:
    (tmp_path / "my.toml").write_text(settings)
    failed(tidecast("trace", "my.toml"), code, message)


def test_a_foreign_model_cannot_be_traced(tidecast: Tidecast, foreign_model: Path) -> None:
    ended = tidecast("trace", foreign_model)
    assert ended.returncode == 65
    assert ended.stderr.splitlines()[-1].startswith("tidecast: ")


def test_generate_with_a_forecaster_is_one_line(tidecast: Tidecast, own_model: Path) -> None:
    ended = tidecast("generate", "--model", own_model, "--prompt", "the old man")
    failed(ended, 78, "tiny.onnx does not continue texts: it was not trained with --task next-token")
