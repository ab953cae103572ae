"""Text classification end to end: trained, registered, served next to forecasts, killed while serving."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sharing import Shared
from waiting import stop, until

from deploy.models.loading import load_onnx
from deploy.settings.serve import vocabulary
from model.artifacts.registry import Registry
from model.card import ClassifierCard
from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.formats.labels import Label
from pipeline.log import EventLog, Record
from tidecast.errors import UnknownTopic

Fresh = Callable[[str], str]
Tidecast = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

SMS = Path(__file__).resolve().parents[2] / "examples" / "data" / "sms.tsv"
COLUMNS = ("--text-column", "2", "--label-column", "1")
PARTITIONS = 3


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """5,000 texts: the carried messages, and others made of their words."""
    texts = [line.split("\t", 1)[1] for line in SMS.read_text("utf-8").split("\n") if line]
    words, rng = [word for text in texts for word in text.split()], random.Random(0)
    made = [" ".join(rng.choices(words, k=rng.randint(0, 60))) for _ in range(5000 - len(texts))]
    return texts + made


@pytest.fixture
def store(shared: Shared, empty_registry: Path, tidecast: Tidecast) -> str:
    """A registry with a classifier called `spam`, trained through the command line once a run."""

    def train(folder: Path) -> None:
        uri = f"sqlite:///{shutil.copy(empty_registry, folder)}"
        data = ("--task", "classify", "--data", SMS, *COLUMNS)
        small = ("--hidden", 16, "--epochs", 5, "--balance")
        made = tidecast("train", *data, "--name", "spam", *small, "--tracking-uri", uri, "--json")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["model"] == "spam/1"

    return f"sqlite:///{shared.made('spam', train) / 'mlflow.db'}"


def send(log: EventLog, topic: str, texts: list[str], first: int = 0) -> None:
    log.create_topic(topic, PARTITIONS)
    with closing(log.producer()) as producer:
        for number, text in enumerate(texts, first):
            body = json.dumps({"id": f"m{number}", "text": text}).encode()
            producer.send(topic, number % PARTITIONS, None, body)
        producer.flush()


def records(log: EventLog, topic: str) -> Iterator[Record]:
    try:
        bounds = log.bounds(topic)
    except UnknownTopic:
        return
    for partition, (start, end) in bounds.items():
        for batch in log.read(topic, partition, start, end):
            yield from batch


def count(log: EventLog, topic: str) -> int:
    """The number of offsets used on a topic; 0 if it does not exist."""
    try:
        return sum(bounds.end for bounds in log.bounds(topic).values())
    except UnknownTopic:
        return 0


def labels(log: EventLog, topic: str) -> dict[str | int, Label]:
    """The latest label for each id; duplicates must be identical."""
    found: dict[str | int, Label] = {}
    for record in records(log, topic):
        label = msgspec.json.decode(record.value or b"", type=Label)
        assert found.setdefault(label.id, label) == label
        assert record.key == str(label.id).encode()
        assert record.partition == int(str(label.id)[1:]) % PARTITIONS
    return found


def offline(path: Path, texts: list[str]) -> list[tuple[str, float]]:
    """The model file's labels for all texts as one batch."""
    predictor = load_onnx(path, "spam/1", "cpu")
    assert isinstance(predictor.card, ClassifierCard)
    rows = vocabulary(predictor.card.vocabulary).encoder().batch(texts)
    (given,) = predictor.session.run(None, rows._asdict())
    return [(predictor.card.labels[row.argmax()], float(row.max())) for row in given]


