"""Alerts are posted as they are on their topic; whatever the server does, serving and stopping don't wait for it."""

import base64
import itertools
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import exported
from sharing import Shared
from waiting import Idle, until

from deploy.models.loading import load_onnx
from deploy.serving import loop, webhook
from deploy.serving.connections import Connections
from deploy.serving.loop import Service
from deploy.serving.monitoring.stats import ServiceStats
from deploy.serving.tasks import task_for
from deploy.serving.webhook import QUEUED, Webhook
from deploy.settings.serve import Guarantee, ServeConfig
from model.card import Card, InputSpec, OutputSpec
from pipeline import failpoint
from pipeline.formats.events import Event, encode
from pipeline.log.connect import connect
from tidecast.errors import ConfigError

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]
START = 1_700_000_040_000


class Server:
    """An HTTP server that remembers what is posted, and answers with the next of its codes, the last one for ever."""

    def __init__(self, *codes: int) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.hung, self.asked = threading.Event(), threading.Event()
        answers = itertools.chain(codes or (204,), itertools.repeat(codes[-1] if codes else 204))
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                server.paths.append(self.path)
                server.headers.append(dict(self.headers.items()))
                server.asked.set()
                if (code := next(answers)) == 0:
                    server.hung.wait()
                    return
                self.send_response(code)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.place = f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.place}/alerts"

    def close(self) -> None:
        self.hung.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*codes: int) -> Server:
        started.append(Server(*codes))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "RETRIED_AFTER_S", (0.01, 0.02, 0.03))


