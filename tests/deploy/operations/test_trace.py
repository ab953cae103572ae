"""`tidecast trace FILE.toml` shows what `tidecast train` starts with."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from deploy.training.options import TrainOptions, prepare_training
from model.artifacts.export import CARD_FILE
from model.artifacts.registry import Registry
from model.card import AnyCard, Card, read_card
from pipeline.windows.steps import Grid

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]

START = 1_704_067_200_000
WORDS = ["see", "you", "at", "the", "old", "tree", "today"]
TWICE = [f"{word}{other}" for word in WORDS for other in WORDS]
"""One word per text, unique to it: those of the test part are in no other text."""


def series(freq: str, count: int) -> str:
    grid = Grid.parse(freq)
    rows = [(int(grid.time(grid.index(START) + step)), math.sin(step / 4)) for step in range(count)]
    return "\n".join(["ts,value", *(f"{ts},{value:.4f}" for ts, value in rows)])


FILES = {
    "own.csv": "\n".join(
        [
            "label,who,text",
            *(f"{('ham', 'spam')[at % 2]},p{at % 9},see {word} {WORDS[at % 7]}" for at, word in enumerate(TWICE)),
        ]
    ),
    "sea.txt": "the old man and the sea. " * 60 + "QUIZ" * 10,
    "hours.csv": series("1h", 200),
}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)


def written(**settings: Any) -> list[str]:
    """The settings as a file, my.toml; and the same as options of a command."""
    named = {name.replace("_", "-"): value for name, value in settings.items()}
    Path("my.toml").write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in named.items()))
    return [part for name, value in named.items() for part in (f"--{name}", str(value))]


def steps(ended: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, Any]]:
    """The table's rows by layer."""
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])["steps"]
    return {step["layer"]: step for step in found if step["layer"]}


def registered(tracking_uri: str, name: str) -> AnyCard:
    """A champion's card, without what training has put into it."""
    registry = Registry(tracking_uri)
    with TemporaryDirectory() as folder:
        card = read_card((registry.artifacts(registry.resolve(name), Path(folder)) / CARD_FILE).read_text())
    return untrained(card)


def untrained(card: AnyCard) -> AnyCard:
    """As it is read from a file."""
    seen = {"ranges": {}, "trained_until": 0, "residuals": None} if isinstance(card, Card) else {}
    return read_card(msgspec.structs.replace(card, metrics={}, **seen).to_json())


TASKS: dict[str, dict[str, Any]] = {
    "classify": {"task": "classify", "data": "own.csv", "group_column": "who", "members": 2, "hidden": 4, "epochs": 1},
    "next-token": {"task": "next-token", "data": "sea.txt", "hidden": 4, "epochs": 1},
    "forecast": {"data": "hours.csv", "arch": "segment", "hidden": 4, "epochs": 1, "horizon": 6, "features": "value"},
}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_card_is_the_one_that_train_starts_with(tidecast: Tidecast, tracking_uri: str, task: str) -> None:
    options = written(name="m", tracking_uri=tracking_uri, **TASKS[task])
    begun = prepare_training(TrainOptions.of({"name": "m", "tracking_uri": tracking_uri, **TASKS[task]})).card
    shown = steps(tidecast("trace", "my.toml", "--json"))
    ended = tidecast("train", *options)
    assert ended.returncode == 0, ended.stderr
    assert begun.metrics == {}
    assert registered(tracking_uri, "m") == untrained(begun)
    for name, array in begun.outputs.items():
        assert {size for size in array.shape if isinstance(size, int)} <= {*shown[f"output {name}"]["shape"]}


def test_networks_of_a_blend_are_among_the_traced_ones(tidecast: Tidecast, tracking_uri: str) -> None:
    settings = {"data": "hours.csv", "hidden": 4, "epochs": 1, "horizon": 6, "seq_len": 24}
    begun = prepare_training(TrainOptions.of({"name": "m", "tracking_uri": tracking_uri, **settings})).card
    ended = tidecast("train", *written(name="m", tracking_uri=tracking_uri, **settings))
    assert ended.returncode == 0, ended.stderr
    kept = registered(tracking_uri, "m")
    assert isinstance(begun, Card)
    assert isinstance(kept, Card)
    assert [each for each in begun.members if each in kept.members] == list(kept.members)
    assert msgspec.structs.replace(kept, members=begun.members, input=begun.input) == begun


