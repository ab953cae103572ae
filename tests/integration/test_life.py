"""End to end through the command line, on SQLite and on Kafka, with killed processes."""

import json
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from kafka import KafkaAdminClient, TopicPartition
from waiting import stop, until

from deploy.models.loading import load_onnx
from pipeline.datasets.history import read_topic, windows
from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.log import EventLog, Record
from pipeline.log.connect import connect
from pipeline.windows.grid import WindowConfig
from tidecast.errors import UnknownTopic

Fresh = Callable[[str], str]
Tidecast = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Evict = Callable[[str, str], None]
Forecasts = dict[tuple[int, str, int], list[float]]

MINUTE = 60_000
START = 1_700_000_040_000
SEQ_LEN, HORIZON = 12, 4


class Log:
    """A log with helpers for these tests."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.log: EventLog = connect(address)

    def send(self, topic: str, rows: list[tuple[str, int, float]], partitions: int = 1) -> None:
        """Events (series, step, value); series `s3` goes to partition 3 modulo `partitions`."""
        self.log.create_topic(topic, partitions)
        with closing(self.log.producer()) as producer:
            for series, step, value in rows:
                event = Event(series, START + step * MINUTE, (value,))
                producer.send(topic, int(series[1:]) % partitions, series.encode(), encode(event))
            producer.flush()

    def count(self, topic: str) -> int:
        """The number of offsets used on a topic; 0 if it does not exist."""
        try:
            return sum(bounds.end for bounds in self.log.bounds(topic).values())
        except UnknownTopic:
            return 0

    def records(self, topic: str) -> Iterator[Record]:
        """All records of a topic."""
        for partition, (start, end) in self.log.bounds(topic).items():
            for records in self.log.read(topic, partition, start, end):
                yield from records

    def forecasts(self, topic: str) -> list[tuple[int, Forecast]]:
        """All forecasts on a topic, each with its partition."""
        decode = msgspec.json.Decoder(Forecast).decode
        return [(record.partition, decode(record.value or b"")) for record in self.records(topic)]


@pytest.fixture
def log(log_address: str) -> Iterator[Log]:
    log = Log(log_address)
    yield log
    log.log.close()


def waves(series: int, steps: int, first: int = 0) -> list[tuple[str, int, float]]:
    """So many series of so many steps each, one step of all series after another."""
    rng = np.random.default_rng(first)
    return [
        (f"s{number}", step, float(np.sin(step / 5 + number) + rng.normal(0, 0.1)))
        for step in range(first, first + steps)
        for number in range(series)
    ]


def expected(log: Log, topic: str, model_file: Path) -> Forecasts:
    """The forecasts of an offline pass over the whole topic, by identity."""
    predictor = load_onnx(model_file, "tiny.onnx", "cpu")
    history = read_topic(log.log, topic)
    data = windows(history, WindowConfig(seq_len=SEQ_LEN, freq="1m"))
    (values,) = predictor.session.run(None, {"x": data.x(data.ends).astype(np.float32)})
    homes = dict(history.frame.select("series", "partition").unique().iter_rows())
    return {
        (homes[data.names[data.series[end]]], data.names[data.series[end]], int(data.ts[end])): row[:, 0].tolist()
        for end, row in zip(data.ends, values, strict=True)
    }


def given(log: Log, output: str) -> Forecasts:
    """The forecasts on a topic, by identity; duplicates must be identical."""
    found: Forecasts = {}
    for partition, forecast in log.forecasts(output):
        assert isinstance(forecast.forecast, list)
        assert found.setdefault((partition, forecast.series, forecast.ts), forecast.forecast) == forecast.forecast
    return found


def until_count(log: Log, output: str, count: int, service: subprocess.Popen[str]) -> None:
    until(lambda: log.count(output) >= count, service)


def until_all(log: Log, output: str, wanted: Forecasts, service: subprocess.Popen[str]) -> None:
    until_count(log, output, len(wanted), service)
    until(lambda: given(log, output).keys() >= wanted.keys(), service)


@pytest.mark.slow
def test_from_a_file_to_forecasts(
    log: Log, fresh: Fresh, tidecast: Tidecast, start_tidecast: Start, tmp_path: Path, tracking_uri: str
) -> None:
    topic, name, store = fresh("life"), fresh("model"), ("--tracking-uri", tracking_uri)
    rows = [f"{series},{(START + step * MINUTE) // 1000},{value}" for series, step, value in waves(6, 300)]
    (tmp_path / "waves.csv").write_text("unique_id,ds,y\n" + "\n".join(rows))
    on = ("--bootstrap", log.address)
    sent = tidecast("ingest", tmp_path / "waves.csv", "--topic", topic, "--partitions", 3, *on, "--json")
    read = ["6 series by `unique_id`; times from `ds`, epoch seconds; value `y`"]
    counts = {"topic": topic, "partitions": 3, "events": 1800, "series": 6, "notes": read}
    assert json.loads(sent.stdout) == counts
    shape = ("--seq-len", 24, "--horizon", 8, "--epochs", 2, "--arch", "segment")
    trained = tidecast("train", "--topic", topic, "--name", name, *shape, *on, *store, "--json")
    made = json.loads(trained.stdout)
    assert (made["model"], made["freq"]) == (f"{name}/1", "1m")
    options = ("--topic", topic, "--output", f"{topic}-out", "--model", f"{name}@champion", *store)
    service = start_tidecast("serve", *options, *on, "--json")
    until(lambda: log.count(f"{topic}-out") >= 6 * (300 - 23), service)
    summary = stop(service)
    forecasts = log.forecasts(f"{topic}-out")
    assert summary["forecasts"] == len(forecasts) == 6 * (300 - 23)
    assert Counter(forecast.series for _, forecast in forecasts) == {f"s{n}": 277 for n in range(6)}
    assert len({(partition, forecast.series) for partition, forecast in forecasts}) == 6
    one = forecasts[0][1]
    assert (one.start - one.ts, one.step, one.source, one.model) == (MINUTE, MINUTE, "model", f"{name}/1")


def test_invalid_events_become_dead_letters(log: Log, fresh: Fresh, start_tidecast: Start, model_file: Path) -> None:
    topic, group = fresh("dirty"), fresh("group")
    rows = waves(2, 40)
    log.send(topic, rows[:40])
    with closing(log.log.producer()) as producer:
        for value in (b"{", b'{"value": null}', b'{"ts": 5, "value": 1}', b""):
            producer.send(topic, 0, b"s0", value)
        producer.send(topic, 0, None, b'{"value": 1}')
        producer.send(topic, 0, b"s0", None)
        producer.flush()
    log.send(topic, rows[40:])
    options = ("--topic", topic, "--output", f"{topic}-out", "--model", model_file, "--group", group)
    service = start_tidecast("serve", *options, "--bootstrap", log.address, "--json")
    until(lambda: log.count(f"{topic}-out") >= 2 * (40 - SEQ_LEN + 1), service)
    summary = stop(service)
    assert (summary["records"], summary["dead_letters"]) == (86, 5)
    assert given(log, f"{topic}-out") == expected(log, topic, model_file)
    letters = list(log.records(f"{group}-dead-letters"))
    reasons = [dict(letter.headers)["tidecast.reason"].decode() for letter in letters]
    assert reasons == ["malformed_json", "schema", "bad_time", "malformed_json", "bad_key"]
    assert [letter.value for letter in letters][:2] == [b"{", b'{"value": null}']
    assert dict(letters[0].headers)["tidecast.offset"] == b"40"


def forget(log: Log, topic: str, keep: int) -> None:
    """Delete all but the newest `keep` offsets of each partition, as retention does."""
    before = {p: max(bounds.end - keep, 0) for p, bounds in log.log.bounds(topic).items()}
    if not log.address.startswith("sqlite:"):
        with KafkaAdminClient(bootstrap_servers=log.address) as admin:
            admin.delete_records({TopicPartition(topic, partition): offset for partition, offset in before.items()})
        return
    with closing(sqlite3.connect(log.address.removeprefix("sqlite:"))) as database, database:
        home = "(SELECT id FROM partitions WHERE topic = ? AND number = ?)"
        delete = f"DELETE FROM records WHERE offset < ? AND partition_id = {home}"
        database.executemany(delete, [(offset, topic, partition) for partition, offset in before.items()])


@pytest.mark.parametrize(
    ("guarantee", "kills"),
    [("exactly-once", 1), ("at-least-once", 1), ("at-least-once", 10)],
)
@pytest.mark.slow
def test_killed_service_misses_no_forecast(
    log: Log, fresh: Fresh, start_tidecast: Start, model_file: Path, evict: Evict, guarantee: str, kills: int
) -> None:
    """Every full window is forecast as in an uninterrupted run, although old records are deleted meanwhile."""
    topic, group, kept = fresh("kills"), fresh("group"), fresh("kept")
    output, random = f"{topic}-out", np.random.default_rng(7)
    options = ["serve", "--topic", topic, "--output", output, "--model", model_file, "--group", group]
    options += ["--instance", "a", "--bootstrap", log.address, "--guarantee", guarantee, "--json"]
    for number in range(kills):
        rows = waves(40, 100, number * 100)
        log.send(topic, rows, partitions=2)
        log.send(kept, rows, partitions=2)
        enough = log.count(output) + int(random.integers(1, 3000))
        service = start_tidecast(*options)
        until_count(log, output, enough, service)
        service.kill()
        evict(log.address, group)
        if number == kills // 2 - 1:
            service = start_tidecast(*options)
            until_all(log, output, expected(log, kept, model_file), service)
            stop(service)
            forget(log, topic, keep=0)
    everything = expected(log, kept, model_file)
    service = start_tidecast(*options)
    until_all(log, output, everything, service)
    stop(service)
    assert given(log, output) == everything
    assert guarantee == "at-least-once" or len(log.forecasts(output)) == len(everything)


@pytest.mark.slow
def test_two_members_share_partitions_and_hand_them_over(
    kafka_bootstrap: str, fresh: Fresh, start_tidecast: Start, model_file: Path
) -> None:
    log, topic, group = Log(kafka_bootstrap), fresh("shared"), fresh("group")
    output = f"{topic}-out"
    options = ["serve", "--topic", topic, "--output", output, "--model", model_file, "--group", group]
    options += ["--bootstrap", kafka_bootstrap, "--json"]
    log.send(topic, waves(8, 30), partitions=4)
    with closing(log.log):
        one, other = (start_tidecast(*options, "--instance", name) for name in "ab")
        until(lambda: log.count(f"{group}-state") > 0, one)
        until(lambda: owners(log, group) == [2, 2], other)
        log.send(topic, waves(8, 30, 30), partitions=4)
        everything = expected(log, topic, model_file)
        until_all(log, output, everything, one)
        first = stop(one)
        log.send(topic, waves(8, 30, 60), partitions=4)
        everything = expected(log, topic, model_file)
        until_all(log, output, everything, other)
        second = stop(other)
        assert given(log, output) == everything
        assert len(log.forecasts(output)) == len(everything), "a graceful hand-over repeats nothing"
        assert int(str(first["records"])) + int(str(second["records"])) == 8 * 90


def owners(log: Log, group: str) -> list[int]:
    """The number of partitions of each member of a Kafka group."""
    with KafkaAdminClient(bootstrap_servers=log.address) as admin:
        members = admin.describe_groups([group])[group]["members"]
    assigned = [consumer["member_assignment"] for consumer in members if consumer["member_assignment"]]
    return [sum(len(topic["partitions"]) for topic in found["assigned_partitions"]) for found in assigned]


def test_errors_splits_and_baselines_need_neither_torch_nor_polars(run_serving_python: Callable[..., str]) -> None:
    program = """
import numpy as np
from model.evaluation import baselines, metrics, splits
from model import seasons, windows

wave = np.tile([1.0, 3.0], 30)
ends = np.arange(30, 55)
naive = baselines.seasonal_naive(wave, ends, np.zeros_like(ends), 4, seasons.seasonal_lags("12h")["day"])
print(metrics.mse(naive + 1, wave[ends[:, None] + np.arange(1, 5)], 2.0))
"""
    assert float(run_serving_python(program, without=("torch", "polars", "scipy"))) == 0.25


@pytest.mark.parametrize("log_address", ["sqlite", pytest.param("kafka", marks=pytest.mark.slow)], indirect=True)
def test_serving_needs_neither_torch_nor_polars(
    log: Log, fresh: Fresh, start_tidecast: Start, model_file: Path
) -> None:
    topic = fresh("slim")
    log.send(topic, waves(1, 20))
    options = ("--topic", topic, "--output", f"{topic}-out", "--model", model_file, "--bootstrap", log.address)
    service = start_tidecast("serve", *options, "--json", without=("torch", "polars", "matplotlib"))
    until(lambda: log.count(f"{topic}-out") == 20 - SEQ_LEN + 1, service)
    stop(service)
