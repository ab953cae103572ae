"""`tidecast models`, as a person or a program reads it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.lifecycle.versions import promote, rollback
from model.artifacts.registry import Registry

Tidecast = Callable[..., subprocess.CompletedProcess[str]]
WHY = "error 0.5 against the champion's 0.9, a gain of +44.4%, with lower bound +31.0%; the best naive forecast has 1.2"


@pytest.fixture
def registry(tracking_uri: str, tmp_path: Path) -> Registry:
    """Two versions of one name, the second with a decision."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.onnx").write_bytes(b"a model")
    found = Registry(tracking_uri)
    scores = {"validation_mse": "0.0123456", "naive_last_mse": "2.3526", "naive_season_mse": "0.0456"}
    for decided in ({}, {"verdict": "promote", "why": WHY, "against": "a-rather-long-model-name/1"}):
        tags = {**scores, **decided, "trained_until": "1704067200000"}
        name = "a-rather-long-model-name"
        with found.run(name) as training:
            found.register(name, training, tmp_path / "run", tags=tags)
    return found


def test_a_piped_table_has_a_line_a_version_and_no_cut_column(tidecast: Tidecast, registry: Registry) -> None:
    done = tidecast("models", "a-rather-long-model-name", "--tracking-uri", registry.tracking_uri)
    assert done.returncode == 0, done.stderr
    heading, second, first, *_ = done.stdout.splitlines()
    assert heading.split() == ["version", "alias", "age", "trained", "until", "error", "naive", "verdict"]
    assert second.endswith(f"promote: {WHY}")
    assert first.split()[:2] == ["a-rather-long-model-name/1", "champion"]
    assert first.endswith("2024-01-01 00:00  0.01235  0.0456"), "the best naive forecast's"
    assert "…" not in done.stdout
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_the_same_as_data(tidecast: Tidecast, registry: Registry) -> None:
    done = tidecast("models", "--tracking-uri", registry.tracking_uri, "--json")
    (newest, oldest) = json.loads(done.stdout.splitlines()[-1])["models"]["a-rather-long-model-name"]
    assert (newest["why"], newest["naive_season_mse"]) == (WHY, "0.0456")
    assert oldest["aliases"] == ["champion"]


@pytest.mark.parametrize("back", [False, True])
def test_a_refused_version_is_made_champion_with_a_warning(
    registry: Registry, back: bool, caplog: pytest.LogCaptureFixture
) -> None:
    name = "a-rather-long-model-name"
    first, second = (registry.resolve(f"{name}/{number}") for number in (1, 2))
    promote(second.label, registry.tracking_uri)
    registry.refuse(first if back else second, "its output is not finite")
    rollback(name, registry.tracking_uri) if back else promote(second.label, registry.tracking_uri)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{name}/{1 if back else 2} was refused, and still is: its output is not finite"]
