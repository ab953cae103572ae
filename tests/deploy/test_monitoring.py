"""Prometheus's and Grafana's files in docker/: that they are about what a service exposes, and that each rule works."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml
from waiting import until

from deploy.serving.monitoring.exposition import Exposition
from deploy.serving.monitoring.metrics import METRICS
from deploy.serving.monitoring.stats import ServiceStats
from pipeline.formats.events import Event, encode
from pipeline.log.connect import connect

DOCKER = Path(__file__).resolve().parents[2] / "docker"
PROMETHEUS = DOCKER / "prometheus"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
CASES: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "tidecast.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
START, HOUR = 1_700_002_800_000, 3_600_000


def expressions() -> Iterator[str]:
    """All of PromQL that is there."""
    yield from (rule["expr"] for rule in RULES.values())
    yield from (target["expr"] for panel in PANELS for target in panel["targets"])
    yield from (each["expr"] for each in DASHBOARD["annotations"]["list"])
    yield from (each["definition"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query")


def exposed() -> set[str]:
    """The names that a scrape of a service brings."""
    names = {"up"}
    for each in METRICS:
        suffixes = ("_bucket", "_sum", "_count") if each.kind == "histogram" else ("",)
        names |= {each.name + suffix for suffix in suffixes}
    process = Exposition(lambda: ServiceStats("forecasts")).render().decode()
    return names | set(re.findall(r"^process_\w+", process, re.MULTILINE))


def promtool(*arguments: object) -> None:
    """Run it in the rules' folder; it must find nothing wrong."""
    if not (tool := shutil.which("promtool")):
        pytest.skip("promtool is not installed: it comes with Prometheus")
    done = subprocess.run([tool, *map(str, arguments)], cwd=PROMETHEUS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_that_is_asked_for_is_exposed() -> None:
    asked = {
        name
        for each in expressions()
        for name in re.findall(r"\b(?:tidecast|process)_\w+|\bup\b", re.sub(r'"[^"]*"', "", each))
    }
    assert asked <= exposed()
    used = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in asked}
    left = {each.name for each in METRICS} - used
    assert left == {"tidecast_service_info"}, "what nobody looks at"


def test_every_label_that_is_asked_for_is_there() -> None:
    known = {"job", "instance", "le"} | {label for each in METRICS for label in each.labels}
    for each in expressions():
        grouped = {word for words in re.findall(r"(?:by|on) \(([^)]*)\)", each) for word in words.split(", ") if word}
        matched = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", each))
        assert grouped | matched <= known, each


@pytest.mark.parametrize("alert", sorted(RULES))
def test_a_rule_waits_says_what_to_do_and_is_tested_both_ways(alert: str) -> None:
    rule = RULES[alert]
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert len(re.findall(r"[.?:;](?: |$)", rule["annotations"]["summary"])) >= 2, "what is wrong, and what to do"
    found = [test["exp_alerts"] for case in CASES for test in case["alert_rule_test"] if test["alertname"] == alert]
    assert any(found), "fires when it should"
    assert not all(found), "silent when not"


def test_no_test_is_of_a_rule_that_is_not_there() -> None:
    assert {test["alertname"] for case in CASES for test in case["alert_rule_test"]} == RULES.keys()


def test_promtool_takes_rules_and_configuration() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")
    promtool("check", "config", "--syntax-only", "prometheus.yml")  # the secret is where it runs


@pytest.mark.slow
def test_each_rule_fires_when_it_should_and_is_silent_when_not() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_the_dashboard_s_panels_are_whole() -> None:
    every = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    rows = [panel["title"] for panel in every if panel["type"] == "row"]
    assert rows[:4] == ["Health", "Throughput and lag", "Latency by stage", "Model"]
    taken: set[tuple[int, int]] = set()
    for panel in every:
        x, y, width, height = (panel["gridPos"][name] for name in "xywh")
        cells = {(column, line) for column in range(x, x + width) for line in range(y, y + height)}
        assert panel["title"]
        assert x + width <= 24, panel["title"]
        assert not taken & cells, f"{panel['title']} lies on another"
        taken |= cells
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert all(each["datasource"]["uid"] == "${datasource}" for each in panel["targets"])


def test_grafana_is_given_the_dashboard_and_its_source() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "tidecast.yml").read_text())["providers"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


@pytest.mark.slow
def test_a_real_prometheus_scrapes_a_real_service(
    tmp_path: Path, own_model: Path, start_tidecast: "Callable[..., subprocess.Popen[str]]"
) -> None:
    if not (prometheus := shutil.which("prometheus")):
        pytest.skip("prometheus is not installed")
    address, ours, theirs = f"sqlite:{tmp_path / 'log.db'}", _free(), _free()
    (tmp_path / "token").write_text("s3cret\n")
    with closing(connect(address)) as log, closing(log.producer()) as producer:
        log.create_topic("power", 2)
        for hour in range(40):
            value = encode(Event("pump", START + hour * HOUR, (float(hour % 7),)))
            producer.send("power", 0, b"pump", value, timestamp=START + hour * HOUR)
        producer.flush()
    options = ("--bootstrap", address, "--topic", "power", "--model", own_model)
    service = start_tidecast("serve", *options, "--http", ours, "--token-file", tmp_path / "token")
    settings = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    (job,) = (each for each in settings["scrape_configs"] if each["job_name"] == "tidecast")
    del job["dns_sd_configs"]
    job |= {"static_configs": [{"targets": [ours]}], "authorization": {"credentials_file": str(tmp_path / "token")}}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings))
    arguments = ("--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={theirs}")
    scraper = subprocess.Popen([prometheus, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        until(lambda: _result(theirs, f'up{{job="tidecast", instance="{ours}"}}') == ["1"], service, scraper)
        until(lambda: _result(theirs, "sum(tidecast_records_total)") == ["40"], service, scraper)
        until(lambda: _result(theirs, "sum(max by (partition) (tidecast_lag_records))") == ["0"], service, scraper)
        assert _result(theirs, "sum(tidecast_forecasts_total)") == ["29"]
        for each in expressions():
            if "label_values" not in each:
                query = each.replace("$__rate_interval", "1m").replace("$job", "tidecast").replace("$instance", ".*")
                assert _get(theirs, f"query?query={quote(query)}")["status"] == "success"
        groups = _get(theirs, "rules")["data"]["groups"]
        until(lambda: all(rule["health"] == "ok" for rule in _rules(theirs)), service, scraper)
        assert {rule["name"] for group in groups for rule in group["rules"]} == RULES.keys()
        assert not [rule["name"] for rule in _rules(theirs) if rule["state"] == "firing"]
    finally:
        scraper.kill()
        scraper.communicate()


def _free() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def _get(address: str, what: str) -> Any:
    with urlopen(f"http://{address}/api/v1/{what}", timeout=30) as response:
        return json.loads(response.read())


def _rules(address: str) -> list[dict[str, Any]]:
    return [rule for group in _get(address, "rules")["data"]["groups"] for rule in group["rules"]]


def _result(address: str, query: str) -> list[str]:
    """The values of an instant query; none while there is no answer."""
    try:
        return [each["value"][1] for each in _get(address, f"query?query={quote(query)}")["data"]["result"]]
    except OSError:
        return []
