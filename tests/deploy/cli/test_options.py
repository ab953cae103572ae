"""Options of the command line whose effect nothing else shows: each test fails where its option is ignored."""

import json
import math
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from model.artifacts.export import CARD_FILE, WEIGHTS_FILE
from model.artifacts.registry import Registry
from model.card import ClassifierCard, read_card
from model.training import loop as training
from model.training.loop import supports_bf16
from pipeline.log.connect import connect

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]

HOUR, START = 3_600_000, 1_704_067_200_000
HOURS = np.arange(400)
SHAPE = ("--horizon", 6, "--seq-len", 24)


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    ts = START + HOUR * HOURS
    wave = np.sin(HOURS * np.pi / 12) + np.random.default_rng(0).normal(0, 0.2, len(HOURS))
    pl.DataFrame({"ts": ts, "value": wave}).write_csv(tmp_path / "waves.csv")
    pl.DataFrame({"ts": ts, "a": wave, "b": 100 + wave}).write_csv(tmp_path / "two.csv")
    pl.DataFrame({"ts": ts, "value": 40 - 0.1 * HOURS}).write_csv(tmp_path / "falling.csv")


def done(ended: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """What --json printed."""
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def ahead(tidecast: Tidecast, *arguments: object) -> dict[str, npt.NDArray[Any]]:
    """The columns of what was forecast."""
    ended = tidecast("forecast", *SHAPE, "--output", "ahead.csv", *arguments)
    assert ended.returncode == 0, ended.stderr
    return {column.name: column.to_numpy() for column in pl.read_csv("ahead.csv")}


def kept(tracking_uri: str, label: str, folder: Path) -> Path:
    """What a version's run has kept, in a folder."""
    registry = Registry(tracking_uri)
    folder.mkdir()
    return registry.artifacts(registry.resolve(label), folder)


def test_targets_are_forecast(tidecast: Tidecast) -> None:
    two = ("--data", "two.csv", "--features", "a,b", "--arch", "naive")
    assert ahead(tidecast, *two)["Tidecast"].max() < 50, "the first feature, where none is named"
    assert ahead(tidecast, *two, "--targets", "b")["Tidecast"].min() > 50
    assert {"Tidecast-b", "Tidecast-a"} < {*ahead(tidecast, *two, "--targets", "b,a")}


def test_what_was_guessed_of_a_file_is_in_the_json_and_on_stderr(tidecast: Tidecast, tmp_path: Path) -> None:
    wall = [f"{at * HOUR * 1_000_000 + START * 1_000_000},{host},{at % 24}.5" for at in range(200) for host in "abc"]
    (tmp_path / "cpu.csv").write_text("\n".join(["time,host,cpu", *wall, wall[-1]]))
    notes = [
        "3 series by `host`; times from `time`, epoch nanoseconds; value `cpu`",
        "1 of 601 measurements repeat their series' time: without an aggregate, the first counts",
    ]
    for command in (["forecast"], ["backtest", "--no-statistical"], ["train", "--name", "m"]):
        ended = tidecast(*command, *SHAPE, "--data", "cpu.csv", "--arch", "naive", "--json")
        assert done(ended)["notes"] == notes, command
        assert ended.stderr.splitlines()[:2] == notes
    ended = tidecast("ingest", "cpu.csv", "--topic", "cpu", "--json")
    assert done(ended)["notes"] == notes
    assert done(ended)["events"] == 601


def test_non_negative_forecasts_stay_at_zero(tidecast: Tidecast) -> None:
    falling = ("--data", "falling.csv", "--arch", "linear", "--freq", "1h")
    assert ahead(tidecast, *falling, "--no-non-negative")["Tidecast"].min() < 0
    assert ahead(tidecast, *falling)["Tidecast"].min() == 0  # as the data, which was never negative
    assert ahead(tidecast, *falling, "--non-negative")["Tidecast"].min() == 0


@pytest.mark.parametrize(
    "command",
    [
        ("forecast", *SHAPE, "--arch", "naive"),
        ("backtest", *SHAPE, "--arch", "naive", "--no-statistical"),
        ("replay", "--model", "last-value"),
    ],
    ids=lambda command: str(command[0]),
)
def test_plot_is_the_path_of_the_plot(tidecast: Tidecast, tmp_path: Path, own_model: Path, command: Any) -> None:
    own = ("--model", own_model) if command[0] == "replay" else ()
    picture = Path("pictures") / "mine.png"
    found = done(tidecast(*command, *own, "--data", "waves.csv", "--plot", picture, "--json"))
    assert found["plot"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".tidecast/**/*.png"))


def test_protocol_cuts_the_history(tidecast: Tidecast) -> None:
    half = ("backtest", "--data", "waves.csv", *SHAPE, "--test", "0.5", "--arch", "naive", "--no-statistical", "--json")
    rolling, shares = done(tidecast(*half)), done(tidecast(*half, "--protocol", "70-10-20"))
    assert (rolling["protocol"], rolling["windows"]) == ("rolling", 200 - 6 + 1)
    assert (shares["protocol"], shares["windows"]) == ("70-10-20", 80 - 6 + 1)
    ended = tidecast(*half, "--protocol", "ett")
    assert ended.returncode == 78
    assert ended.stderr.splitlines()[-1] == "tidecast: protocol: ett needs 14,400 steps, and there are 400"


