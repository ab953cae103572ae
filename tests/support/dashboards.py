"""A log as services leave it, and the page over it as a process."""

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from waiting import until

from deploy.dashboard.topics.state import State, Topics
from pipeline.formats.alerts import Alert, encode_alert
from pipeline.formats.dead_letters import InvalidEvent, encode_dead_letter
from pipeline.formats.forecasts import Forecast
from pipeline.formats.scores import ModelScores, SeriesScores, encode_scores
from pipeline.log import Commit, EventLog, Record
from pipeline.state.records import PARTITION_KEY, PartitionRecord, encode_partition

START, MINUTE = 1_764_000_000_000, 60_000
HORIZON, STEPS = 4, 30
HOSTILE = "<img src=x onerror=alert(1)>"
SERIES = ("good", "bad", HOSTILE)
HEADERS = [("tidecast.model", b"ab" * 32)]


class Kept(msgspec.Struct):
    """A record."""

    value: bytes | None
    offset: int = 0
    partition: int = 0
    timestamp: int = START
    key: bytes | None = None
    topic: str = "tides"
    headers: list[tuple[str, bytes]] = []


def new_state(output: str = "tides-forecasts") -> State:
    return State(Topics(input="tides", output=output, group=None))


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class Page:
    """A page's server."""

    def __init__(self, address: str, process: "subprocess.Popen[str]") -> None:
        self.address, self.process = address, process

    def ask(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
        host, _, port = self.address.removeprefix("http://").partition("/")[0].rpartition(":")
        with closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())

    def get(self, view: str, **parameters: object) -> Any:
        query = urlencode({name.rstrip("_"): value for name, value in parameters.items()})
        answer = self.ask(f"/api/{view}?{query}")
        assert answer.status == 200, answer.raw
        return answer.body

    def until(self, condition: Callable[["Page"], bool]) -> None:
        until(lambda: condition(self), self.process)

    def until_read(self) -> None:
        self.until(lambda page: bool(page.get("overview")["reading"]["caught_up"]))


StartPage = Callable[..., Page]


def pages(folder: Path) -> Iterator[StartPage]:
    with ExitStack() as stack:

        def start(*options: object, env: dict[str, str] | None = None) -> Page:
            command = [sys.executable, "-m", "tidecast", "dashboard", "--port", "0", *map(str, options)]
            with (folder / "err.log").open("w") as err:
                process = subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=err, env=env)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("http://"), (folder / "err.log").read_text()
            return Page(line.split()[0], process)

        yield start


