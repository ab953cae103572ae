"""Several workers as one service: started again where that helps, told of together, stopped together."""

import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import workmen
from prometheus_client.parser import text_string_to_metric_families
from waiting import ended, until

from deploy.serving.connections import Connections
from deploy.serving.monitoring.report import ServiceReport
from deploy.serving.monitoring.stats import LATENCY_MS, Histogram, ServiceStats
from deploy.serving.workers import place as places
from deploy.serving.workers.group_report import GroupReport
from deploy.serving.workers.place import Place
from deploy.serving.workers.said import Ended
from deploy.serving.workers.summary import together
from deploy.serving.workers.worker import Work
from deploy.settings.machine import available_cores
from deploy.settings.serve import ServeConfig
from pipeline.formats.events import Event, encode
from pipeline.log.connect import connect

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
START, HOUR = 1_700_002_800_000, 3_600_000
WORK = Work(
    0,
    ServeConfig(topic="power", group="g", instance="a-0"),
    Connections(model="m.onnx", bootstrap="nowhere:9", tracking_uri=""),
)


def restarts(place: Place, count: int) -> list[float]:
    """How long it waits before each of so many restarts of a worker that dies."""
    waits: list[float] = []
    while len(waits) < count:
        if place.worker:
            wait([place.worker.sentinel], 0.05)
            assert place.look() == 0
            if place.served:
                place.kill()
        else:
            waits.append(place._wait_s)
            place._due = 0.0
            place.look()
    return waits


@pytest.mark.parametrize("run", [workmen.killed, workmen.without_a_log])
def test_a_worker_that_never_serves_is_started_again_ever_more_slowly(run: Callable[..., None]) -> None:
    place = Place(run, WORK)
    assert restarts(place, 3) == [1, 2, 4]
    assert place.restarts == 3
    place.kill()


def test_one_that_has_served_is_started_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(workmen.served, WORK)
    assert restarts(place, 2) == [1, 1]
    monkeypatch.setattr(places, "STABLE_S", 0.0)
    assert restarts(place, 1) == [0]
    place.kill()


def test_one_whose_settings_cannot_be_is_not(caplog: pytest.LogCaptureFixture) -> None:
    place = Place(workmen.misconfigured, WORK)
    until(lambda: place.look() == 78)
    assert caplog.messages == ["worker 0 ended with 78, so all are stopped"]


def reported(number: int, records: int, missing: str = "") -> Any:
    """The place of a worker that serves, with so many records."""
    report = ServiceReport("worker")
    stats = ServiceStats("forecasts", {"instance": f"a-{number}"}, missing=missing, records=records)
    stats.dead_letters["schema"] = number
    report.attach(stats, lambda: True)
    answers: Mapping[str, Callable[[], Any]] = {"hanging": report.hanging, "missing": report.missing}
    metrics = report.metrics().decode()

    def ask(asked: str, within_s: float) -> str:
        return metrics if asked == "metrics" else str(answers[asked]())

    return SimpleNamespace(number=number, restarts=number, worker=SimpleNamespace(heard=0.0), ask=ask)


def samples(report: GroupReport) -> dict[tuple[str, str], float]:
    """By the metric's name and its worker."""
    text = report.metrics().decode()
    names = re.findall("^# TYPE (\\S+)", text, re.MULTILINE)
    assert len(names) == len(set(names)), "one header for all samples of a name"
    found = [each for family in text_string_to_metric_families(text) for each in family.samples]
    assert len({(each.name, *sorted(each.labels.items())) for each in found}) == len(found)
    return {(each.name, each.labels.get("worker", "")): each.value for each in found}


def test_metrics_of_all_workers_are_told_by_worker_and_those_of_their_group_once() -> None:
    found = samples(GroupReport([reported(0, 7), reported(1, 5)]))
    assert (found["tidecast_records_total", "0"], found["tidecast_records_total", "1"]) == (7, 5)
    assert found["tidecast_broker_errors_total", ""] == 0
    assert ("tidecast_broker_errors_total", "0") not in found
    assert ("process_cpu_seconds_total", "1") in found
    assert [found["tidecast_worker_restarts_total", number] for number in "01"] == [0, 1]


def test_all_serve_if_each_does() -> None:
    silent: Any = SimpleNamespace(number=1, restarts=0, worker=SimpleNamespace(heard=0.0), ask=lambda *_: None)
    assert GroupReport([reported(0, 7), reported(1, 5)]).missing() == ""
    assert GroupReport([reported(0, 7), reported(1, 5, "no group")]).missing() == "worker 1: no group"
    assert GroupReport([reported(0, 7), silent]).missing() == "worker 1: it is not there yet"
    assert GroupReport([reported(0, 7), silent]).hanging() == "worker 1 does not answer"
    assert samples(GroupReport([reported(0, 7), silent]))["tidecast_worker_up", "1"] == 0
    silent.worker = None
    assert GroupReport([reported(0, 7), silent]).hanging() == "", "it is started again"


