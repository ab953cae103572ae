"""The compose file: what it tells Tidecast is what Tidecast takes."""

from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from deploy.cli.main import app

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
OURS = {
    name: each
    for name, each in COMPOSE["services"].items()
    if each["image"] in ("tidecast-training", "tidecast-serving")
}


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
    published = [port for each in COMPOSE["services"].values() for port in each.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("name", ["serving", "training", "mlflow"])
def test_nothing_runs_as_root(name: str) -> None:
    lines = (DOCKER / f"{name}.Dockerfile").read_text().splitlines()
    last = len(lines) - 1 - [line.split(" ")[0] for line in reversed(lines)].index("FROM")
    assert "USER 10001:10001" in lines[last:]