@pytest.mark.slow
def test_texts_and_forecasts_are_served_side_by_side(
    log: EventLog,
    log_address: str,
    fresh: Fresh,
    start_tidecast: Start,
    model_file: Path,
    store: str,
    messages: list[str],
    tmp_path: Path,
) -> None:
    texts, power = fresh("texts"), fresh("power")
    send(log, texts, messages)
    log.create_topic(power, 1)
    with closing(log.producer()) as producer:
        for step in range(500):
            event = Event("pump", 1_700_000_040_000 + step * 60_000, (float(step % 24),))
            producer.send(power, 0, b"pump", encode(event))
        producer.flush()
    on = ("--bootstrap", log_address, "--json")
    labelling = start_tidecast("serve", "--topic", texts, "--model", "spam@champion", "--tracking-uri", store, *on)
    forecasting = start_tidecast("serve", "--topic", power, "--model", model_file, *on)
    both = (labelling, forecasting)
    until(lambda: count(log, f"{power}-forecasts") == 500 - 11, *both)
    until(lambda: count(log, f"{texts}-labels") == len(messages), *both)
    summary, forecasts = stop(labelling), stop(forecasting)
    assert (summary["records"], summary["forecasts"], summary["dead_letters"]) == (5000, 5000, 0)
    assert forecasts["forecasts"] == 500 - 11
    assert all(msgspec.json.decode(r.value or b"", type=Forecast) for r in records(log, f"{power}-forecasts"))

    (cached,) = tmp_path.glob(".tidecast/models/*.onnx")
    given, expected = labels(log, f"{texts}-labels"), offline(cached, messages)
    answers = [given[f"m{number}"] for number in range(len(messages))]
    assert [answer.label for answer in answers] == [label for label, _ in expected]
    assert np.allclose([a.probability for a in answers], [p for _, p in expected], rtol=0, atol=1e-6)
    assert {answer.label for answer in answers} == {"ham", "spam"}
    assert {answer.model for answer in answers} == {"spam/1"}


@pytest.mark.slow
def test_killed_service_labels_every_text(
    log: EventLog,
    log_address: str,
    fresh: Fresh,
    start_tidecast: Start,
    store: str,
    messages: list[str],
    evict: Callable[[str, str], None],
) -> None:
    topic, group = fresh("texts"), fresh("group")
    output, rng = f"{topic}-labels", random.Random(1)
    options = ["serve", "--topic", topic, "--model", "spam", "--tracking-uri", store, "--group", group]
    options += ["--instance", "a", "--bootstrap", log_address, "--json"]
    for kill in range(2):
        send(log, topic, messages[kill * 1000 : (kill + 1) * 1000], kill * 1000)
        enough = count(log, output) + rng.randint(1, 800)
        service = start_tidecast(*options)
        until(lambda enough=enough: count(log, output) >= enough, service)  # type: ignore[misc]
        service.kill()
        service.wait()
        evict(log_address, group)
    send(log, topic, messages[2000:3000], 2000)
    service = start_tidecast(*options)
    until(lambda: count(log, output) >= 3000 and len(labels(log, output)) == 3000, service)
    stop(service)


def test_invalid_texts_become_dead_letters(
    log: EventLog, log_address: str, fresh: Fresh, start_tidecast: Start, store: str, tmp_path: Path
) -> None:
    topic, group = fresh("dirty"), fresh("group")
    log.create_topic(topic, 1)
    sent = [(None, b'{"text": "no id"}'), (b"k", b'{"text": 5}'), (b"k", b"{"), (b"k", b'{"text": ""}'), (b"k", None)]
    with closing(log.producer()) as producer:
        for key, value in sent:
            producer.send(topic, 0, key, value)
        producer.flush()
    model = Registry(store).download(Registry(store).resolve("spam"), tmp_path)
    options = ("--topic", topic, "--model", model, "--group", group, "--bootstrap", log_address)
    service = start_tidecast("serve", *options, "--json", without=("torch", "polars", "sklearn"))
    until(lambda: count(log, f"{topic}-labels") == 1, service)
    summary = stop(service)
    assert (summary["records"], summary["forecasts"], summary["dead_letters"]) == (5, 1, 3)
    (answer,) = records(log, f"{topic}-labels")
    assert (answer.key, json.loads(answer.value or b"")["id"]) == (b"k", "k")
    letters = [dict(letter.headers)["tidecast.reason"] for letter in records(log, f"{group}-dead-letters")]
    assert letters == [b"bad_key", b"schema", b"malformed_json"]