@contextmanager
def streamed(page: Page, **parameters: object) -> Iterator[Iterator[tuple[str, Any]]]:
    """The events of a stream."""
    host, port = page.address.removeprefix("http://").rstrip("/").split(":")

    def events(lines: Iterator[bytes]) -> Iterator[tuple[str, Any]]:
        name = ""
        for line in lines:
            field, _, text = line.decode().strip().partition(": ")
            name = text if field == "event" else name
            if field == "data":
                yield name, json.loads(text)

    with socket.create_connection((host, int(port)), timeout=60) as connection, connection.makefile("rb") as file:
        query = urlencode(parameters)
        connection.sendall(f"GET /api/stream?{query} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        yield events(iter(file))


def value(number: int, step: int) -> float:
    """The value of a series at a step."""
    return float(10 * number + step % 6)


def forecast(number: int, step: int, model: str, **more: Any) -> bytes:
    """A forecast that is 1 off at all steps; its interval holds what comes."""
    values = [value(number, step + k) + 1 for k in range(1, HORIZON + 1)]
    bounds: dict[str, Any] = {
        "lower": [each - 3 for each in values],
        "upper": [each + 3 for each in values],
        "coverage": 0.9,
    }
    ts = START + step * MINUTE
    made = Forecast(SERIES[number], ts, ts + MINUTE, MINUTE, values, "model", model, **bounds)
    return msgspec.json.encode(msgspec.structs.replace(made, **more))


def scores(number: int, start: int, model: str, error: float, naive: float = 2.0, count: int = 10) -> bytes:
    """A bucket of scores with two scored steps."""

    def twice(each: Any) -> list[Any]:
        return [each, each]

    sums = {"squared_error": count * error**2, "absolute_error": count * error}
    sums |= {"naive_squared_error": count * naive**2, "naive_absolute_error": count * naive}
    sums |= {"width": count * 6.0, "winkler": count * 6.0}
    counts = {"count": count, "intervals": count, "inside": count - 1}
    row = ModelScores(model=model, target="level", **{name: twice(each) for name, each in {**sums, **counts}.items()})
    return encode_scores(
        SeriesScores(
            series=SERIES[number],
            start=start,
            until=start + 9 * MINUTE,
            steps=[1, 4],
            naive=6,
            coverage=0.9,
            scale={"level": 2.0},
            unscored={"level": [0, 1]},
            scores=[row],
        )
    )


class Writer:
    """Writes what producers and a service write to one partition."""

    def __init__(self, log: EventLog, topic: str = "tides", group: str = "tidecast-tides-m") -> None:
        self.log, self.topic, self.group = log, topic, group
        self.output = f"{topic}-forecasts"
        for name in (topic, self.output, f"{self.output}-scores", f"{self.output}-alerts", f"{group}-dead-letters"):
            log.create_topic(name, 1)
        log.create_topic(f"{group}-state", 1, compacted=True)

    def send(
        self, topic: str, rows: Sequence[tuple[bytes | None, bytes, list[tuple[str, bytes]]]], ts: int = START
    ) -> None:
        with closing(self.log.producer()) as producer:
            for key, content, headers in rows:
                producer.send(topic, 0, key, content, timestamp=ts, headers=headers)
            producer.flush()

    def steps(self, steps: Sequence[int], swap_at: int = 20) -> None:
        """Values and forecasts of all series; the model is another from `swap_at` on."""
        for step in steps:
            ts, model = START + step * MINUTE, "tides/1" if step < swap_at else "tides/2"
            events = [
                msgspec.json.encode({"series": name, "ts": ts, "value": value(number, step)})
                for number, name in enumerate(SERIES)
            ]
            self.send(self.topic, [(None, each, []) for each in events], ts)
            found = [forecast(number, step, model, anomaly=2.5 if step == 12 else 0.1) for number in range(len(SERIES))]
            self.send(self.output, [(b"k", each, HEADERS) for each in found], ts)

    def all(self) -> None:
        """All that a service writes."""
        self.steps(range(STEPS))
        errors = (0.5, 3.0, 1.0)
        buckets = [
            scores(number, START + part * 10 * MINUTE, f"tides/{1 + part // 2}", error)
            for part in range(3)
            for number, error in enumerate(errors)
        ]
        self.send(f"{self.output}-scores", [(b"k", each, [("tidecast.offsets", b"1-1")]) for each in buckets])
        alert = Alert(series="bad", kind="spike", phase="begin", ts=START + 12 * MINUTE, since=START + 12 * MINUTE,
                      size=9.0, value=30.0, usual=11.0, text=f"bad: 30 at noon {HOSTILE}")  # fmt: skip
        ended = msgspec.structs.replace(alert, phase="end", ts=START + 14 * MINUTE, outcome="back", text="bad: over")
        gap = msgspec.structs.replace(alert, series="good", kind="gap", ts=START + 29 * MINUTE, text="good: no value")
        self.send(f"{self.output}-alerts", [(b"k", encode_alert(each), []) for each in (alert, ended, gap)])
        self.dead_letter(b'\x1b[31m{"value": <script>')
        self.dead_letter(b"\xff\xfe", "bad_encoding")
        state = encode_partition(PartitionRecord(position=60, partitions=1, topic_id="x"))
        self.send(f"{self.group}-state", [(PARTITION_KEY, state, [])])
        consumer = self.log.consumer(self.group, self.topic)
        until(lambda: bool(consumer.poll(0.2, 1).assigned))
        consumer.commit({0: Commit(60)})
        consumer.close()

    def dead_letter(self, content: bytes, reason: Any = "malformed_json", ts: int = START) -> None:
        class Invalid:
            topic, partition, offset, timestamp, key, value, headers = self.topic, 0, 7, ts, b"k", content, ()

        record: Record = Invalid()
        letter = encode_dead_letter(record, InvalidEvent(reason, f"{HOSTILE} is no JSON"))
        self.send(f"{self.group}-dead-letters", [(letter.key, letter.value, letter.headers)], ts)
