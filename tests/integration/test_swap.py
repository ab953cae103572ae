"""A service whose model changes under it, forwards and back: no forecast is lost, and each says whose it is."""

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from world import tiny_model

from deploy.config import window_config
from deploy.contest import WindowRows
from deploy.messages import Forecast
from deploy.predictor import Predictor, load
from model.registry import Registry
from model.spec import Card
from pipeline.connect import connect
from pipeline.events import Event, encode
from pipeline.history import read_topic, windows
from pipeline.log import EventLog, UnknownTopic

Fresh = Callable[[str], str]
Tidecast = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

MINUTE, START = 60_000, 1_700_000_040_000
SERIES, PARTITIONS = 6, 2


class Stream:
    """A topic that events are sent to, a step of all series at a time, and the forecasts that come of them."""

    def __init__(self, log: EventLog, topic: str) -> None:
        self.log, self.topic, self.output = log, topic, f"{topic}-forecasts"
        self._steps = itertools.count()
        log.create_topic(topic, PARTITIONS)
        self._writer = log.writer()

    def send(self, steps: int) -> None:
        for step in itertools.islice(self._steps, steps):
            for number in range(SERIES):
                event = Event(f"s{number}", START + step * MINUTE, (float(np.sin(step / 5 + number)),))
                self._writer.send(self.topic, number % PARTITIONS, event.series.encode(), encode(event))
        self._writer.flush()

    def forecasts(self) -> list[Forecast]:
        decode = msgspec.json.Decoder(Forecast).decode
        return [decode(value) for value in self.values()]

    def values(self) -> Iterator[bytes]:
        try:
            bounds = self.log.bounds(self.output)
        except UnknownTopic:
            return
        for partition, (start, end) in bounds.items():
            for records in self.log.read(self.output, partition, start, end):
                yield from (record.value or b"" for record in records)

    def until(self, model: str) -> None:
        """Send on until a model's forecasts come."""
        deadline = time.monotonic() + 60
        while not any(made.model == model for made in self.forecasts()):
            assert time.monotonic() < deadline, model
            self.send(1)

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
def stream(log_address: str, fresh: Fresh) -> Iterator[Stream]:
    with closing(connect(log_address)) as log, closing(Stream(log, fresh("swap"))) as found:
        yield found


def test_versions_take_over_between_two_batches_and_no_forecast_is_lost(
    stream: Stream, log_address: str, tidecast: Tidecast, start_tidecast: Start, tmp_path: Path, fresh: Fresh
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    registry, run = Registry(uri), tmp_path / "run"
    run.mkdir()
    models: dict[str, Predictor] = {}
    for seed in (1, 2):
        tiny_model(run / "model.onnx")
        version = registry.record("tiny", run, params={}, history=[], metrics={}, tags={})
        models[version.label] = load((run / "model.onnx").rename(tmp_path / f"{seed}.onnx"), version.label, "cpu")
    where = ("--bootstrap", log_address, "--tracking-uri", uri)
    names = ("--topic", stream.topic, "--group", fresh("group"), "--model", "tiny@champion")
    stream.send(20)
    service = start_tidecast("serve", *names, *where, "--follow", "100ms", "--guarantee", "exactly-once", "--json")
    stream.until("tiny/1")
    assert tidecast("promote", "tiny/2", "--tracking-uri", uri).returncode == 0
    stream.until("tiny/2")
    assert tidecast("rollback", "tiny", "--tracking-uri", uri).stderr == "tiny/1 is the champion again\n"
    before = len([made for made in stream.forecasts() if made.model == "tiny/1"])
    deadline = time.monotonic() + 60
    while len([made for made in stream.forecasts() if made.model == "tiny/1"]) <= before:
        assert time.monotonic() < deadline
        stream.send(1)
    stream.send(2)
    total = sum(bounds.end for bounds in stream.log.bounds(stream.topic).values())
    while len(stream.forecasts()) < total - SERIES * 11:
        assert time.monotonic() < deadline
    service.terminate()
    out, err = service.communicate(timeout=60)
    assert service.returncode == 0, err
    assert msgspec.json.decode(out)["swaps"] == 2
    made = stream.forecasts()
    assert len(made) == len({(each.series, each.ts) for each in made}) == total - SERIES * 11, "each once"
    for series in {each.series for each in made}:
        told = [each.model for each in sorted(made, key=lambda each: each.ts) if each.series == series]
        assert [label for label, _ in itertools.groupby(told)] == ["tiny/1", "tiny/2", "tiny/1"]
    whose_they_say(stream, made, models)
    some_explain_themselves(stream, tidecast, *where)


def test_a_shadow_answers_beside_the_model_that_serves(
    stream: Stream, log_address: str, start_tidecast: Start, tmp_path: Path, fresh: Fresh
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    registry, run = Registry(uri), tmp_path / "run"
    run.mkdir()
    for _ in range(2):
        tiny_model(run / "model.onnx")
        registry.record("tiny", run, params={}, history=[], metrics={}, tags={})
    where = ("--bootstrap", log_address, "--tracking-uri", uri)
    names = ("--topic", stream.topic, "--group", fresh("group"), "--model", "tiny@champion")
    beside = ("--shadow", "tiny@challenger", "--follow", "100ms", "--guarantee", "exactly-once", "--json")
    stream.send(20)
    service = start_tidecast("serve", *names, *where, *beside)
    stream.until("tiny/1")
    registry.call(registry.resolve("tiny/2"), "challenger")
    shadow = Stream(stream.log, stream.topic)
    shadow.output = f"{stream.output}-shadow"
    deadline = time.monotonic() + 60
    while not (told := shadow.forecasts()):
        assert time.monotonic() < deadline
        stream.send(1)
    service.terminate()
    _, err = service.communicate(timeout=60)
    assert service.returncode == 0, err
    assert "shadow: alert: there is none yet: " in err, "before there was a challenger"
    assert f"tiny/2 is the shadow now, on {shadow.output}" in err
    served = {(each.series, each.ts): each for each in stream.forecasts()}
    assert {each.model for each in served.values()} == {"tiny/1"}
    assert {each.model for each in told} == {"tiny/2"}
    for each in told:
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


def whose_they_say(stream: Stream, made: list[Forecast], models: dict[str, Predictor]) -> None:
    """Every forecast is, to the bit, what the version that it names gives for its window."""
    card = next(iter(models.values())).card
    assert isinstance(card, Card)
    data = windows(read_topic(stream.log, stream.topic), window_config(card.input))
    place = {(data.names[data.series[end]], int(data.ts[end])): end for end in data.ends.tolist()}
    for label, predictor in models.items():
        mine = [each for each in made if each.model == label]
        ends = np.array([place[each.series, each.ts] for each in mine])

        again = np.concatenate(list(predictor.predict(WindowRows(data, ends))))[:, :, 0]
        assert again.tolist() == [each.forecast for each in mine]
