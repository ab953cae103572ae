"""Every option of a training reaches its job: from a flag, from its variable, and from the settings file."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from deploy.cli.main import app
from deploy.data import COLUMN_OPTIONS, columns_of
from deploy.settings.serve import window_config
from deploy.training.jobs import TrainJob
from deploy.training.options import TrainOptions, classify_job, data_source, forecast_job
from model.card import InputSpec
from model.training.forecast_config import ForecastConfig
from pipeline.datasets.columns import Columns
from pipeline.windows.grid import WindowConfig

JOB: dict[str, tuple[str, Any]] = {
    "name": ("waves", "waves"),
    "features": ("a,b,c", ("a", "b", "c")),
    "targets": ("b,a", ("b", "a")),
    "known": ("c", ("c",)),
    "non_negative": ("true", True),
    "freq": ("2h", "2h"),
    "offset": ("-1h", "-1h"),
    "horizon": ("7", 7),
    "max_gap": ("9", 9),
    "aggregate": ("mean", "mean"),
    "lateness": ("5m", 300_000),
    "seq_len": ("33", 33),
    "season": ("21", 21),
    "precision": ("int8", "int8"),
}
"""Of each field of TrainJob the option's text, and the field's value."""
CONFIG: dict[str, tuple[str, Any]] = {
    "arch": ("linear", "linear"),
    "hidden": ("17", 17),
    "epochs": ("3", 3),
    "seed": ("5", 5),
    "device": ("cpu", "cpu"),
    "bf16": ("true", True),
    "winsorise": ("false", False),
    "budget": ("2m", 120.0),
}
"""Of each option of ForecastConfig."""
CLASSIFIER: dict[str, tuple[str, Any]] = {
    "hidden": ("17", 17),
    "epochs": ("3", 3),
    "seed": ("5", 5),
    "device": ("cpu", "cpu"),
    "balance": ("true", True),
    "members": ("2", 2),
}
ARGUMENTS = {"ingest": ["x.csv", "--topic", "t"], "replay": ["--model", "m"], "forecast": ["--data", "x.csv"]}
NEEDED = {"known": {"features": "a,b,c"}, "targets": {"features": "a,b"}, "aggregate": {"freq": "2h"}}
"""Other options that an option cannot do without."""


def options(
    monkeypatch: pytest.MonkeyPatch, folder: Path, source: str, given: dict[str, str], command: str
) -> TrainOptions:
    """A training's options, set as those of a command."""
    return TrainOptions.of({"name": "m"} | parsed(monkeypatch, folder, source, given, command))


def parsed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, source: str, given: dict[str, str], command: str
) -> dict[str, Any]:
    """A command's options, set by flags, by variables, or in the settings file."""
    monkeypatch.chdir(folder)
    arguments = []
    for name, text in given.items():
        flag = name.replace("_", "-")
        if source == "flag":
            switches = {"true": [f"--{flag}"], "false": [f"--no-{flag}"]}
            arguments += switches.get(text, [f"--{flag}", text])
        elif source == "variable":
            monkeypatch.setenv(f"TIDECAST_{name.upper()}", text)
        else:
            with (folder / "tidecast.toml").open("a") as file:
                file.write(f"{flag} = {text if text in ('true', 'false') else repr(text)}\n")
    group: Any = typer.main.get_command(app)
    context = group.commands[command].make_context(
        command, [*arguments, *ARGUMENTS.get(command, [])], parent=group.context_class(group)
    )
    params: dict[str, Any] = context.params
    return params


def test_every_field_of_a_job_has_a_case() -> None:
    assert JOB.keys() | {"config"} == {each.name for each in fields(TrainJob)}
    of_config = {each.name for each in fields(ForecastConfig)} & {*TrainOptions.__struct_fields__}
    assert CONFIG.keys() == of_config | {"budget"}


NAMED = TrainOptions(name="m")


@pytest.mark.parametrize("source", ["flag", "variable", "file"])
@pytest.mark.parametrize("name", [*JOB, *CONFIG])
def test_an_option_reaches_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, source: str) -> None:
    text, value = (JOB | CONFIG)[name]
    command = "backtest" if name == "known" else "train"
    given = {"name": "m", **NEEDED.get(name, {}), name: text} if command == "train" else {**NEEDED[name], name: text}
    job = forecast_job(options(monkeypatch, tmp_path, source, given, command))
    found = getattr(job, name) if name in JOB else getattr(job.config, "seconds" if name == "budget" else name)
    default = forecast_job(NAMED)
    assert found == value
    assert value != (getattr(default, name) if name in JOB else getattr(default.config, name, None))


@pytest.mark.parametrize("source", ["flag", "variable", "file"])
@pytest.mark.parametrize("name", CLASSIFIER)
def test_an_option_reaches_the_classifier(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, source: str
) -> None:
    text, value = CLASSIFIER[name]
    found = options(monkeypatch, tmp_path, source, {"name": "m", "task": "classify", name: text}, "train")
    assert getattr(classify_job(found).config, name) == value


COLUMNS: dict[str, tuple[str, Any]] = {
    "series_column": ("store,item", "store,item"),
    "time_column": ("when", "when"),
    "value_column": ("sales", "sales"),
    "features": ("a,b", ("a", "b")),
    "decimal": (",", ","),
    "na": ("-999, defekt", ("-999", "defekt")),
    "timezone": ("Europe/Berlin", "Europe/Berlin"),
    "time_format": ("%d/%m/%Y", "%d/%m/%Y"),
    "max_skipped": ("0.2", 0.2),
}
"""Of each option of a file's columns."""


def test_every_field_of_the_columns_has_a_case() -> None:
    assert COLUMNS.keys() == {*COLUMN_OPTIONS.values()}
    assert {*COLUMN_OPTIONS, "aggregated"} == {each.name for each in fields(Columns)}


@pytest.mark.parametrize("command", ["train", "backtest", "forecast", "retrain", "schedule", "replay", "ingest"])
@pytest.mark.parametrize("source", ["flag", "variable", "file"])
def test_options_of_columns_reach_every_command_that_reads_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, source: str
) -> None:
    needed = {"name": "m"} if command in {"train", "retrain", "schedule"} else {}
    given = needed | {name: text for name, (text, _) in COLUMNS.items()}
    if command in {"retrain", "schedule", "replay"}:
        del given["features"]  # the model's own
    params = parsed(monkeypatch, tmp_path, source, given, command)
    options = TrainOptions.of({"name": "m", **params, "topic": None, "data": "x.csv"})
    for columns in (columns_of(params), data_source(options).columns):
        found = {option: getattr(columns, name) for name, option in COLUMN_OPTIONS.items() if option in given}
        assert found == {name: COLUMNS[name][1] for name in found}


def test_windows_take_every_setting_of_the_model_s_inputs() -> None:
    settings: dict[str, Any] = {
        "seq_len": 33,
        "features": ("a", "b"),
        "freq": "2h",
        "offset": "-1h",
        "max_gap": 9,
        "lateness": 300_000,
        "aggregate": "mean",
    }
    assert settings.keys() == {each.name for each in fields(WindowConfig)}
    spec = InputSpec(**settings)
    assert window_config(spec) == WindowConfig(**settings)
    assert window_config(spec, lateness=1).lateness == 1
