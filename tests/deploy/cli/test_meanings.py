"""One name, one meaning: a setting of one command never breaks another, and each may have its own."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer

from deploy.cli.config_file import MEANINGS, OTHERS, closest, settable
from deploy.cli.main import app
from tidecast.errors import ConfigError

GROUP: Any = typer.main.get_command(app)
OPTIONS: dict[str, dict[str, Any]] = {name: settable(command) for name, command in GROUP.commands.items()}
SERVED = ["--topic", "power", "--model", "m"]
ARGUMENTS = {
    "serve": SERVED,
    "check": SERVED,
    "tail": ["power"],
    "forecast": ["--data", "x.csv"],
    "replay": ["--topic", "power"],
    "explain": ["power", "0", "0"],
    "score": ["power-forecasts"],
    "dashboard": [],
    "schedule": ["--name", "m", "--topic", "power"],
}
SAID_OTHERWISE = {
    "coverage": "of the intervals in serving, and of the same over a past if asked for",
    "data": "one command needs it, and next-token reads a text",
    "features": "the same columns, of files, events and dead letters",
    "group": "the service's own, or of one that is looked at",
    "last": "how many of the newest to show",
    "model": "the same references, of which some commands take several or a file only",
    "plot": "each says where its own picture lies by default",
    "seed": "of training, and of sampling",
    "token-file": "what a request needs: of serve for /metrics alone",
    "to": "the end of origins, or of buckets of scores",
    "topic": "of events, or left out for a file",
}
"""Options that are described in other words by some command, and mean the same."""
Params = Callable[..., Mapping[str, Any]]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A command's parameters in an empty folder, by a tidecast.toml and variables."""
    monkeypatch.chdir(tmp_path)

    def parsed(command: str, toml: str = "", *arguments: str, **variables: str) -> Mapping[str, Any]:
        Path("tidecast.toml").write_text(toml)
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            context = _context(command, [*ARGUMENTS[command], *arguments])
        found: Mapping[str, Any] = context.params
        return found

    return parsed


def _context(command: str, arguments: list[str]) -> Any:
    group: Any = typer.main.get_command(app)
    return group.commands[command].make_context(command, arguments, parent=group.context_class(group))


def test_an_option_of_several_commands_has_one_type_and_one_meaning() -> None:
    kinds, texts = defaultdict[str, set[Any]](set), defaultdict[str, set[str]](set)
    for name, option in chain.from_iterable(options.items() for options in OPTIONS.values()):
        kinds[name].add((option.type_descriptor.annotation, option.is_flag, option.multiple))
        texts[name].add(option.help)
    assert {name for name, found in kinds.items() if len(found) > 1} <= MEANINGS.keys()
    assert {name for name, found in texts.items() if len(found) > 1} <= MEANINGS.keys() | SAID_OTHERWISE.keys()
    for name, meanings in MEANINGS.items():
        assert meanings.keys() - {OTHERS} <= {command for command, options in OPTIONS.items() if name in options}


def test_no_variable_is_of_two_options() -> None:
    shared = {f"TIDECAST_{name}" for options in OPTIONS.values() for name in options}
    own = [f"TIDECAST_{command}_{name}" for command, options in OPTIONS.items() for name in options]
    names = [name.replace("-", "_").upper() for name in [*shared, *own]]
    assert len(set(names)) == len(names)
    assert not [name for name in own if name.startswith("TIDECAST_kafka")]


@pytest.mark.parametrize("source", ["file", "variable"])
@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("follow", "5s", {"serve": "5s", "tail": False, "score": False}),
        ("follow", "true", {"serve": "10s", "tail": True, "score": True}),
        (
            "output",
            "power-out",
            {"serve": "power-out", "check": "power-out", "dashboard": "power-out", "forecast": None},
        ),
        ("output", "ahead.csv", {"serve": None, "check": None, "forecast": Path("ahead.csv")}),
        ("from", "latest", {"serve": "latest", "replay": None, "score": None, "dashboard": "7d"}),
        ("from", "90d", {"serve": "earliest", "replay": "90d", "score": "90d", "dashboard": "90d"}),
        ("model", "power@champion", {"serve": "m", "replay": ["power@champion"], "explain": None}),
        ("port", "8080", {"dashboard": 8080}),
        ("port", "tcp://10.0.0.1:80", {"dashboard": 8765}),  # as Kubernetes sets it beside a Service called tidecast
        ("model", "power.onnx", {"replay": ["power.onnx"], "explain": "power.onnx"}),
    ],
)
def test_a_shared_setting_is_for_the_commands_that_mean_it(
    params: Params, monkeypatch: pytest.MonkeyPatch, source: str, name: str, value: str, meant: dict[str, Any]
) -> None:
    field = {"from": {"serve": "start", "replay": "since", "score": "since", "dashboard": "since"}}.get(name, {})
    replayed = {} if name == "model" else {"TIDECAST_REPLAY_MODEL": "last-value"}
    for command, expected in meant.items():
        toml = f"{name} = '{value}'" if source == "file" else ""
        variables = {f"TIDECAST_{name.upper()}": value} if source == "variable" else {}
        assert params(command, toml, **replayed, **variables)[field.get(command, name)] == expected


