"""Upgrade from b0baf3e: its logs, registries and files are read and continued.

tests/fixtures/b0baf3e/README.md tells what it left. Its forecasts are compared to the byte but for the numbers, whose
last bits a processor may change: these must be what onnxruntime gives here for the windows as b0baf3e built them.
"""

import base64
import gzip
import json
import re
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from grades import ungraded
from waiting import stop, until

from model.artifacts.registry import Registry
from pipeline.formats.headers import PROVENANCE, read_headers
from pipeline.log import EventLog, Record
from pipeline.log.connect import connect

Start = Callable[..., "subprocess.Popen[str]"]
Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]

LEFT = Path(__file__).resolve().parents[1] / "fixtures" / "b0baf3e"
CASES: list[dict[str, Any]] = json.loads((LEFT / "cases.json").read_text())
NUMBERS = re.compile(r'"(?:forecast|probability)":(\[[^]]*\]|\{[^}]*\}|[^,}]*)')
MIN_BATCH = 4
"""Below it onnxruntime's kernels sum in another order."""
TAKEN = '{"series":"b","value":"1"}'
"""A number in a text, the second event of its step: b0baf3e refused it, and now it is a duplicate."""
LOG, REGISTRY = ("--bootstrap", "sqlite:log.db"), ("--tracking-uri", "sqlite:///mlflow.db")


class Answer(msgspec.Struct, frozen=True):
    """A record that b0baf3e wrote, bytes as Latin-1, and what it was made of."""

    topic: str
    partition: int
    offset: int
    new: bool
    """Whether it was written after the upgrade."""
    key: str | None
    value: str
    timestamp: int
    headers: list[tuple[str, str]]
    x: str = ""
    step: int = 0
    tokens: list[int] = []

    @property
    def numbers(self) -> str:
        """The forecast, or the label's probability, as JSON; empty where there is none."""
        found = NUMBERS.search(self.value)
        return found[1] if found and (self.x or self.tokens) and '"source":"naive"' not in self.value else ""


ANSWERS = msgspec.json.Decoder(Answer).decode_lines(gzip.decompress((LEFT / "answers.jsonl.gz").read_bytes()))


@pytest.fixture(autouse=True)
def _left(tmp_path: Path) -> None:
    """A copy of the fixtures in the test's folder."""
    (tmp_path / "log.db").write_bytes(gzip.decompress((LEFT / "log.db.gz").read_bytes()))
    for archive in ("models.tar.gz", "artifacts.tar.gz"):
        with tarfile.open(LEFT / archive) as files:
            files.extractall(tmp_path, filter="data")
    dump = gzip.decompress((LEFT / "registry.sql.gz").read_bytes()).decode()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as registry:
        registry.executescript(dump.replace("{folder}", str(tmp_path)))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        yield log


def records(log: EventLog, topic: str) -> list[Record]:
    """All records of a topic, partition by partition."""
    bounds = log.bounds(topic).items()
    return [record for number, held in bounds for batch in log.read(topic, number, *held) for record in batch]


def as_answer(record: Record, like: Answer) -> Answer:
    """A record in the words of the one that it should be like."""
    headers = [(name, content.decode("latin-1")) for name, content in record.headers]
    if PROVENANCE in dict(headers):  # which was five headers
        headers = list(read_headers(record.headers).items())
    said = dict(like.headers).get("tidecast.detail", "")  # for people, and said otherwise since
    headers = [(name, said if name == "tidecast.detail" else content) for name, content in headers]
    return msgspec.structs.replace(
        like,
        **{name: getattr(record, name) for name in ("topic", "partition", "offset", "timestamp")},
        key=None if record.key is None else record.key.decode("latin-1"),
        value=ungraded(record.value or b"").decode("latin-1"),
        headers=headers,
    )


