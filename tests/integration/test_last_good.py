"""A service whose model's next version is broken: it goes on, and starts anew, with the last good one; and says so."""

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from streams import Stream
from waiting import ended, until

from model.artifacts.registry import Registry
from model.artifacts.versions import MODEL_FILE
from pipeline.log.connect import connect

Fresh = Callable[[str], str]
Tidecast = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

REFUSED = "tiny/2 is rejected: its output is not finite"


def said(service: subprocess.Popen[str], text: str) -> None:
    """Wait until a service has said something; it fails if the service ends first."""
    assert service.stderr
    assert any(text in line for line in service.stderr), text


def stop(service: subprocess.Popen[str]) -> None:
    service.terminate()
    code, _, err = ended(service)
    assert code == 0, err


def register(registry: Registry, model_file: Path, folder: Path, factor: float) -> str:
    """The model with its weights times a factor, as the next version of tiny."""
    run = folder / f"run-{factor}"
    run.mkdir()
    model = onnx.load(model_file)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, run / MODEL_FILE)
    with registry.run("tiny") as training:
        return registry.register("tiny", training, run, tags={}).label


@pytest.mark.slow
def test_a_start_goes_on_with_the_last_good_version(
    kafka_bootstrap: str,
    mlflow_server: tuple[str, Path],
    model_file: Path,
    tidecast: Tidecast,
    start_tidecast: Start,
    fresh: Fresh,
    tmp_path: Path,
) -> None:
    """While it serves, after a restart, and in a second replica that has never served; then the next one is good."""
    uri, _ = mlflow_server
    registry, topic = Registry(uri), fresh("tides")
    options = ("--bootstrap", kafka_bootstrap, "--tracking-uri", uri, "--model", "tiny@champion", "--topic", topic)

    def member(name: str) -> subprocess.Popen[str]:
        """A service with a folder of its own, as on a machine of its own."""
        return start_tidecast("serve", *options, "--home", tmp_path / name, "--follow", "200ms", "--json")

    def promote(factor: float) -> None:
        label = register(registry, model_file, tmp_path, factor)
        assert tidecast("promote", label, "--tracking-uri", uri).returncode == 0

    with closing(connect(kafka_bootstrap)) as log, closing(Stream(log, topic)) as stream:
        register(registry, model_file, tmp_path, 1.0)
        stream.send(20)
        first = member("a")
        until(lambda: stream.count("tiny/1") > 0, first)
        promote(np.nan)
        said(first, f"still serving tiny/1: {REFUSED}")
        stop(first)
        services = member("a"), member("b")
        for service in services:
            said(service, f"warning: {REFUSED}; using tiny/1, the last good one of tiny@champion")
            said(service, "tiny/1 on cpu")
        before = stream.count("tiny/1")
        until(lambda: stream.count("tiny/1") > before, *services, meanwhile=stream.send)
        assert "refused: its output is not finite" in " ".join(tidecast("models", "tiny", *options[2:4]).stdout.split())
        promote(2.0)
        for service in services:
            said(service, "now serving tiny/3")
        until(lambda: stream.count("tiny/3") > 0, *services, meanwhile=stream.send)
        assert {each.model for each in stream.forecasts()} == {"tiny/1", "tiny/3"}
        for service in services:
            stop(service)