def test_a_value_that_no_command_can_use_is_said_to_be_wrong(params: Params) -> None:
    assert params("serve", "follow = 'soon'")["follow"] == "soon", "which serve refuses"
    with pytest.raises(ConfigError, match=r"tidecast.toml: follow = 'soon': .* a valid boolean"):
        params("tail", "follow = 'soon'")


def test_each_command_has_settings_of_its_own(params: Params) -> None:
    toml = "follow = '1s'\n[serve]\nfollow = '2s'\n[tail]\nfollow = true\n[forecast]\noutput = 'ahead.csv'"
    assert params("serve", "follow = '1s'")["follow"] == "1s"
    assert params("serve", toml)["follow"] == "2s"
    assert params("serve", toml, TIDECAST_FOLLOW="3s")["follow"] == "3s"
    assert params("serve", toml, TIDECAST_FOLLOW="3s", TIDECAST_SERVE_FOLLOW="4s")["follow"] == "4s"
    assert params("serve", toml, "--follow", "5s", TIDECAST_SERVE_FOLLOW="4s")["follow"] == "5s"
    assert params("tail", toml)["follow"] is True
    assert params("tail", toml, TIDECAST_FOLLOW="3s", TIDECAST_TAIL_FOLLOW="false")["follow"] is False
    assert params("forecast", toml)["output"] == Path("ahead.csv")
    assert params("serve", toml)["output"] is None


def test_check_looks_at_what_serve_would_do(params: Params) -> None:
    toml = "[serve]\ngroup = 'mine'\nlateness = '1m'"
    assert params("check", toml)["group"] == params("serve", toml)["group"] == "mine"
    assert params("check", f"{toml}\n[check]\ngroup = 'its'")["group"] == "its"
    assert params("check", TIDECAST_SERVE_GROUP="mine")["group"] == "mine"
    assert params("schedule", "[retrain]\nseed = 5")["seed"] == 5


def test_a_setting_of_its_own_is_closer_than_a_shared_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tidecast.toml").write_text("topic = 'power'\n[train]\ndata = 'x.csv'\n")
    assert closest(_context("train", ["--name", "m"]), "topic", "data") == {"topic": None, "data": "x.csv"}
    monkeypatch.setenv("TIDECAST_TOPIC", "power")
    monkeypatch.setenv("TIDECAST_TRAIN_DATA", "y.csv")
    assert closest(_context("train", ["--name", "m"]), "topic", "data") == {"topic": None, "data": "y.csv"}


def test_arguments_are_not_taken_from_the_file(params: Params) -> None:
    """`name` is a training's: it must not choose what `rollback` rolls back, nor `model` what `promote` promotes."""
    with pytest.raises(Exception, match=r"no option is called 'nothing'"):
        params("tail", "nothing = 1")
    for command, toml in {
        "promote": "model = 'm/1'",
        "rollback": "name = 'm'",
        "dead-letters": "topic = 'power'",
    }.items():
        Path("tidecast.toml").write_text(toml)
        with pytest.raises(Exception, match="Missing parameter"):
            _context(command, [])


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, tidecast: Callable[..., Any]) -> None:
    """By the name that it was set by; it is a setting, so 78, where an option would be a usage error."""
    for name, value in {
        "TIDECAST_LAST": "x",
        "TIDECAST_TAIL_LAST": "x\x1b[31m\ny",
        "TIDECAST_LOG_LEVEL": "LOUD",
    }.items():
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            ended = tidecast("tail", "power")
        assert (ended.returncode, ended.stdout) == (78, "")
        assert ended.stderr.startswith(f"tidecast: {name} = {value!r}: ")
        assert ended.stderr[:-1].isprintable()
    monkeypatch.setenv("TIDECAST_LAST", "3")
    assert tidecast("tail", "power", "--last", "x").returncode == 64, "the flag is wrong"
