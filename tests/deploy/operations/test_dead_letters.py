"""`tidecast dead-letters`: counted, printed, exported, repaired, redriven."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE_S

from pipeline.formats.dead_letters import InvalidEvent, encode_dead_letter
from pipeline.formats.events import Decoder, Event
from pipeline.formats.texts import TextDecoder
from pipeline.log import EventLog, Record
from pipeline.log.connect import connect
from pipeline.log.limits import MAX_VALUE_BYTES

Fresh = Callable[[str], str]
Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
UntilWritten = Callable[..., list[Record]]
Line = dict[str, Any]

Decode = Callable[[Record], object]

VALUES = Decoder().decode
START = 1_704_067_200_000
HOUR = 3_600_000
Sent = tuple[bytes | None, bytes, Sequence[tuple[str, bytes]]]


def event(hour: int, value: object) -> bytes:
    return json.dumps({"series": "pump", "ts": START + hour * HOUR, "value": value}).encode()


class Input:
    """A topic with two partitions, and dead letters of its records as a service would have written them."""

    def __init__(self, log: EventLog, run: Run, address: str, topic: str) -> None:
        self.log, self.topic, self.letters = log, topic, f"{topic}-dead-letters"
        self._run, self._address = run, address
        for name in (topic, self.letters):
            log.create_topic(name, 2)

    def send_invalid(self, *sent: Sent, partition: int = 0, decode: Decode = VALUES) -> None:
        """Send records, and a dead letter for each."""
        begin = self.log.bounds(self.topic)[partition].end
        with closing(self.log.producer()) as producer:
            for place, (key, value, headers) in enumerate(sent):
                at = START + (begin + place) * HOUR
                producer.send(self.topic, partition, key, value, timestamp=at, headers=headers)
            producer.flush()
            for record in self.records(self.topic, partition)[-len(sent) :]:
                with pytest.raises(InvalidEvent) as raised:
                    decode(record)
                key, value, headers = encode_dead_letter(record, raised.value)
                producer.send(self.letters, partition, key, value, timestamp=record.timestamp, headers=headers)
            producer.flush()

    def records(self, topic: str, partition: int = 0) -> list[Record]:
        bounds = self.log.bounds(topic)[partition]
        return [record for records in self.log.read(topic, partition, *bounds) for record in records]

    def dead_letters(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        ended = self._run("dead-letters", self.letters, "--bootstrap", self._address, *arguments)
        assert ended.returncode == code, ended.stderr
        return ended

    def exported(self, path: Path, *arguments: object) -> list[Line]:
        self.dead_letters("--export", path, *arguments)
        return [json.loads(line) for line in path.read_text().splitlines()]


def save(path: Path, lines: list[Line]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def source(log_address: str, tidecast: Run, fresh: Fresh) -> Iterator[Input]:
    with closing(connect(log_address)) as log:
        yield Input(log, tidecast, log_address, fresh("power"))


def test_summary_by_reason_and_the_newest(source: Input) -> None:
    source.send_invalid((b"pump", b'{"value": "<img src=x onerror=alert(1)>"}', ()), (b"pump", b"{\x1b[31m[red]\n", ()))
    source.send_invalid((b"pump", b'{"value": true}', ()), partition=1)
    ended = source.dead_letters("--last", 2)
    assert not {letter for letter in ended.stdout if not letter.isprintable()} - {"\n"}
    table, newest = ended.stdout.splitlines()[:-2], ended.stdout.splitlines()[-2:]
    (schema,) = [line for line in table if "schema" in line]
    assert " 2 " in schema
    assert "2024-01-01" in schema
    assert newest[0].startswith(f"2024-01-01 00:00:00 {source.topic}/1:0 schema: `value` is true, not a number")
    assert newest[1].startswith(f"2024-01-01 01:00:00 {source.topic}/0:1 malformed_json: ")
    assert newest[1].endswith(r" | {\x1b[31m[red]\n")
    assert "<img src=x onerror=alert(1)>" in source.dead_letters("--reason", "schema").stdout
    assert "malformed_json" not in source.dead_letters("--reason", "schema").stdout
    assert source.dead_letters("--last", 0).stdout.splitlines() == table


def test_counts_as_json(source: Input) -> None:
    assert json.loads(source.dead_letters("--json").stdout) == {
        "topic": source.letters,
        "letters": 0,
        "reasons": {},
    }
    assert source.dead_letters().stdout == f"{source.letters}: no dead letters\n"
    source.send_invalid((b"pump", b"{", ()), (b"pump", b"", ()), (None, b'{"value": 1}', ()))
    counts = json.loads(source.dead_letters("--json").stdout)
    assert (counts["letters"], list(counts["reasons"])) == (3, ["malformed_json", "bad_key"])
    assert counts["reasons"]["malformed_json"].items() >= {"count": 2, "first": START, "last": START + HOUR}.items()
    assert json.loads(source.dead_letters("--json", "--reason", "bad_key").stdout)["letters"] == 1


def test_topic_without_dead_letters_is_an_error(source: Input, tidecast: Run, log_address: str) -> None:
    source.send_invalid((b"pump", b"{", ()))
    ended = tidecast("dead-letters", source.topic, "--bootstrap", log_address)
    assert ended.returncode == 78
    assert f"{source.topic} holds no dead letters" in ended.stderr


def test_exported_file_has_all_fields(source: Input, tmp_path: Path) -> None:
    spoof = [("tidecast.reason", b"spoofed"), ("trace", b"\xff")]
    source.send_invalid((b"pump", '{"value": "ü"}'.encode(), spoof), (b"\xfe", b"\xff{", ()))
    first, second = source.exported(tmp_path / "letters.jsonl")
    assert first == {
        "topic": source.topic,
        "partition": 0,
        "offset": 0,
        "timestamp": START,
        "reason": "schema",
        "detail": "`value` is 'ü', not a number",
        "key": "pump",
        "value": '{"value": "ü"}',
        "headers": [["trace", {"base64": "/w=="}]],
        "letter": f"{source.letters}/0/0",
    }
    assert (second["key"], second["value"]) == ({"base64": "/g=="}, {"base64": base64.b64encode(b"\xff{").decode()})
    on_stdout = source.dead_letters("--export", "-", "--reason", "schema").stdout.splitlines()
    assert [json.loads(line) for line in on_stdout] == [first]
    second_export = source.dead_letters("--export", tmp_path / "letters.jsonl", code=78)
    assert "letters.jsonl: File exists" in second_export.stderr


def test_duplicate_dead_letter_is_exported_once(source: Input, tmp_path: Path) -> None:
    source.send_invalid((b"pump", b"{", ()))
    (letter,) = source.records(source.letters)
    with closing(source.log.producer()) as producer:
        producer.send(source.letters, 0, letter.key, letter.value, timestamp=letter.timestamp, headers=letter.headers)
        producer.flush()
    assert [line["letter"] for line in source.exported(tmp_path / "letters.jsonl")] == [f"{source.letters}/0/0"]


def test_repaired_dead_letter_is_redriven_once(source: Input, tmp_path: Path) -> None:
    source.send_invalid((b"pump", b'{"value": "1 C"}', [("trace", b"\xff")]))
    source.send_invalid((b"valve", b'{"value": "2 C"}', ()), partition=1)
    lines = source.exported(tmp_path / "letters.jsonl")
    for line in lines:
        line["value"] = line["value"].replace('"1 C"', "1").replace('"2 C"', "2")
    file = save(tmp_path / "repaired.jsonl", lines)
    first = source.dead_letters("--redrive", file, "--json")
    assert json.loads(first.stdout) == {"topic": source.letters, "sent": 2, "sent_before": 0, "invalid": 0}
    record = source.records(source.topic)[-1]
    assert (record.key, record.value, record.timestamp) == (b"pump", b'{"value": 1}', START)
    assert list(record.headers) == [("trace", b"\xff"), ("tidecast.redriven", f"{source.letters}/0/0".encode())]
    assert Decoder().decode(record) == (Event("pump", START, (1.0,)),)

    second = source.dead_letters("--redrive", file, "--json")
    assert json.loads(second.stdout) == {"topic": source.letters, "sent": 0, "sent_before": 2, "invalid": 0}
    assert "0 records sent, 2 already sent before" in second.stderr
    assert [len(source.records(source.topic, partition)) for partition in (0, 1)] == [2, 2]
    source.dead_letters("--redrive", file, "--again", "--reason", "schema")
    assert [len(source.records(source.topic, partition)) for partition in (0, 1)] == [3, 3]


def test_line_may_name_another_partition(source: Input, tmp_path: Path) -> None:
    """There too a second redrive finds it, although that partition has fewer records."""
    source.send_invalid(*[(b"pump", b'{"value": "1 C"}', ())] * 3)
    line = source.exported(tmp_path / "letters.jsonl")[-1]
    file = save(tmp_path / "repaired.jsonl", [line | {"partition": 1, "value": '{"value": 1}'}] * 2)
    assert json.loads(source.dead_letters("--redrive", file, "--json").stdout)["sent"] == 1
    assert json.loads(source.dead_letters("--redrive", file, "--json").stdout)["sent"] == 0
    assert [record.value for record in source.records(source.topic, 1)] == [b'{"value": 1}']


def test_nothing_is_sent_while_a_line_is_invalid(source: Input, tmp_path: Path) -> None:
    source.send_invalid((b"pump", b'{"value": "1 C"}', ()), (b"pump", b"{", ()), (b"pump", b'{"value": "3 C"}', ()))
    lines = source.exported(tmp_path / "letters.jsonl")
    lines[0]["value"] = '{"value": 1}'
    file = save(tmp_path / "repaired.jsonl", lines)
    ended = source.dead_letters("--redrive", file, code=65)
    assert f"{file}: line 2: malformed_json: " in ended.stderr
    assert f"{file}: line 3: schema: " in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(f"tidecast: {file}: 2 lines are invalid, so nothing was sent")
    assert len(source.records(source.topic)) == 3

    summary = json.loads(source.dead_letters("--redrive", file, "--skip-invalid", "--json").stdout)
    assert (summary["sent"], summary["invalid"]) == (1, 2)
    lines[1]["value"], lines[2]["value"] = '{"value": 2}', '{"value": 3}'
    summary = json.loads(source.dead_letters("--redrive", save(file, lines), "--json").stdout)
    assert (summary["sent"], summary["sent_before"]) == (2, 1)
    assert [record.value for record in source.records(source.topic)[3:]] == [
        f'{{"value": {n}}}'.encode() for n in (1, 2, 3)
    ]


def test_truncated_value_must_be_replaced(source: Input, tmp_path: Path) -> None:
    whole = b'{"value": 1}' + b" " * MAX_VALUE_BYTES
    source.send_invalid((b"pump", whole, ()))
    (line,) = source.exported(tmp_path / "letters.jsonl")
    assert line["cut"] == hashlib.sha256(whole[:MAX_VALUE_BYTES]).hexdigest()
    ended = source.dead_letters("--redrive", tmp_path / "letters.jsonl", code=65)
    assert "line 1: only the first 65,536 bytes of its value were kept" in ended.stderr
    file = save(tmp_path / "repaired.jsonl", [line | {"value": '{"value": 1}'}])
    source.dead_letters("--redrive", file)
    assert source.records(source.topic)[-1].value == b'{"value": 1}'


def test_invalid_lines_are_named(source: Input, tmp_path: Path) -> None:
    source.send_invalid((b"pump", b'{"value": "1 C"}', ()))
    (line,) = source.exported(tmp_path / "letters.jsonl")
    good = line | {"value": '{"value": 1}'}
    wrong = [
        good | {"letter": "other/0/0"},
        good | {"partition": 2},
        good | {"value": None},
        {"value": "1"},
        good | {"timestamp": -1},
    ]
    file = save(tmp_path / "repaired.jsonl", wrong)
    file.write_bytes(file.read_bytes() + b"\n\xff\n" + b'{"x": ' + b"[" * 100_000 + b"\n")
    ended = source.dead_letters("--redrive", file, code=65)
    reasons = [
        "not a dead letter of",
        "has no partition 2",
        "it has no value",
        "missing required field",
        "before 1970",
        "",
        "recursion",
    ]
    for number, reason in zip((1, 2, 3, 4, 5, 7, 8), reasons, strict=True):
        assert [line for line in ended.stderr.splitlines() if f"line {number}: " in line and reason in line.lower()]
    source.dead_letters("--redrive", save(file, [good | {"topic": "nowhere"}]), code=78)
    assert "none.jsonl: No such file" in source.dead_letters("--redrive", "none.jsonl", code=65).stderr
    both = source.dead_letters("--redrive", file, "--export", "-", code=78)
    assert "give one of --export and --redrive" in both.stderr


def test_lines_are_decoded_with_the_models_features(source: Input, tmp_path: Path) -> None:
    flow = Decoder(("flow",))
    source.send_invalid((b"pump", b'{"values": {"flow": "1 C"}}', ()), decode=flow.decode)
    (line,) = source.exported(tmp_path / "letters.jsonl")
    file = save(tmp_path / "repaired.jsonl", [line | {"value": '{"values": {"flow": 1}}'}])
    refused = source.dead_letters("--redrive", file, code=65)
    assert "line 1: schema: which is the value, of `values.flow`? --features flow" in refused.stderr
    source.dead_letters("--redrive", file, "--features", "flow")
    assert flow.decode(source.records(source.topic)[-1])[0].values == (1.0,)


def test_texts_option_decodes_texts(source: Input, tmp_path: Path) -> None:
    decode = TextDecoder().decode
    source.send_invalid((b"7fe1", b'{"text": 5}', ()), decode=decode)
    (line,) = source.exported(tmp_path / "letters.jsonl")
    source.dead_letters("--redrive", save(tmp_path / "repaired.jsonl", [line | {"value": '{"text": "5"}'}]), "--texts")
    assert decode(source.records(source.topic)[-1])[0].text == "5"


def test_service_forecasts_a_redriven_event(
    log_address: str,
    source: Input,
    start_tidecast: Start,
    until_written: UntilWritten,
    foreign_model: Path,
    tmp_path: Path,
    fresh: Fresh,
) -> None:
    """The last event of a window has an invalid value; repaired, it completes the window."""
    topic, group = fresh("taxi"), fresh("group")
    source.log.create_topic(topic, 1)
    with closing(source.log.producer()) as producer:
        for hour in range(11):
            producer.send(topic, 0, b"pump", event(hour, hour), timestamp=START + hour * HOUR)
        producer.send(topic, 0, b"pump", event(11, "11 C"), timestamp=START + 11 * HOUR)
        producer.flush()
    serve = ("serve", "--topic", topic, "--model", foreign_model, "--group", group, "--bootstrap", log_address)
    service = start_tidecast(*serve)
    until_written(source.log, f"{group}-dead-letters", 1, service)
    source.letters = f"{group}-dead-letters"
    (line,) = source.exported(tmp_path / "letters.jsonl")
    line["value"] = line["value"].replace('"11 C"', "11")
    source.dead_letters("--redrive", save(tmp_path / "repaired.jsonl", [line]))
    (forecast,) = until_written(source.log, f"{topic}-forecasts", 1, service)
    assert json.loads(forecast.value or b"")["ts"] == forecast.timestamp == START + 11 * HOUR
    service.terminate()
    _, err = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0
    assert "13 records, 1 forecasts, 1 dead letters, 0 late" in err