def test_vocabulary_excludes_tokens_of_the_test_part(tidecast: Tidecast) -> None:
    """Each text has a unique word; four in five texts are the training part."""
    written(task="classify", data="own.csv", hidden=4)
    everything = len({*WORDS, *TWICE}) + 2
    ended = tidecast("trace", "my.toml", "--json")
    tokens = steps(ended)["encode"]["parameters"] // steps(ended)["encode"]["shape"][-1]
    assert tokens < everything - 5
    assert f"49 texts of 2 labels: {tokens} tokens" in ended.stderr


def test_vocabulary_excludes_characters_of_the_validation_part(tidecast: Tidecast) -> None:
    written(task="next-token", data="sea.txt", hidden=4)
    found = steps(tidecast("trace", "my.toml", "--json"))
    assert found["output logits"]["shape"][-1] == len(set("the old man and the sea. ")) + 2


@pytest.mark.parametrize(
    ("freq", "seq_len", "count", "told"),
    [("1h", 48, 380, False), ("1h", 48, 420, True), ("1d", 105, 803, False), ("1d", 105, 900, True)],
)
def test_calendar_features_need_two_cycles_before_the_validation_part(
    tidecast: Tidecast, freq: str, seq_len: int, count: int, told: bool
) -> None:
    """380 hours hold two weeks, 803 days two years, but six sevenths of them do not."""
    Path("cycle.csv").write_text(series(freq, count))
    written(data="cycle.csv", horizon=6, seq_len=seq_len, hidden=4)
    assert ("input step" in steps(tidecast("trace", "my.toml", "--json"))) == told


def test_windows_are_those_of_the_champion(tidecast: Tidecast, tracking_uri: str) -> None:
    options = written(name="m", data="hours.csv", arch="linear", horizon=5, seq_len=20, tracking_uri=tracking_uri)
    assert tidecast("train", *options).returncode == 0
    written(name="m", data="hours.csv", arch="linear", tracking_uri=tracking_uri)
    ended = tidecast("trace", "my.toml", "--json")
    found = steps(ended)
    assert (found["input x"]["shape"], found["output forecast"]["shape"]) == ([4, 20, 1], [4, 5, 1])
    assert "windows as those of m/1" in ended.stderr
    written(name="m", data="hours.csv", arch="linear", tracking_uri="sqlite:///elsewhere.db")
    assert steps(tidecast("trace", "my.toml", "--json"))["input x"]["shape"] != [4, 20, 1]
    assert not Path("elsewhere.db").exists(), "a look makes nothing"
    given = tidecast("trace", "my.toml", "--tracking-uri", tracking_uri, "--json")
    assert steps(given)["input x"]["shape"] == [4, 20, 1], "a flag comes before the file"


def test_settings_of_other_commands_are_ignored(tidecast: Tidecast) -> None:
    options = {"data": "two.csv", "features": ["load", "heat"], "horizon": 6, "seq-len": 24, "arch": "lstm"}
    rows = [line.split(",") for line in FILES["hours.csv"].splitlines()[1:]]
    Path("two.csv").write_text("\n".join(["ts,load,heat", *(f"{ts},{value},{value}" for ts, value in rows)]))
    written(**options, known="heat", speed=2.0)
    found = steps(tidecast("trace", "my.toml", "--json"))
    assert "input future" not in found
    assert found["input x"]["shape"] == [4, 24, 2]


def test_topic_and_data_together_are_rejected_as_by_train(tidecast: Tidecast) -> None:
    written(topic="power", data="hours.csv")
    for command in (["trace", "my.toml"], ["train", "--name", "m", "--config", "my.toml"]):
        ended = tidecast(*command)
        assert (ended.returncode, ended.stdout) == (78, "")
        assert ended.stderr.splitlines()[-1] == "tidecast: give one of --topic and --data"
