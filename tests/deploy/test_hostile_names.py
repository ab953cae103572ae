"""Names come from others: of series, models, topics, labels. Whatever is in them, people see text, on its own line."""

import io
import json
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.table import Table

from deploy.console import TextConsole
from model.artifacts.registry import Registry
from model.artifacts.versions import sha256
from model.plots.style import save
from pipeline.formats.headers import INPUT, MODEL, OFFSETS, VERSION
from pipeline.log.connect import connect
from tidecast.text import escaped

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]

START = 1_704_067_200_000
NAME = "a[red]b[/]\x1b[31m\ntidecast: all is well\r\x9b2J\u202e$x^$_"
"""Markup, control sequences, a forged line, a right-to-left override, a formula."""
SHOWN = r"a[red]b[/]\x1b[31m\ntidecast: all is well\r\x9b2J\u202e$x^$_"
HOSTILE = st.text(st.sampled_from("ab[]/=#@: \n\r\t\x1b\x9b\x00\x7f\u202e\u2028\u200b$\\{}é☂"), min_size=1)


@given(HOSTILE)
@example(NAME)
def test_a_console_prints_text_as_it_is_and_on_one_line(name: str) -> None:
    written = io.StringIO()
    console = TextConsole(file=written, width=2000)
    console.print(name, soft_wrap=True)
    assert written.getvalue() == f"{escaped(name)}\n"
    table = Table(title=name, caption=name, title_justify="left", caption_justify="left")
    table.add_column(name)
    table.add_row(name)
    console.print(table)
    lines = written.getvalue().split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 9, "the text, a title, five lines of the table, a caption, and the end"
    assert sum(escaped(name).strip() in line for line in lines) >= 5


@given(HOSTILE)
@example(r"$\frac")
@example("$x$_")
def test_a_picture_shows_text_as_it_is(name: str) -> None:
    figure, written = Figure(figsize=(1, 1)), io.BytesIO()
    panel = figure.subplots()
    panel.set_title(name)
    save(figure, written)  # type: ignore[arg-type]
    assert panel.get_title() == escaped(name)
    assert written.getvalue().startswith(b"\x89PNG")


@pytest.fixture
def said(tidecast: Tidecast, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a command says on both streams: every line of it is text."""

    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments: object) -> str:
        ended = tidecast(*arguments)
        text = ended.stdout + ended.stderr
        assert all(line.isprintable() for line in text.split("\n")), text
        assert not [line for line in text.splitlines() if line.startswith("tidecast: all is well")]
        return text.replace("\n", "") if "│" in text else text

    return run


def test_records_are_shown_as_text(said: Callable[..., str], tmp_path: Path, own_model: Path) -> None:
    name = NAME.encode()
    letter = [(f"tidecast.{each}", name) for each in ("reason", "detail", "topic")]
    letter += [(f"tidecast.{each}", b"0") for each in ("partition", "offset", "timestamp", "sha256")]
    forecast = {
        "series": NAME,
        "ts": START,
        "start": START,
        "step": 1,
        "forecast": [1.0],
        "source": NAME,
        "model": NAME,
    }
    origin = [(MODEL, sha256(own_model).encode()), (VERSION, b"m/1"), (INPUT, b"power/0"), (OFFSETS, b"0-0")]
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log, closing(log.producer()) as producer:
        for topic in ("power", "letters"):
            log.create_topic(topic, 1)
        producer.send("power", 0, name, json.dumps({"value": 1.0, "ts": NAME}).encode(), timestamp=START)
        producer.send("power", 0, name, json.dumps(forecast).encode(), timestamp=START, headers=origin)
        producer.send("power", 0, name, name, timestamp=START)
        producer.send("letters", 0, name, name, timestamp=START, headers=letter)
        producer.flush()
    where = ("--bootstrap", "sqlite:log.db")
    assert said("tail", "power", *where).count(SHOWN) == 6, "the keys, a time, a model, a value"
    assert said("tail", "letters", *where).count(SHOWN) == 2, "the key, the reason; and the line is cut"
    assert "[red]b[/]" in said("dead-letters", "letters", *where)
    assert said("explain", "power", 0, 1, "--model", own_model, *where).count(SHOWN) == 1
    assert said("explain", NAME, 0, 1, *where).count(SHOWN) == 1, "an error that names the topic"
    assert SHOWN in said("check", "--topic", NAME, "--model", own_model, *where)


def test_a_registry_is_shown_as_text(said: Callable[..., str], tracking_uri: str, tmp_path: Path) -> None:
    name, folder = "a[red]b[link=x]", tmp_path / "run"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"")
    tags = {"verdict": "promote", "why": NAME, "validation_mse": NAME}
    registry = Registry(tracking_uri)
    with registry.run(name) as training:
        registry.register(name, training, folder, tags=tags)
    shown = said("models", name, "--tracking-uri", tracking_uri)
    assert f"{name}/1" in shown
    assert r"\x1b" in shown
    assert name in said("serve", "--topic", "power", "--model", name, "--tracking-uri", tracking_uri)


def test_usage_and_settings_are_shown_as_text(said: Callable[..., str], tmp_path: Path) -> None:
    assert r"--a[red]b[/]\x1b[31m\x0atidecast" in said("tail", "power", f"--{NAME}")
    assert SHOWN in said("ingest", NAME, "--topic", "power")
    (tmp_path / "tidecast.toml").write_text(f"{json.dumps(NAME)} = 1")
    assert "[red]b[/]" in said("tail", "power")
    for log_format in ("text", "json"):
        assert "[red]b[/]" in said("tail", "power", "--log-format", log_format, "--config", f"{NAME}.toml")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("ingest", "hours.csv", "--topic", "p\udcff"), 78),
        (("check", "--topic", "p\udcff", "--model", "m.onnx"), 78),
        (("serve", "--topic", "power", "--model", "m\udcff"), 78),
        (("train", "--data", "hours.csv", "--name", "m\udcff"), 65),
    ],
)
def test_a_name_that_is_not_utf8_is_one_line(tidecast: Tidecast, command: tuple[str, ...], code: int) -> None:
    rows = [f"{START + hour * 3_600_000},{hour}" for hour in range(60)]
    Path("hours.csv").write_text("\n".join(["ts,value", *rows]))
    ended = tidecast(*command)
    assert ended.returncode == code
    *before, last = ended.stderr.splitlines()
    assert last.startswith("tidecast: ")
    assert r"\udcff" in last
    assert not [line for line in before if line.startswith(("tidecast:", "Traceback"))]
