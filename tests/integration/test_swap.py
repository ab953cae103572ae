"""A service whose model is swapped and rolled back: no forecast is lost, and each names its model."""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sharing import Shared
from streams import PARTITIONS, SERIES, Stream
from untrained import tiny_model
from waiting import PATIENCE_S, until

from deploy.evaluation.comparison import WindowRows
from deploy.models.loading import load_onnx
from deploy.models.predictor import Predictor
from deploy.settings.serve import window_config
from model.artifacts.registry import Registry
from model.card import Card
from pipeline.datasets.history import read_topic, windows
from pipeline.formats.forecasts import Forecast
from pipeline.log.connect import connect

Fresh = Callable[[str], str]
Tidecast = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Versions = dict[str, Predictor]


@pytest.fixture
def stream(log_address: str, fresh: Fresh) -> Iterator[Stream]:
    with closing(connect(log_address)) as log, closing(Stream(log, fresh("swap"))) as stream:
        yield stream


@pytest.fixture(scope="session")
def runs(shared: Shared) -> list[Path]:
    """The folders of two training runs, shared, as an export takes seconds."""
    return [shared.made(f"run-{number}", lambda folder: tiny_model(folder / "model.onnx")) for number in range(2)]


@pytest.fixture
def versions(tracking_uri: str, runs: list[Path]) -> Versions:
    """tiny/1, the champion, and tiny/2."""
    registry, predictors = Registry(tracking_uri), {}
    for run in runs:
        with registry.run("tiny") as training:
            label = registry.register("tiny", training, run, tags={}).label
        predictors[label] = load_onnx(run / "model.onnx", label, "cpu")
    return predictors


@pytest.mark.parametrize("log_address", ["sqlite", pytest.param("kafka", marks=pytest.mark.slow)], indirect=True)
def test_swap_and_rollback_lose_no_forecast(
    stream: Stream,
    log_address: str,
    tidecast: Tidecast,
    start_tidecast: Start,
    tracking_uri: str,
    versions: Versions,
    fresh: Fresh,
) -> None:
    where = ("--bootstrap", log_address, "--tracking-uri", tracking_uri)
    names = ("--topic", stream.topic, "--group", fresh("group"), "--model", "tiny@champion")
    stream.send(20)
    service = start_tidecast("serve", *names, *where, "--follow", "100ms", "--guarantee", "exactly-once", "--json")
    until(lambda: stream.count("tiny/1") > 0, service, meanwhile=stream.send)
    assert tidecast("promote", "tiny/2", "--tracking-uri", tracking_uri).returncode == 0
    until(lambda: stream.count("tiny/2") > 0, service, meanwhile=stream.send)
    assert tidecast("rollback", "tiny", "--tracking-uri", tracking_uri).stderr == "tiny/1 is the champion again\n"
    before = stream.count("tiny/1")
    until(lambda: stream.count("tiny/1") > before, service, meanwhile=stream.send)
    stream.send(2)
    total = sum(bounds.end for bounds in stream.log.bounds(stream.topic).values())
    until(lambda: len(stream.forecasts()) >= total - SERIES * 11, service)
    service.terminate()
    out, err = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0, err
    assert msgspec.json.decode(out)["swaps"] == 2
    forecasts = stream.forecasts()
    assert len(forecasts) == len({(each.series, each.ts) for each in forecasts}) == total - SERIES * 11, "each once"
    for series in {each.series for each in forecasts}:
        labels = [each.model for each in sorted(forecasts, key=lambda each: each.ts) if each.series == series]
        assert [label for label, _ in itertools.groupby(labels)] == ["tiny/1", "tiny/2", "tiny/1"]
    check_models(stream, forecasts, versions)
    check_explain(stream, tidecast, *where)


@pytest.mark.parametrize("log_address", ["sqlite", pytest.param("kafka", marks=pytest.mark.slow)], indirect=True)
def test_shadow_forecasts_beside_the_serving_model(
    stream: Stream, log_address: str, start_tidecast: Start, tracking_uri: str, versions: Versions, fresh: Fresh
) -> None:
    registry = Registry(tracking_uri)
    where = ("--bootstrap", log_address, "--tracking-uri", tracking_uri)
    names = ("--topic", stream.topic, "--group", fresh("group"), "--model", "tiny@champion")
    beside = ("--shadow", "tiny@challenger", "--follow", "100ms", "--guarantee", "exactly-once", "--json")
    stream.send(20)
    service = start_tidecast("serve", *names, *where, *beside)
    until(lambda: stream.count("tiny/1") > 0, service, meanwhile=stream.send)
    assert service.stderr
    assert any("shadow: no model yet: " in line for line in service.stderr), "before there is a challenger"
    registry.set_alias(registry.resolve("tiny/2"), "challenger")
    shadow = Stream(stream.log, stream.topic)
    shadow.output = f"{stream.output}-shadow"
    until(lambda: len(shadow.forecasts()) > 0, service, meanwhile=stream.send)
    service.terminate()
    _, err = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0, err
    assert f"shadow: now predicting with tiny/2, to {shadow.output}" in err
    served = {(each.series, each.ts): each for each in stream.forecasts()}
    assert {each.model for each in served.values()} == {"tiny/1"}
    assert {each.model for each in shadow.forecasts()} == {"tiny/2"}
    for each in shadow.forecasts():
        assert served[each.series, each.ts].forecast != each.forecast
    shadow.close()


def check_explain(stream: Stream, tidecast: Tidecast, *where: str) -> None:
    """`tidecast explain` reproduces forecasts of both versions bit by bit, and rejects other records."""
    models: set[str] = set()
    for partition, (start, end) in stream.log.bounds(stream.output).items():
        for offset in (start, (start + end) // 2, end - 2):  # a transaction ends with a marker
            ended = tidecast("explain", stream.output, partition, offset, *where, "--json")
            if f"has no record at {offset}" in ended.stderr:
                continue
            assert ended.returncode == 0, ended.stderr
            explanation = msgspec.json.decode(ended.stdout.splitlines()[-1])
            assert explanation["same"]
            assert explanation["tidecast.input"] == f"{stream.topic}/{partition}"
            first, last = map(int, explanation["tidecast.offsets"].split("-"))
            assert SERIES // PARTITIONS * 11 <= last - first <= SERIES // PARTITIONS * 24 + 2
            assert Path(explanation["plot"]).is_file()
            models.add(explanation["model"])
    assert models >= {"tiny/1"}
    ended = tidecast("explain", stream.topic, 0, 0, *where)
    assert (ended.returncode, "is not a service's forecast" in ended.stderr) == (78, True)


def check_models(stream: Stream, forecasts: list[Forecast], versions: Versions) -> None:
    """Every forecast is bit-identical to that of its version for its window."""
    card = next(iter(versions.values())).card
    assert isinstance(card, Card)
    data = windows(read_topic(stream.log, stream.topic), window_config(card.input))
    ends_by_key = {(data.names[data.series[end]], int(data.ts[end])): end for end in data.ends.tolist()}
    for label, predictor in versions.items():
        of_version = [each for each in forecasts if each.model == label]
        ends = np.array([ends_by_key[each.series, each.ts] for each in of_version])
        expected = np.concatenate(list(predictor.predict(WindowRows(data, ends))))[:, :, 0]
        assert expected.tolist() == [each.forecast for each in of_version]
