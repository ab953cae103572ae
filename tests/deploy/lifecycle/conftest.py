"""Registries: without a model, and with one of the tides."""

import shutil
from pathlib import Path

import pytest
from sharing import Shared
from tides import JOB, history

from deploy.training.forecasting import train
from model.artifacts.registry import Registry


@pytest.fixture
def empty(tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)
    return Registry(tracking_uri)


@pytest.fixture
def registry(shared: Shared, empty_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A store with a champion that has learned from 800 hours, trained once a run."""
    monkeypatch.chdir(tmp_path)

    def make(folder: Path) -> None:
        train(history(800), JOB.train, Registry(f"sqlite:///{shutil.copy(empty_registry, folder)}"))

    return Registry(f"sqlite:///{shutil.copy(shared.made('tides', make) / 'mlflow.db', tmp_path)}")