class Model:
    """A model's file in plain onnxruntime, on one thread."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, answer: Answer) -> object:
        """The numbers that an answer must hold."""
        (made,) = self._session.run(None, {name: np.repeat(row, MIN_BATCH, 0) for name, row in self._feed(answer)})
        if answer.tokens:
            return float(made[0].max())
        targets = json.loads(answer.numbers)
        rows = made[0].T.tolist()
        return dict(zip(targets, rows, strict=True)) if isinstance(targets, dict) else rows[0]

    def _feed(self, answer: Answer) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        if answer.tokens:
            yield from (("x", np.array([answer.tokens])), ("lengths", np.array([len(answer.tokens)])))
            return
        for node in self._session.get_inputs():
            x = np.frombuffer(base64.b64decode(answer.x), "<f4")
            yield node.name, x.reshape(1, *node.shape[1:]) if node.name == "x" else np.array([answer.step])


def check(found: Answer, stored: Answer, model: Model) -> None:
    """The same as b0baf3e's to the byte, or what this processor makes of b0baf3e's window, and all else the same."""
    if not stored.numbers:
        assert found == stored
        return
    here = model(stored)
    assert json.loads(found.numbers) == here
    value = stored.value if json.loads(stored.numbers) == here else stored.value.replace(stored.numbers, found.numbers)
    assert found == msgspec.structs.replace(stored, value=value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_service_continues_without_loss_or_duplicates(
    case: dict[str, Any], start_tidecast: Start, log: EventLog, tmp_path: Path
) -> None:
    group, topic = case["name"], case["topic"]
    ends = {number: bounds.end for number, bounds in log.bounds(topic).items()}
    left = log.committed(group, topic)
    assert {str(number): [*commit] for number, commit in left.items()} == case["committed"]
    service = start_tidecast(*(part.format(folder=tmp_path) for part in case["command"]), *LOG)
    until(lambda: {number: commit.offset for number, commit in log.committed(group, topic).items()} == ends, service)
    taken = sum(answer.new and answer.value == TAKEN for answer in ANSWERS if answer.topic == f"{group}-dead-letters")
    expected: dict[str, Any] = case["summary"]
    moved = {"dead_letters": expected["dead_letters"] - taken, "duplicate": expected["duplicate"] + taken}
    assert (expected | moved).items() <= stop(service).items()
    model = Model(tmp_path / case["file"])
    for each in case["topics"]:
        stored = [answer for answer in ANSWERS if answer.topic == each and not (answer.new and answer.value == TAKEN)]
        assert any(answer.new for answer in stored) or each != case["output"]
        written = records(log, each)
        if each == f"{case['topic']}-late":
            assert sum((record.value or b"").decode() == TAKEN for record in written) == taken
            written = [record for record in written if (record.value or b"").decode() != TAKEN]
        for record, answer in zip(written, stored, strict=True):
            place = {"offset": record.offset} if taken else {}
            answer = msgspec.structs.replace(answer, **place)
            check(as_answer(record, answer), answer, model)


@pytest.mark.parametrize(
    ("topic", "options"),
    [
        ("tide-forecasts", ("--model", "tide.onnx")),
        ("power-forecasts", REGISTRY),
        ("plant-out", ("--model", "plant.onnx", "--lateness", "2m")),
    ],
)
def test_forecast_is_explained(topic: str, options: tuple[str, ...], tidecast: Tidecast, tmp_path: Path) -> None:
    case = next(case for case in CASES if case["output"] == topic)
    answer = [answer for answer in ANSWERS if answer.topic == topic and not answer.new and answer.numbers][-1]
    ended = tidecast("explain", topic, answer.partition, answer.offset, *options, *LOG, "--json")
    found = json.loads(ended.stdout.splitlines()[-1])
    assert dict(answer.headers).items() <= found.items()
    same = Model(tmp_path / case["file"])(answer) == json.loads(answer.numbers)
    assert (ended.returncode, found["same"]) == ((0, True) if same else (65, False))
    assert same or topic != "tide-forecasts", "it takes no sums"


def test_exported_dead_letters_are_redriven(tidecast: Tidecast, log: EventLog, tmp_path: Path) -> None:
    exported = [json.loads(line) for line in (LEFT / "dead-letters.jsonl").read_text().splitlines()]
    (tmp_path / "letters.jsonl").write_text((LEFT / "dead-letters.jsonl").read_text())
    redrive = ("dead-letters", "grid-dead-letters", *LOG, "--json", "--redrive")
    assert tidecast(*redrive, "letters.jsonl").returncode == 65
    repaired = [letter | {"value": json.dumps({"series": letter["key"], "value": 1})} for letter in exported]
    (tmp_path / "repaired.jsonl").write_text("\n".join(map(json.dumps, repaired)))
    for sent in (len(exported), 0):
        summary = json.loads(tidecast(*redrive, "repaired.jsonl").stdout)
        assert (summary["sent"], summary["sent_before"]) == (sent, len(exported) - sent)
    marked = [(dict(record.headers).get("tidecast.redriven"), record) for record in records(log, "power")]
    found = [(mark.decode(), record.partition, record.timestamp) for mark, record in marked if mark]
    assert found == [(letter["letter"], letter["partition"], letter["timestamp"]) for letter in exported]


def test_registry_from_the_settings_file_is_read(tidecast: Tidecast, tmp_path: Path) -> None:
    (tmp_path / "tidecast.toml").write_text((LEFT / "tidecast.toml").read_text())
    ended = tidecast("models")  # the file names the store and the model, and wants JSON
    versions = json.loads(ended.stdout.splitlines()[-1])["models"]["tides"]
    assert [(each["model"], each["aliases"]) for each in versions] == [
        ("tides/2", ["challenger"]),
        ("tides/1", ["champion"]),
    ]
    assert versions[0].keys() >= {"validation_mse", "trained_until", "verdict", "why", "against"}


def test_next_version_keeps_the_champions_windows(tidecast: Tidecast, tmp_path: Path) -> None:
    rows = "".join(f"a,{1_800_000_000_000 + minute * 60_000},{minute % 7}\n" for minute in range(60))
    (tmp_path / "rows.csv").write_text(f"series,ts,value\n{rows}")
    learn = ("--name", "tides", "--data", "rows.csv", "--arch", "linear", "--device", "cpu", *REGISTRY, "--json")
    result = json.loads(tidecast("retrain", *learn).stdout.splitlines()[-1])
    assert (result["model"], result["decision"]) == ("tides/1", "undecided")
    ended = tidecast("train", *learn)
    assert "windows as those of tides/1" in ended.stderr
    new, old = (Registry(REGISTRY[1]).resolve(f"tides/{number}") for number in (3, 1))
    assert new.tags["output"] == old.tags["output"]
    windows = {**json.loads(new.tags["input"]), "season": None}
    assert windows == {**json.loads(old.tags["input"]), "offset": None, "season": None}


@pytest.mark.parametrize(
    "command",
    [
        *("ingest", "dead-letters", "train", "backtest", "forecast", "serve", "check", "retrain", "schedule"),
        *("models", "promote", "rollback", "explain", "generate", "demo"),
    ],
)
def test_every_command_reads_the_settings_file(command: str, tidecast: Tidecast) -> None:
    ended = tidecast(command, "--config", LEFT / "tidecast.toml", "--help")
    assert ended.returncode == 0, ended.stderr