def test_a_summary_adds_up() -> None:
    def one(records: int, inside: int, intervals: int, latency_ms: int) -> Ended:
        stats = ServiceStats("forecasts", records=records)
        stats.dead_letters["schema"] = 1
        stats.tally.intervals, stats.tally.inside = intervals, inside
        stats.latency_ms.observe([latency_ms] * records)
        return Ended("out", stats.summary(), stats.latency_ms.counts.tolist(), intervals)

    found = together([one(30, 9, 10, 3), one(10, 10, 30, 30)], 2, 1)
    assert (found["records"], found["dead_letters_by_reason"]) == (40, {"schema": 2})
    assert found["coverage"] == pytest.approx(19 / 40)
    assert found["latency_ms"] == {"p50": 5, "p99": 50}
    assert (found["workers"], found["restarts"], found["output"]) == (2, 1, "out")
    assert together([], 2, 3) == {"workers": 2, "restarts": 3}
    assert len(Histogram(LATENCY_MS).counts) == len(one(1, 1, 1, 1).latency_ms)


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/pod\n", {"pod/cpu.max": "100000 100000"}, 1),
        ("0::/pod\n", {"pod/cpu.max": "max 100000", "cpu.max": "50000 100000"}, 1),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "150000", "cpu/a/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
    ],
)
def test_the_cores_of_a_process_are_the_least_that_its_cgroups_allow(
    tmp_path: Path, own: str, limits: dict[str, str], expected: int | None
) -> None:
    for name, text in limits.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "own").write_text(own)
    found = available_cores(tmp_path / "cgroup", tmp_path / "own")
    assert found == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("workers", ["0", "-1", "two", ""])
def test_workers_are_a_number_or_auto(workers: str, tidecast: Tidecast) -> None:
    done = tidecast("serve", "--topic", "t", "--model", "m.onnx", f"--workers={workers}")
    assert (done.returncode, done.stderr) == (
        78,
        f"tidecast: workers: {workers!r} is neither a number from 1 on nor auto\n",
    )


def test_the_embedded_log_has_one_worker(tidecast: Tidecast) -> None:
    done = tidecast("serve", "--topic", "t", "--model", "m.onnx", "--workers", 2)
    assert done.returncode == 78
    assert "workers: the embedded log gives all partitions to one process" in done.stderr


def get(url: str) -> tuple[int, str]:
    """The status and the body."""
    try:
        with urlopen(url, timeout=30) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def filled(kafka_bootstrap: str, fresh: Callable[[str], str]) -> Iterator[tuple[str, Callable[[int, int], None]]]:
    """A topic with four partitions, and what writes to it: hours from, to of a series in each."""
    topic = fresh("shared")
    with closing(connect(kafka_bootstrap)) as log, closing(log.producer()) as producer:
        log.create_topic(topic, 4)

        def fill(first: int, last: int) -> None:
            for hour in range(first, last):
                for number in range(4):
                    event = Event(f"pump-{number}", START + hour * HOUR, (float(hour),))
                    producer.send(topic, number, event.series.encode(), encode(event), timestamp=event.ts)
            producer.flush()

        yield topic, fill


@pytest.mark.slow
def test_two_workers_are_one_service(
    filled: tuple[str, Callable[[int, int], None]],
    kafka_bootstrap: str,
    own_model: Path,
    start_tidecast: Start,
) -> None:
    topic, fill = filled
    fill(0, 20)
    options = ["--topic", topic, "--model", own_model, "--bootstrap", kafka_bootstrap, "--group", topic]
    options += ["--instance", "a", "--static", "--guarantee", "exactly-once", "--log-format", "json"]
    service = start_tidecast("serve", *options, "--workers", 2, "--http", ":0", "--json")
    assert service.stderr
    said = (json.loads(line) for line in service.stderr)
    url = next(match[0] for each in said if (match := re.search("http://[^/]+", each["message"])))
    until(lambda: get(f"{url}/ready") == (200, "ready\n"), service)
    until(lambda: _sum(url, "tidecast_records_total") == 80, service)
    with closing(connect(kafka_bootstrap)) as log:
        assert sorted(member.name for member in log.members(topic)) == ["a-0", "a-1"]
        os.kill(_pids(service)[0], signal.SIGKILL)
        fill(20, 30)
        until(lambda: _sum(url, "tidecast_worker_restarts_total") == 1, service)
        until(lambda: sum(each.offset for each in log.committed(topic, topic).values()) == 120, service)
        service.terminate()
        code, out, err = ended(service)
        records = [
            record
            for number, bounds in log.bounds(f"{topic}-forecasts").items()
            for batch in log.read(f"{topic}-forecasts", number, *bounds)
            for record in batch
        ]
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["workers"], summary["restarts"]) == (2, 1)
    assert 40 <= summary["records"] < 120, "but for those of the worker that was killed"
    assert {each.get("worker") for each in map(json.loads, err.splitlines())} == {None, 0, 1}
    counts = Counter((record.partition, json.loads(record.value or b"")["ts"]) for record in records)
    assert len(counts) == 4 * (30 - 11)
    assert set(counts.values()) == {1}
    assert not _pids(service)


@pytest.mark.slow
def test_workers_do_not_outlive_their_supervisor(
    filled: tuple[str, Callable[[int, int], None]], kafka_bootstrap: str, own_model: Path, start_tidecast: Start
) -> None:
    topic, fill = filled
    fill(0, 1)
    options = ["--topic", topic, "--model", own_model, "--bootstrap", kafka_bootstrap, "--group", topic]
    service = start_tidecast("serve", *options, "--workers", 2)
    assert service.stderr
    next(line for line in service.stderr if "all serve, after" in line)
    workers = _pids(service)
    assert len(workers) == 2
    service.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    _, err = service.communicate()
    assert err.count("stopped: ") == 2, err
    with closing(connect(kafka_bootstrap)) as log:
        assert not log.members(topic), "they have left their group"


def _pids(service: "subprocess.Popen[str]") -> list[int]:
    """The processes of the workers: the grandchildren, by way of what they are forked from."""
    return [pid for child in _children(service.pid) for pid in _children(child)]


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _sum(url: str, name: str) -> float:
    text = get(f"{url}/metrics")[1]
    families = text_string_to_metric_families(text)
    return sum(each.value for family in families for each in family.samples if each.name == name)
