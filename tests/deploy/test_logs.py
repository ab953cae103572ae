"""Log records on stderr, as text and as JSON; and a stderr or stdout that takes nothing."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE_S, until

from deploy.logs import MAX_WAITING, configure_logging, show_timestamps
from pipeline.formats.events import Event, encode
from pipeline.log import EventLog
from pipeline.log.connect import connect
from tidecast.errors import UnknownTopic
from tidecast.text import escaped

logger = logging.getLogger("deploy.serving.loop")

START, HOUR = 1_704_067_200_000, 3_600_000
TIDECAST = (sys.executable, "-P", "-m", "tidecast")


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    configure_logging()


def test_text_has_the_level_from_warning_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logger.debug("details")
    logger.info("caught up [1]")
    logger.warning("still serving m/1")
    logging.getLogger("tidecast").error("no such topic")
    assert capsys.readouterr().err.splitlines() == [
        "caught up [1]",
        "warning: still serving m/1",
        "tidecast: no such topic",
    ]


def test_services_have_timestamps(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    show_timestamps()
    logger.info("caught up")
    (line,) = capsys.readouterr().err.splitlines()
    date, time, message = line.split(" ", 2)
    assert datetime.fromisoformat(f"{date} {time}").tzinfo is None
    assert message == "caught up"


def test_json_has_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", "json")
    logger.info("not this")
    logger.warning('a "quoted"\nline')
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record.pop("time").endswith("+00:00")
    assert record == {"level": "WARNING", "logger": "deploy.serving.loop", "message": 'a "quoted"\nline'}


def test_a_second_call_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    configure_logging("debug")
    logger.debug("once")
    assert capsys.readouterr().err.splitlines() == ["once"]


HOSTILE = st.text(st.sampled_from("a[]/ \n\r\t\x1b\x9b\x00\u202e\u2028:$\\é☂"), min_size=1)


@given(HOSTILE)
def test_a_message_is_one_line_of_text_whatever_names_it_quotes(name: str) -> None:
    for log_format in ("text", "json"):
        configure_logging(log_format=log_format)
        (handler,) = (each for each in logging.getLogger().handlers if type(each).__module__ == "deploy.logs")
        line = handler.format(logging.LogRecord("deploy", logging.INFO, "", 0, f"from {name}", None, None))
        assert line.isprintable()
        assert (json.loads(line)["message"] if log_format == "json" else line) == (
            f"from {name}" if log_format == "json" else f"from {escaped(name)}"
        )


NOTHING_TAKEN = ("full pipe", "no reader", "full disk", "closed")
"""What becomes of what is written: nobody reads a pipe that is full, nobody ever will, there is no space, no file."""


@contextmanager
def starting(kind: str, stream: str = "stderr") -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `tidecast ARGUMENTS` with a stream that takes nothing."""
    reader, writer = os.pipe()
    if kind == "full pipe":
        fill(writer)
    with Path("/dev/full").open("w") as full, ExitStack() as stack:
        target = full.fileno() if kind == "full disk" else writer

        def start(*arguments: object) -> "subprocess.Popen[str]":
            closed = (lambda: os.close(2 if stream == "stderr" else 1)) if kind == "closed" else None
            how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: target}
            command = [*TIDECAST, *map(str, arguments)]
            process = subprocess.Popen(command, text=True, preexec_fn=closed, **how)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            if kind == "no reader":
                os.close(reader)
            return process

        yield start
    os.close(writer)
    with suppress(OSError):
        os.close(reader)


def fill(writer: int) -> None:
    """Write to a pipe until it is full."""
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b".")
    os.set_blocking(writer, True)


@pytest.mark.parametrize("kind", NOTHING_TAKEN)
def test_a_service_needs_no_stderr(
    kind: str, tmp_path: Path, foreign_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(connect("sqlite:log.db")) as log, starting(kind) as start:
        log.create_topic("power", 1)
        with closing(log.producer()) as producer:
            for hour in range(15):
                producer.send("power", 0, b"pump", encode(Event("pump", START + hour * HOUR, (float(hour),))))
            producer.send("power", 0, b"pump", b"junk")  # a warning
            producer.flush()
        service = start("serve", "--topic", "power", "--model", foreign_model, "--bootstrap", "sqlite:log.db", "--json")
        until(lambda: _end(log, "power-forecasts") == 4, service)
        service.terminate()
        out, _ = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0
    assert json.loads(out)["forecasts"] == 4


def _end(log: EventLog, topic: str) -> int:
    with suppress(UnknownTopic):
        return log.bounds(topic)[0].end
    return 0


@pytest.mark.parametrize("kind", [each for each in NOTHING_TAKEN if each != "full pipe"])
def test_a_command_ends_with_its_own_code_without_a_stderr(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with starting(kind) as start:
        process = start("tail", "power")
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (os.EX_CONFIG, "")


@pytest.mark.parametrize(
    ("kind", "code", "line"),
    [
        ("no reader", 0, ""),
        ("full disk", os.EX_IOERR, "tidecast: input or output: No space left on device\n"),
        ("closed", 0, ""),
    ],
)
def test_a_result_that_stdout_does_not_take(
    kind: str, code: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with starting(kind, "stdout") as start:
        process = start("--version")
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (code, line)


def test_a_command_waits_for_a_reader_who_comes_later() -> None:
    """With a pipe that does not block, too, as Node leaves one to its children."""
    reader, writer = os.pipe()
    fill(writer)
    os.set_blocking(writer, False)
    process = subprocess.Popen([*TIDECAST, "nonsense"], stderr=writer)
    os.close(writer)
    with open(reader, "rb") as stream:
        assert stream.read().lstrip(b".").startswith(b"tidecast: No such command 'nonsense'")
    assert process.wait(PATIENCE_S) == os.EX_USAGE


TOLD = r"warning: ([\d,]+) log lines are missing here: stderr did not take them"
LINES = (1 << 16) // 100 + 3 * MAX_WAITING
"""More than a pipe and the queue before it hold."""
BURST = f"""
import logging, sys
from deploy.logs import configure_logging, finish_logging, log_in_background
configure_logging()
log_in_background()
for number in range({LINES}):
    logging.getLogger("deploy").info(f"{{number:0100}}")
print("logged", flush=True)
sys.stdin.readline()
finish_logging()
logging.getLogger("deploy").info("last")
"""


def test_lines_that_stderr_did_not_take_are_counted_when_it_flows_again() -> None:
    command = [sys.executable, "-c", BURST]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        _, err = process.communicate("\n", timeout=PATIENCE_S)
    *lines, last = err.splitlines()
    assert last == "last"
    written = [int(line) for line in lines if line.isdigit()]
    assert written == sorted(set(written)), "in order"
    told = [re.fullmatch(TOLD, line) for line in lines if not line.isdigit()]
    missing = sum(int(each[1].replace(",", "")) for each in told if each)
    assert missing
    assert missing + len(written) == LINES


@pytest.mark.parametrize("more", [(), ("--log-level", "warning")])
@pytest.mark.parametrize("first", [True, False])
def test_format_and_level_are_options_in_any_order(
    more: tuple[str, ...], first: bool, tidecast: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    options = [*more, "--log-format", "json"] if first else ["--log-format", "json", *more]
    done = tidecast("serve", "--topic", "t", "--model", "m.onnx", *options)
    assert json.loads(done.stderr.splitlines()[-1])["level"] == "ERROR"
