"""Topics whose events have other shapes than ours: what train, check, serve, tail and explain make of them, and say."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from waiting import stop

from pipeline.log import EventLog, Record
from pipeline.log.connect import connect

Fresh = Callable[[str], str]
Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
UntilWritten = Callable[..., list[Record]]

START, HOUR = 1_704_067_200_000, 3_600_000
NAIVE = ("--arch", "naive", "--seq-len", 12, "--horizon", 2, "--freq", "1h")
READ = "series from `sensorId`; time from `@timestamp`, epoch seconds; value from `temperature`"


pytestmark = pytest.mark.slow  # each trains or serves


def found(hour: int) -> dict[str, object]:
    """An event of an hour, in a shape that is found by names."""
    return {"sensorId": "s", "@timestamp": START // 1000 + hour * 3600, "temperature": hour % 12, "unit": "C"}


def nested(hour: int) -> dict[str, object]:
    return {"op": "c", "payload": {"who": "s", "time": START + hour * HOUR, "after": {"cpu": str(hour % 12)}}}


PATHS = """[decode]
series = "$.payload.who"
ts = "$.payload.time"
value = "$.payload.after.cpu"
"""


class Topic:
    """A topic of one partition, and commands on it."""

    def __init__(self, log: EventLog, run: Run, address: str, name: str) -> None:
        self.log, self.run, self.address, self.name = log, run, address, name
        log.create_topic(name, 1)

    def write(self, bodies: Sequence[object], key: bytes | None = b"\x00\x00\x03\xe9") -> None:
        with closing(self.log.producer()) as producer:
            for body in bodies:
                producer.send(self.name, 0, key, body if isinstance(body, bytes) else json.dumps(body).encode())
            producer.flush()

    def train(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self("train", "--name", "m", *NAIVE, *arguments, code=code)

    def __call__(self, command: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        where = (self.name,) if command == "tail" else ("--topic", self.name)
        ended = self.run(command, *where, "--bootstrap", self.address, *arguments)
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended

    def findings(self, model: Path, code: int = 0) -> dict[str, list[dict[str, str]]]:
        found: list[dict[str, str]] = json.loads(self("check", "--model", model, "--json", code=code).stdout)[
            "findings"
        ]
        return {about: [each for each in found if each["about"] == about] for about in ("fields", "records", "keys")}


@pytest.fixture
def topic(log_address: str, tidecast: Run, fresh: Fresh) -> Iterator[Topic]:
    with closing(connect(log_address)) as log:
        yield Topic(log, tidecast, log_address, fresh("shapes"))


@pytest.fixture
def local(tmp_path: Path, tidecast: Run, fresh: Fresh) -> Iterator[Topic]:
    """On SQLite only: what is tested does not depend on the log."""
    address = f"sqlite:{tmp_path / 'log.db'}"
    with closing(connect(address)) as log:
        yield Topic(log, tidecast, address, fresh("shapes"))


def test_events_found_by_their_names_are_trained_on_checked_and_served_alike(
    topic: Topic, own_model: Path, start_tidecast: Start, until_written: UntilWritten
) -> None:
    topic.write([found(hour) for hour in range(60)])
    trained = topic.train("--json")
    assert f"{topic.name}: {READ}" in trained.stderr.splitlines()
    assert json.loads(trained.stdout.splitlines()[-1])["notes"] == [READ]
    assert topic.findings(own_model)["fields"] == [{"about": "fields", "verdict": "ok", "found": READ, "todo": ""}]
    tailed = topic("tail", "--last", 1).stdout
    assert tailed.endswith(" s value 11  at 2024-01-03 11:00:00\n")
    serve = ("serve", "--topic", topic.name, "--bootstrap", topic.address, "--group", f"{topic.name}-g", "--json")
    service = start_tidecast(*serve, "--model", own_model)
    written = until_written(topic.log, f"{topic.name}-forecasts", 40, service)
    service.terminate()
    _, err = service.communicate()
    assert [line for line in err.splitlines() if "series from" in line or "value from" in line] == [
        line for line in err.splitlines() if line.endswith(f"{topic.name}: {READ}")
    ]
    assert err.count(READ) == 1
    first = json.loads(written[0].value or b"")
    assert (first["series"], (first["ts"] - START) % HOUR) == ("s", 0)


def test_paths_of_the_settings_file_hold_for_every_command(
    local: Topic, own_model: Path, start_tidecast: Start, until_written: UntilWritten, tmp_path: Path
) -> None:
    local.write([nested(hour) for hour in range(60)], key=None)
    assert '[decode] series = "$..." says which' in local.train(code=65).stderr
    wrong = local.findings(own_model, code=78)
    assert wrong["records"][0]["verdict"] == "wrong"
    assert "60 bad_key, such as: no key, and no field among `op`, `payload` names" in wrong["records"][0]["found"]
    assert "(partition 0, offset 0)" in wrong["records"][0]["found"]
    assert "no event: bad_key: " in local("tail", "--last", 1).stdout

    (tmp_path / "tidecast.toml").write_text(PATHS)
    local.train()
    assert local.findings(own_model)["fields"][0]["verdict"] == "ok"
    assert local("tail", "--last", 1).stdout.endswith(" s value 11  at 2024-01-03 11:00:00\n")
    group = f"{local.name}-g"
    serve = ("serve", "--topic", local.name, "--bootstrap", local.address, "--group", group, "--json")
    service = start_tidecast(*serve, "--model", own_model)
    until_written(local.log, f"{local.name}-forecasts", 40, service)
    assert stop(service)["dead_letters"] == 0
    explain = (
        "explain",
        f"{local.name}-forecasts",
        0,
        30,
        "--bootstrap",
        local.address,
        "--model",
        own_model,
        "--json",
    )
    assert json.loads(local.run(*explain).stdout.splitlines()[-1])["same"] is True


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("[decode]\ntime = '$.a'", "[decode] has no setting called 'time'"),
        ("[decode]\nts = 'payload.time'", "[decode] 'payload.time' is not a path such as '$.payload.time'"),
        ("decode = '$.a'", "[decode] is a table"),
    ],
)
def test_a_wrong_table_is_one_line_of_every_command(local: Topic, table: str, error: str, tmp_path: Path) -> None:
    (tmp_path / "tidecast.toml").write_text(table)
    commands: list[tuple[Any, ...]] = [("train", "--name", "m"), ("check", "--model", "m.onnx"), ("tail",)]
    for command, *arguments in [*commands, ("serve", "--model", "m.onnx"), ("retrain", "--name", "m")]:
        (line,) = local(command, *arguments, code=78).stderr.splitlines()
        assert line.startswith("tidecast: tidecast.toml: ")
        assert error in line


def test_what_is_left_out_is_said_with_its_reason_and_stops_a_training(topic: Topic) -> None:
    topic.write([found(hour) | ({"temperature": "unavailable"} if hour % 10 == 3 else {}) for hour in range(60)])
    why = "6 schema, such as: no value among `sensorId`, `@timestamp`, `temperature`, `unit` (partition 0, offset 3)"
    line = f"{topic.name}: 6 of 60 records (10 %) are left out: {why}"
    ended = topic.train(code=65)
    assert ended.stderr.splitlines()[-1] == f"tidecast: {line}. --max-skipped 0.1 goes on without them"
    assert line in topic.train("--max-skipped", "0.1").stderr
    topic.write([found(hour) for hour in range(60, 160)])
    assert "6 of 160 records (3.75 %) are left out" in topic.train().stderr


def test_what_can_be_read_in_two_ways_is_asked(topic: Topic, own_model: Path, tmp_path: Path) -> None:
    topic.write([found(hour) | {"event_time": START + (hour - 2) * HOUR} for hour in range(60)])
    question = "is the time `event_time` or `@timestamp`?"
    assert f'{topic.name}: {question} [decode] ts = "$.event_time"' in topic.train(code=78).stderr
    (wrong,) = [each for each in topic.findings(own_model, code=78)["fields"] if each["verdict"] == "wrong"]
    assert (wrong["found"], wrong["todo"]) == (question, '[decode] ts = "$.event_time"')
    (tmp_path / "tidecast.toml").write_text("[decode]\nts = '$.event_time'\n")
    assert "time from `$.event_time`" in topic.train().stderr


def test_a_time_that_is_not_used_is_said(topic: Topic, own_model: Path, start_tidecast: Start) -> None:
    topic.write([{"series": "s", "value": hour, "measured": "2024-01-01T00:00:00Z"} for hour in range(30)])
    (warning,) = [each for each in topic.findings(own_model)["fields"] if each["verdict"] == "warning"]
    assert warning["found"] == "`$.measured` looks like a time and is not used"
    assert warning["todo"] == '[decode] ts = "$.measured" takes it'
    assert warning["found"] in topic.train(code=65).stderr


def test_a_key_that_differs_from_the_series_is_said_and_can_be_kept(
    topic: Topic, own_model: Path, start_tidecast: Start, until_written: UntilWritten, tmp_path: Path
) -> None:
    """An earlier version took the key: a service that goes on from its state must not rename its series in silence."""
    topic.write([found(hour) for hour in range(60)], key=b"pump-7")
    line = 'series from `sensorId`, and the key is another: [decode] series = "record.key" takes it'
    assert f"{topic.name}: {line}" in topic.train().stderr
    (warning,) = [each for each in topic.findings(own_model)["fields"] if each["verdict"] == "warning"]
    assert f"{warning['found']}: {warning['todo']}" == line
    serve = ("serve", "--topic", topic.name, "--bootstrap", topic.address, "--group", f"{topic.name}-g", "--json")
    service = start_tidecast(*serve, "--model", own_model)
    until_written(topic.log, f"{topic.name}-forecasts", 40, service)
    service.terminate()
    assert f"warning: {topic.name}: {line}" in service.communicate()[1]

    (tmp_path / "tidecast.toml").write_text("[decode]\nseries = 'record.key'\n")
    (read,) = topic.findings(own_model)["fields"]
    assert read["found"].startswith("series from the key; ")
    assert "pump-7" in topic("tail", "--last", 1).stdout
