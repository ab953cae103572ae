"""The compose file: what it tells Tidecast is what Tidecast takes, and what an operator expects of every service."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from deploy.cli.main import app

DOCKER = Path(__file__).resolve().parents[2] / "docker"
TEXT = (DOCKER / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"] in ("tidecast-training", "tidecast-serving")}
ENDS = {"ingest", "train"}
"""These end by themselves."""
SECRETS = {"POSTGRES_PASSWORD", "GRAFANA_PASSWORD", "TIDECAST_TOKEN"}
every = pytest.mark.parametrize("service", sorted(SERVICES))


@pytest.mark.parametrize("service", sorted(OURS))
def test_a_service_s_command_is_one(service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in OURS[service]["environment"].items():
        monkeypatch.setenv(name, value)
    group: Any = typer.main.get_command(app)
    name, *arguments = OURS[service]["command"]
    made = group.commands[name].make_context(name, list(arguments), parent=group.context_class(group))
    topic = "power-forecasts" if name == "tail" else "power"
    where = {"bootstrap": "kafka:9092", "tracking_uri": "http://mlflow:5000", "topic": topic}
    assert {key: made.params[key] for key in where if key in made.params}.items() <= where.items()
    assert made.params["bootstrap"] == where["bootstrap"]


def test_everything_listens_on_the_host_s_loopback_only() -> None:
    published = [port for each in SERVICES.values() for port in each.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@every
def test_a_service_has_no_rights_that_it_does_not_need(service: str) -> None:
    each = SERVICES[service]
    assert (each["read_only"], each["cap_drop"], each.get("cap_add")) == (True, ["ALL"], None)
    assert each["security_opt"] == ["no-new-privileges:true"]
    assert not each.get("privileged")
    assert any(mount.startswith("/tmp:") for mount in each["tmpfs"])


@every
def test_a_service_has_limits_and_its_logs_rotate(service: str) -> None:
    each = SERVICES[service]
    assert set(each["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert {"max-size", "max-file"} <= set(each["logging"]["options"])
    assert each["stop_grace_period"]
    assert all("size=" in mount for mount in each["tmpfs"])


@every
def test_what_runs_on_returns_after_a_reboot_and_what_ends_does_not(service: str) -> None:
    each = SERVICES[service]
    if each.get("profiles") == ["tools"]:
        assert each["restart"] == "no"
    elif service in ENDS:
        assert each["restart"].startswith("on-failure:"), "Docker does not start these again when it starts"
    else:
        assert each["restart"] == "unless-stopped"
        assert "healthcheck" in each or service == "retrain"
    for name, what in each.get("depends_on", {}).items():
        expected = {"service_completed_successfully"} if name in ENDS else {"service_healthy", "service_started"}
        assert what["condition"] in expected


def test_up_again_repeats_no_work() -> None:
    assert "--only-newer" in SERVICES["ingest"]["command"]
    assert "--first-only" in SERVICES["train"]["command"]
    homes = {volume for name in ("train", "retrain") for volume in SERVICES[name]["volumes"]}
    assert homes == {"training:/var/lib/tidecast"}, "one lock for both"


def test_no_probe_starts_a_java_machine() -> None:
    for each in SERVICES.values():
        probe = each.get("healthcheck", {"test": []})
        assert not [word for word in probe["test"] if "kafka-" in word or "java" in word]


def test_nothing_has_a_password_of_its_own() -> None:
    given = dict(re.findall(r"(?<!\$)\$\{(\w+)(.*?)\}", TEXT))
    assert {name for name, rest in given.items() if rest.startswith(":?")} == SECRETS
    lines = (DOCKER / ".env.example").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == {f"{name}=" for name in SECRETS}
    assert {line.split("=")[0][2:] for line in lines if re.match(r"# [A-Z_]+=", line)} == set(given) - SECRETS
    ignored = subprocess.run(["git", "check-ignore", "docker/.env"], cwd=DOCKER.parent, check=False)
    assert ignored.returncode == 0


def test_kafka_keeps_a_limited_amount_and_measurements_of_any_age() -> None:
    settings = SERVICES["kafka"]["environment"]
    assert settings["KAFKA_LOG_RETENTION_MS"] == -1
    default = re.fullmatch(r"\$\{KAFKA_PARTITION_BYTES:-(\d+)\}", settings["KAFKA_LOG_RETENTION_BYTES"])
    assert default
    assert settings["KAFKA_LOG_SEGMENT_BYTES"] * 4 <= int(default[1])


def test_every_file_and_volume_exists() -> None:
    mounts = [volume.rpartition(":ro")[0] or volume for each in SERVICES.values() for volume in each.get("volumes", ())]
    sources = {re.sub(r"\$\{\w+:-(.*?)\}", r"\1", mount).partition(":")[0] for mount in mounts}
    assert {source for source in sources if "/" not in source} == set(COMPOSE["volumes"])
    assert not [source for source in sources if "/" in source and not (DOCKER / source).exists()]


def test_images_of_others_are_of_one_version() -> None:
    images = [each["image"] for each in SERVICES.values() if "build" not in each]
    assert all(re.search(r":v?\d+\.\d+", image) for image in images), images


def test_prometheus_asks_the_services_where_they_answer_with_the_token_that_they_want() -> None:
    settings = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    (job,) = (each for each in settings["scrape_configs"] if each["job_name"] == "tidecast")
    (dns,) = job["dns_sd_configs"]
    command = SERVICES["serve"]["command"]
    port = command[command.index("--http") + 1].rpartition(":")[2]
    assert (dns["names"], dns["port"]) == (["serve"], int(port))
    assert f":{port}/ready" in SERVICES["serve"]["healthcheck"]["test"][-1]
    assert f"> {job['authorization']['credentials_file']};" in SERVICES["prometheus"]["entrypoint"][-2]


@pytest.mark.parametrize("name", ["serving", "training", "mlflow"])
def test_nothing_runs_as_root(name: str) -> None:
    lines = (DOCKER / f"{name}.Dockerfile").read_text().splitlines()
    last = len(lines) - 1 - [line.split(" ")[0] for line in reversed(lines)].index("FROM")
    assert "USER 10001:10001" in lines[last:]