@pytest.mark.slow
def test_no_statistical_skips_the_statistical_forecasts(tidecast: Tidecast) -> None:
    small = ("backtest", "--data", "waves.csv", *SHAPE, "--test", "10", "--arch", "naive", "--json")
    assert {"MSTL", "tidecast"} < {*done(tidecast(*small))["statistical"]}
    assert {"MSTL", "tidecast"} < {*done(tidecast(*small, "--statistical"))["statistical"]}
    assert "statistical" not in done(tidecast(*small, "--no-statistical"))


def test_speed_paces_an_ingest(tidecast: Tidecast, tmp_path: Path) -> None:
    """Ten hours at forty thousand times their speed take 0.9 s: never less, however slow the machine."""
    (tmp_path / "ten.csv").write_text("\n".join((tmp_path / "waves.csv").read_text().splitlines()[:11]))
    address = f"sqlite:{tmp_path / 'log.db'}"
    ended = tidecast("ingest", "ten.csv", "--topic", "power", "--bootstrap", address, "--speed", 40_000)
    assert ended.returncode == 0, ended.stderr
    with closing(connect(address)) as log:
        records = [record for part in log.read("power", 0, 0, 10) for record in part]
    written = [record.timestamp for record in records]
    assert len(records) == 10
    assert written[-1] - written[0] > 500
    assert [json.loads(record.value or b"")["ts"] for record in records] == [START + HOUR * hour for hour in range(10)]
    refused = tidecast("ingest", "ten.csv", "--topic", "power", "--bootstrap", address, "--speed", 0)
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (78, "tidecast: speed must be above 0, not 0.0")


@pytest.fixture
def champion(tidecast: Tidecast, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store where waves/1, small and trained for some epochs, serves: it has learned from the first 250 hours."""
    monkeypatch.setenv("TIDECAST_TRACKING_URI", tracking_uri)
    pl.read_csv("waves.csv").head(250).write_csv("past.csv")
    small = ("--arch", "segment", "--hidden", 4, "--epochs", 10, "--freq", "1h", "--device", "cpu")
    assert tidecast("train", "--name", "waves", "--data", "past.csv", *SHAPE, *small).returncode == 0
    return tracking_uri


@pytest.mark.slow
def test_a_warm_start_begins_with_the_champion_s_weights(tidecast: Tidecast, champion: str, tmp_path: Path) -> None:
    """After one epoch from another seed a network is still near where it began."""

    def weights(label: str) -> torch.Tensor:
        state = load_file(kept(champion, label, tmp_path / label.replace("/", "-")) / WEIGHTS_FILE)
        return torch.cat([state[name].flatten() for name in sorted(state) if "core" in name])

    again = ("retrain", "--name", "waves", "--data", "waves.csv", "--arch", "segment", "--hidden", 4, "--epochs", 1)
    for number, start in ((2, "fresh"), (3, "warm")):
        found = done(tidecast(*again, "--seed", 1, "--device", "cpu", "--start", start, "--json"))
        assert (found["model"], found["decision"] == "promote") == (f"waves/{number}", False)
    began, fresh, warm = map(weights, ("waves/1", "waves/2", "waves/3"))
    assert (warm - began).norm() < (fresh - began).norm() / 2


@pytest.mark.slow
def test_until_ends_the_training_data(tidecast: Tidecast, champion: str) -> None:
    again = ("retrain", "--name", "waves", "--data", "waves.csv", "--arch", "linear", "--json")
    found = done(tidecast(*again, "--until", "2024-01-11T20:00"))
    assert (found["model"], found["decision"]) == ("waves/1", "undecided")
    assert found["why"].startswith("10 steps are newer than the training data of waves/1")
    assert done(tidecast(*again))["decision"] != "undecided"


@pytest.mark.slow
def test_members_of_a_classifier_are_in_its_card(tidecast: Tidecast, tracking_uri: str, tmp_path: Path) -> None:
    lines = [f"{('ham', 'spam')[number % 2]},see {('five', 'prize')[number % 2]} at the tree" for number in range(40)]
    (tmp_path / "sms.csv").write_text("\n".join(["label,text", *lines]))
    small = ("--hidden", 4, "--epochs", 1, "--members", 2, "--tracking-uri", tracking_uri)
    assert tidecast("train", "--name", "sms", "--task", "classify", "--data", "sms.csv", *small).returncode == 0
    folder = kept(tracking_uri, "sms", tmp_path / "kept")
    card = read_card((folder / CARD_FILE).read_text())
    assert isinstance(card, ClassifierCard)
    assert card.hyperparameters["members"] == 2
    assert {name.split(".")[1] for name in load_file(folder / WEIGHTS_FILE)} == {"0", "1"}


BACKTEST = ("backtest", "--data", "waves.csv", *SHAPE, "--arch", "segment", "--hidden", 4, "--epochs", 1)
ON_CPU = (*BACKTEST, "--device", "cpu", "--no-statistical", "--json")


@pytest.mark.skipif(not supports_bf16(), reason="this processor does not support bfloat16")
def test_bf16_trains_in_bfloat16(tidecast: Tidecast) -> None:
    exact, rounded = done(tidecast(*ON_CPU)), done(tidecast(*ON_CPU, "--bf16"))
    assert math.isfinite(rounded["mse"])
    assert rounded["mse"] != exact["mse"]


def test_bf16_is_rejected_on_a_processor_without_it(tidecast: Tidecast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "supports_bf16", lambda: False)
    ended = tidecast(*ON_CPU, "--bf16")
    assert (ended.returncode, ended.stdout) == (78, "")
    assert ended.stderr.splitlines()[-1] == "tidecast: bf16: this processor does not support bfloat16"