def test_alerts_are_posted_in_order_with_the_user_s_name_and_the_path(
    server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deploy")
    taken = server()
    with closing(Webhook(f"http://ann%40sea:se%20cret@{taken.place}/a/b?token=t1#part", "out-alerts")) as posted:
        posted.post([b'{"n":1}', b'{"n":2}'])
        posted.post([b'{"n":3}'])
    assert taken.bodies == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    assert set(taken.paths) == {"/a/b?token=t1"}
    assert taken.headers[0]["Content-Type"] == "application/json"
    scheme, _, user = taken.headers[0]["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(user)) == ("Basic", b"ann@sea:se cret")
    assert posted.counts == {"posted": 3, "failed": 0, "not_sent": 0}
    assert caplog.messages == [f"http://{taken.place}: 3 alerts posted"]


def test_a_server_that_is_busy_is_tried_again(server: Callable[..., Server]) -> None:
    busy = server(503, 429, 200)
    with closing(Webhook(busy.url, "out-alerts")) as posted:
        posted.post([b"1"])
        until(lambda: posted.counts["posted"] == 1)
    assert busy.bodies == [b"1"] * 3


@pytest.mark.parametrize(("code", "asked"), [(400, 1), (301, 1), (307, 1), (500, 4)])
def test_what_a_server_does_not_take_is_counted_and_said_once(
    server: Callable[..., Server], caplog: pytest.LogCaptureFixture, code: int, asked: int
) -> None:
    caplog.set_level(logging.INFO, "deploy")
    refusing = server(*[code] * 2 * asked, 200)
    with closing(Webhook(refusing.url, "out-alerts")) as posted:
        posted.post([b"1", b"2", b"3"])
        until(lambda: posted.counts["posted"] == 1)
    assert refusing.bodies == [b"1"] * asked + [b"2"] * asked + [b"3"]
    assert set(refusing.paths) == {"/alerts"}
    assert posted.counts == {"posted": 1, "failed": 2, "not_sent": 0}
    place = f"http://{refusing.place}"
    assert caplog.messages == [
        f"{place} did not take an alert: HTTP {code}; others are counted, not logged",
        f"{place} takes alerts again",
        f"{place}: 2 alerts were not posted (1 were): out-alerts has them",
    ]


def test_nothing_secret_of_a_url_is_logged(server: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    gone = server()
    gone.close()
    for url in (
        f"http://ann:hush1@{gone.place}/hush2?key=hush3",
        "http://no.such.invalid/hush2",
        f"http://{'x' * 64}/",
    ):
        with closing(Webhook(url, "out-alerts")) as posted:
            posted.post([b"1"])
            until(lambda posted=posted: posted.counts["failed"] == 1)  # type: ignore[misc]
    connections = Connections(
        model="m", bootstrap="sqlite:log.db", tracking_uri="sqlite:m.db", alert_webhook="http://ann:hush1@host/hush2"
    )
    assert "did not take an alert: Connection refused" in caplog.text
    assert "hush" not in caplog.text + repr(connections)


@pytest.mark.parametrize(
    "url",
    [
        *("hush", "ftp://hush/", "file:///hush", "http://", "https://:80/hush", "http://host:hush/", "http://[hush/"),
        *("http://host/hush hush", "http://host/h\u00fcsh", "http://host/hush\n", "//host/hush"),
    ],
)
def test_another_url_is_one_line_without_what_it_was(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^alert-webhook: it takes a URL such as https://host/path") as caught:
        Connections(model="m", bootstrap="sqlite:log.db", tracking_uri="sqlite:m.db", alert_webhook=url)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_of_too_many_alerts_the_oldest_are_left_out_and_counted_and_stopping_is_bounded(
    server: Callable[..., Server], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "CLOSED_WITHIN_S", 0.2)
    hanging = server(0)
    posted = Webhook(hanging.url, "out-alerts")
    posted.post([b"first"])
    until(hanging.asked.is_set)
    posted.post([b"%d" % number for number in range(QUEUED)])
    posted.post([b"more"] * 5)
    posted.post([b"more"] * 2)
    assert posted.counts == {"posted": 0, "failed": 0, "not_sent": 7}
    began = time.monotonic()
    posted.close()
    assert time.monotonic() - began < 5
    assert posted.counts == {"posted": 0, "failed": 1, "not_sent": 7 + QUEUED}
    full = f"http://{hanging.place}: more than 1,000 alerts wait to be posted: the oldest are left out, and counted"
    assert sum(full in line for line in caplog.messages) == 1


def test_alerts_to_post_of_which_there_are_none_are_refused_first(tidecast: Tidecast) -> None:
    for command in ("check", "serve"):
        ended = tidecast(command, "--topic", "t", "--model", "m", "--no-alerts", "--alert-webhook", "http://host/hush")
        assert (ended.returncode, ended.stdout) == (78, "")
        assert ended.stderr == "tidecast: alert-webhook: with --no-alerts there are none to post\n"


class Stream:
    """Two series in a topic of one partition, one of which gets stuck, and the service of an untrained model on it."""

    def __init__(self, shared: Shared, folder: Path, guarantee: Guarantee) -> None:
        hyper: dict[str, Any] = {"hidden": 4, "layers": 1, "dropout": 0.0, "location": "last", "segment": 2}
        card = Card(
            name="tiny",
            input=InputSpec(seq_len=4),
            output=OutputSpec(horizon=2),
            arch="segment",
            hyperparameters=hyper,
            trained_until=0,
        )
        self._predictor = load_onnx(exported(shared, card), "tiny.onnx", "cpu")
        self._address = f"sqlite:{folder / 'log.db'}"
        self._config = ServeConfig(
            topic="pumps", group="pumps", instance="a", guarantee=guarantee, max_batch=64
        ).with_outputs("forecasts", shadow=False)
        self._values = np.random.default_rng(0).normal(10, 1, (240, 2))
        self._values[150:200, 1] = 7.0
        self._sent = 0
        with closing(connect(self._address)) as log:
            log.create_topic("pumps", 1)

    def send(self, until: int) -> None:
        """Write the events of the next steps."""
        with closing(connect(self._address)) as log, closing(log.producer()) as producer:
            for step in range(self._sent, until):
                for number, value in enumerate(self._values[step]):
                    event = Event(f"pump-{number}", START + 60_000 * step, (float(value),))
                    producer.send("pumps", 0, event.series.encode(), encode(event))
            producer.flush()
        self._sent = until

    def serve(self, url: str) -> ServiceStats:
        """Serve all events."""
        with closing(connect(self._address)) as log, closing(Webhook(url, "out-alerts")) as posted:
            task = task_for(self._predictor, self._config)
            service = Service(log, self._predictor, task, self._config, webhook=posted)
            return service.run(Idle(lambda: service.stats.taken))

    def alerts(self) -> list[bytes | None]:
        with closing(connect(self._address)) as log:
            topic = self._config.alerts_topic
            return [each.value for part in log.read_partitions(topic, log.bounds(topic)) for each in part]


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_a_service_posts_the_alerts_that_it_commits(
    server: Callable[..., Server],
    shared: Shared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    guarantee: Guarantee,
) -> None:
    """Interrupted between flush and commit, a batch's alerts may be written twice; they are posted once."""
    monkeypatch.setattr(loop, "POLL_S", 0.0)
    taken, stream = server(), Stream(shared, tmp_path, guarantee)
    for until_step in (156, 160, 199, 203):
        stream.send(until_step)
        if until_step in (160, 203):  # while it is found, and while it ends
            first = 2 if guarantee == "exactly-once" else 1  # whose first poll is of one record
            failpoint.arm(f"flushed:{first}:fail")
            with pytest.raises(RuntimeError):
                stream.serve(taken.url)
            failpoint.arm("")
        stream.serve(taken.url)
    written = stream.alerts()
    assert taken.bodies == list(dict.fromkeys(written))
    assert {b'"kind":"stuck","phase":"%s"' % phase in b"".join(taken.bodies) for phase in (b"begin", b"end")} == {True}
    assert (len(written) > len(taken.bodies)) == (guarantee == "at-least-once")


def test_a_server_that_never_answers_holds_up_neither_serving_nor_its_end(
    server: Callable[..., Server], shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "POLL_S", 0.0)
    monkeypatch.setattr(webhook, "TIMEOUT_S", 3600.0)
    monkeypatch.setattr(webhook, "CLOSED_WITHIN_S", 0.1)
    hanging = server(0)
    stream = Stream(shared, tmp_path, "at-least-once")
    stream.send(240)
    stats = stream.serve(hanging.url)
    assert (stats.records, stats.predictions) == (480, 474)
    assert len(hanging.bodies) == 1
    assert stats.summary()["webhook"] == {"posted": 0, "failed": 1, "not_sent": 1}
