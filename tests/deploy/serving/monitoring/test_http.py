"""Health, readiness and metrics over HTTP: who is answered, and what."""

import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from waiting import ended, stop, until

from deploy.serving.monitoring import http
from deploy.serving.monitoring.http import HttpServer
from deploy.serving.monitoring.report import ServiceReport
from deploy.serving.monitoring.stats import ServiceStats
from deploy.serving.monitoring.watchdog import Watchdog
from deploy.web import Access, Listener
from pipeline.formats.events import Event, encode
from pipeline.log.connect import connect

START, HOUR = 1_700_002_800_000, 3_600_000


@pytest.fixture
def report() -> ServiceReport:
    """That of a service which is not there yet."""
    return ServiceReport()


@pytest.fixture
def server(report: ServiceReport) -> Iterator[HttpServer]:
    """On a free port of this machine."""
    with closing(HttpServer(Listener("localhost", 0, Access.of("localhost", "")), report)) as server:
        yield server


@pytest.fixture
def guarded() -> Iterator[HttpServer]:
    """That wants a token, as it could be reached from elsewhere."""
    with closing(
        HttpServer(Listener("127.0.0.1", 0, Access(loopback=False, token="s3cret")), ServiceReport())
    ) as server:
        yield server


def get(url: str, headers: Mapping[str, str] = {}) -> tuple[int, str]:
    """The status and the body."""
    try:
        with urlopen(Request(url, headers=dict(headers)), timeout=30) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def address_of(server: HttpServer) -> tuple[str, int]:
    """Its host and port."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return host, int(port)


def test_before_there_is_a_service_it_is_alive_and_not_ready(server: HttpServer) -> None:
    assert get(f"{server.url}/health") == (200, "alive\n")
    assert get(f"{server.url}/ready") == (503, "its model is not loaded yet\n")
    assert "\ntidecast_ready 0.0\n" in get(f"{server.url}/metrics")[1]


def test_a_service_says_what_it_lacks_until_it_lacks_nothing(server: HttpServer, report: ServiceReport) -> None:
    stats = ServiceStats("forecasts")
    report.attach(stats, lambda: True)
    assert get(f"{server.url}/ready") == (503, "it has not joined its group yet\n")
    stats.missing = "1 of 4 partitions are not restored yet"
    assert get(f"{server.url}/ready") == (503, "1 of 4 partitions are not restored yet\n")
    stats.missing = ""
    assert get(f"{server.url}/ready?x=1") == (200, "ready\n")


def test_a_loop_that_stands_still_is_not_alive(
    server: HttpServer, report: ServiceReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.serving.monitoring.watchdog.TICK_S", 0.01)
    watchdog = Watchdog(0.05)
    report.attach(ServiceStats("forecasts"), lambda: watchdog.alive)
    until(lambda: get(f"{server.url}/health")[0] == 503)
    assert get(f"{server.url}/health")[1] == "its loop stands still, for longer than any call may take\n"
    watchdog._timeout_s = 3600.0
    with watchdog.watch("poll"):
        assert get(f"{server.url}/health") == (200, "alive\n")
    watchdog.close()


def test_metrics_want_the_token_and_probes_do_not(guarded: HttpServer) -> None:
    assert get(f"{guarded.url}/metrics")[0] == 401
    assert get(f"{guarded.url}/metrics", {"Authorization": "Bearer other"})[0] == 401
    status, text = get(f"{guarded.url}/metrics", {"Authorization": "Bearer s3cret"})
    assert (status, "process_cpu_seconds_total" in text) == (200, True)
    assert get(f"{guarded.url}/health")[0] == 200
    assert get(f"{guarded.url}/ready")[0] == 503


def test_a_page_of_another_site_gets_nothing(server: HttpServer) -> None:
    for path in ("/metrics", "/health", "/ready"):
        status, text = get(server.url + path, {"Host": "evil.example.org"})
        assert (status, "tidecast_" in text) == (403, False)


def test_there_is_nothing_else(server: HttpServer) -> None:
    assert get(f"{server.url}/") == (404, "there are /metrics, /ready and /health\n")
    assert get(f"{server.url}/../etc/passwd")[0] == 404
    with pytest.raises(HTTPError, match="501"):
        urlopen(Request(f"{server.url}/metrics", data=b"x", method="POST"))


def test_it_answers_no_more_than_some_at_a_time_and_those_who_stay_silent_go(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "WITHIN_S", 1.0)
    address = address_of(server)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(http.AT_ONCE)]
        silent[0].sendall(b"GET /health HTT")
        with socket.create_connection(address, 30) as further:
            assert further.recv(10) == b"", "closed at once"
        assert silent[0].recv(10) == b"", "closed as its request did not come in time"
        until(lambda: server._server._free._value > 0)
    until(lambda: _answered(server))


def _answered(server: HttpServer) -> bool:
    try:
        return get(f"{server.url}/health") == (200, "alive\n")
    except OSError:
        return False


def test_a_thousand_scrapes_hold(server: HttpServer) -> None:
    with ThreadPoolExecutor(8) as clients:
        statuses = [status for status, _ in clients.map(lambda _: get(f"{server.url}/metrics"), range(1000))]
    assert statuses == [200] * 1000


def test_a_head_without_end_is_not_read_to_its_end(server: HttpServer) -> None:
    sent = 0
    with socket.create_connection(address_of(server), 30) as client, suppress(ConnectionError):
        while sent < 64 << 20:
            sent += client.send(b"X-Filler: " + b"x" * 4096 + b"\r\n")
    assert sent < 64 << 20
    assert _answered(server)


def test_a_service_tells_of_itself(
    tmp_path: Path, own_model: Path, start_tidecast: "Callable[..., subprocess.Popen[str]]", free_address: str
) -> None:
    address = f"sqlite:{tmp_path / 'log.db'}"
    with closing(connect(address)) as log, closing(log.producer()) as producer:
        log.create_topic("power", 2)
        for hour in range(20):
            value = encode(Event("pump", START + hour * HOUR, (float(hour),)))
            producer.send("power", 0, b"pump", value, timestamp=START)
        producer.send("power", 1, b"pump", b"no event", timestamp=START)
        producer.flush()
    options = ["--bootstrap", address, "--topic", "power", "--model", own_model, "--http", free_address, "--json"]
    service = start_tidecast("serve", *options)
    until(lambda: _reachable(free_address), service)
    until(lambda: get(f"http://{free_address}/ready")[0] == 200, service)
    wanted = {"tidecast_records_total 21.0", "tidecast_series 1.0", 'tidecast_lag_records{partition="0"} 0.0'}
    wanted |= {'tidecast_dead_letters_total{reason="malformed_json"} 1.0', "tidecast_partitions 2.0"}
    until(lambda: wanted <= {*get(f"http://{free_address}/metrics")[1].splitlines()}, service)
    second = start_tidecast("serve", *options)
    code, _, err = ended(second)
    assert (code, err) == (
        71,
        f"tidecast: http: {free_address} is in use by another process: choose another port, or end that one\n",
    )
    assert stop(service)["records"] == 21


def _reachable(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


@pytest.fixture
def free_address() -> str:
    """An address that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_host_that_others_reach_wants_a_token(
    command: str, tidecast: "Callable[..., subprocess.CompletedProcess[str]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDECAST_TOKEN", raising=False)
    done = tidecast(command, "--topic", "t", "--model", "m.onnx", "--http", "0.0.0.0:9464")
    assert done.returncode == 78
    assert done.stderr.startswith("tidecast: http: 0.0.0.0 can be reached from other machines, so a token is needed")


def test_it_is_set_as_any_option(
    tidecast: "Callable[..., subprocess.CompletedProcess[str]]", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TIDECAST_HTTP", "9464")
    assert "did you mean :9464?" in tidecast("serve", "--topic", "t", "--model", "m.onnx").stderr
    monkeypatch.delenv("TIDECAST_HTTP")
    (tmp_path / "tidecast.toml").write_text('topic = "t"\nmodel = "m.onnx"\n[serve]\nhttp = "nowhere"\n')
    assert "http: 'nowhere' is not HOST:PORT" in tidecast("serve").stderr
