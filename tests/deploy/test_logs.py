"""Log records on stderr, as text and as JSON."""

import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest

from deploy.logs import configure_logging, show_timestamps

logger = logging.getLogger("deploy.serving.loop")


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
