"""A service whose model changes under it, forwards and back: no forecast is lost, and each says whose it is."""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sharing import Shared
from waiting import PATIENCE_S, until
from world import tiny_model

from deploy.evaluation.comparison import WindowRows
from deploy.serving.model_loading import load_onnx
from deploy.serving.predictor import Predictor
from deploy.settings.serve import window_config
from model.artifacts.registry import Registry
from model.card import Card
from pipeline.datasets.history import read_topic, windows
from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.log import EventLog
from pipeline.log.connect import connect
from tidecast.errors import UnknownTopic

Fresh = Callable[[str], str]
Tidecast = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Versions = dict[str, Predictor]

MINUTE, START = 60_000, 1_700_000_040_000
SERIES, PARTITIONS = 6, 2


class Stream:
    """A topic that events are sent to, a step of all series at a time, and the forecasts that come of them."""

    def __init__(self, log: EventLog, topic: str) -> None:
        self.log, self.topic, self.output = log, topic, f"{topic}-forecasts"
        self._steps = itertools.count()
        log.create_topic(topic, PARTITIONS)
        self._producer = log.producer()
        self._made: list[Forecast] = []
        self._read: dict[int, int] = {}
        self._decode = msgspec.json.Decoder(Forecast).decode

    def send(self, steps: int = 1) -> None:
        for step in itertools.islice(self._steps, steps):
            for number in range(SERIES):
                event = Event(f"s{number}", START + step * MINUTE, (float(np.sin(step / 5 + number)),))
                self._producer.send(self.topic, number % PARTITIONS, event.series.encode(), encode(event))
        self._producer.flush()

    def forecasts(self) -> list[Forecast]:
        """All there are so far; each is read once, however often one asks."""
        with suppress(UnknownTopic):
            for partition, bounds in self.log.bounds(self.output).items():
                for records in self.log.read(self.output, partition, self._read.get(partition, 0), bounds.end):
                    self._made += [self._decode(record.value or b"") for record in records]
                self._read[partition] = bounds.end
        return self._made

    def of(self, model: str) -> int:
        """How many forecasts of a model there are so far."""
        return sum(made.model == model for made in self.forecasts())

    def close(self) -> None:
        self._producer.close()


@pytest.fixture
def stream(log_address: str, fresh: Fresh) -> Iterator[Stream]:
    with closing(connect(log_address)) as log, closing(Stream(log, fresh("swap"))) as found:
        yield found


@pytest.fixture(scope="session")
def runs(shared: Shared) -> list[Path]:
    """What two trainings left: an export takes seconds."""
    return [shared.made(f"run-{number}", lambda folder: tiny_model(folder / "model.onnx")) for number in range(2)]


@pytest.fixture
def versions(tracking_uri: str, runs: list[Path]) -> Versions:
    """tiny/1, the champion, and tiny/2."""
    registry, found = Registry(tracking_uri), {}
    for run in runs:
        label = registry.record("tiny", run, params={}, history=[], metrics={}, tags={}).label
        found[label] = load_onnx(run / "model.onnx", label, "cpu")
    return found


@pytest.mark.parametrize("log_address", ["sqlite", pytest.param("kafka", marks=pytest.mark.slow)], indirect=True)
def test_versions_take_over_between_two_batches_and_no_forecast_is_lost(
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
    until(lambda: stream.of("tiny/1") > 0, service, meanwhile=stream.send)
    assert tidecast("promote", "tiny/2", "--tracking-uri", tracking_uri).returncode == 0
    until(lambda: stream.of("tiny/2") > 0, service, meanwhile=stream.send)
    assert tidecast("rollback", "tiny", "--tracking-uri", tracking_uri).stderr == "tiny/1 is the champion again\n"
    before = stream.of("tiny/1")
    until(lambda: stream.of("tiny/1") > before, service, meanwhile=stream.send)
    stream.send(2)
    total = sum(bounds.end for bounds in stream.log.bounds(stream.topic).values())
    until(lambda: len(stream.forecasts()) >= total - SERIES * 11, service)
    service.terminate()
    out, err = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0, err
    assert msgspec.json.decode(out)["swaps"] == 2
    made = stream.forecasts()
    assert len(made) == len({(each.series, each.ts) for each in made}) == total - SERIES * 11, "each once"
    for series in {each.series for each in made}:
        told = [each.model for each in sorted(made, key=lambda each: each.ts) if each.series == series]
        assert [label for label, _ in itertools.groupby(told)] == ["tiny/1", "tiny/2", "tiny/1"]
    whose_they_say(stream, made, versions)
    some_explain_themselves(stream, tidecast, *where)


@pytest.mark.parametrize("log_address", ["sqlite", pytest.param("kafka", marks=pytest.mark.slow)], indirect=True)
def test_a_shadow_answers_beside_the_model_that_serves(
    stream: Stream, log_address: str, start_tidecast: Start, tracking_uri: str, versions: Versions, fresh: Fresh
) -> None:
    registry = Registry(tracking_uri)
    where = ("--bootstrap", log_address, "--tracking-uri", tracking_uri)
    names = ("--topic", stream.topic, "--group", fresh("group"), "--model", "tiny@champion")
    beside = ("--shadow", "tiny@challenger", "--follow", "100ms", "--guarantee", "exactly-once", "--json")
    stream.send(20)
    service = start_tidecast("serve", *names, *where, *beside)
    until(lambda: stream.of("tiny/1") > 0, service, meanwhile=stream.send)
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


def some_explain_themselves(stream: Stream, tidecast: Tidecast, *where: str) -> None:
    """The command makes forecasts of both versions again, to the bit, and refuses what is none."""
    told: set[str] = set()
    for partition, (start, end) in stream.log.bounds(stream.output).items():
        for offset in (start, (start + end) // 2, end - 2):  # a transaction ends with a marker
            ended = tidecast("explain", stream.output, partition, offset, *where, "--json")
            if f"has no record at {offset}" in ended.stderr:
                continue
            assert ended.returncode == 0, ended.stderr
            found = msgspec.json.decode(ended.stdout.splitlines()[-1])
            assert found["same"]
            assert found["tidecast.input"] == f"{stream.topic}/{partition}"
            first, last = map(int, found["tidecast.offsets"].split("-"))
            assert SERIES // PARTITIONS * 11 <= last - first <= SERIES // PARTITIONS * 24 + 2
            assert Path(found["plot"]).is_file()
            told.add(found["model"])
    assert told >= {"tiny/1"}
    ended = tidecast("explain", stream.topic, 0, 0, *where)
    assert (ended.returncode, "it is no forecast of a service's" in ended.stderr) == (78, True)


def whose_they_say(stream: Stream, made: list[Forecast], versions: Versions) -> None:
    """Every forecast is, to the bit, what the version that it names gives for its window."""
    card = next(iter(versions.values())).card
    assert isinstance(card, Card)
    data = windows(read_topic(stream.log, stream.topic), window_config(card.input))
    place = {(data.names[data.series[end]], int(data.ts[end])): end for end in data.ends.tolist()}
    for label, predictor in versions.items():
        mine = [each for each in made if each.model == label]
        ends = np.array([place[each.series, each.ts] for each in mine])

        again = np.concatenate(list(predictor.predict(WindowRows(data, ends))))[:, :, 0]
        assert again.tolist() == [each.forecast for each in mine]
