"""Invalid input on SQLite and on Kafka: each record becomes a dead letter, and other records are not affected."""

import hashlib
import os
import re
import subprocess
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource
from kafka.record.util import encode_varint
from waiting import PATIENCE_S, stop, until

from pipeline.formats.clock import MAX_AHEAD
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import Decoder, Event, encode
from pipeline.formats.json import MAX_HEADERS
from pipeline.log import EventLog, Record, Undecodable
from pipeline.log.connect import connect
from pipeline.log.kafka.batches import MAX_UNPACKED
from pipeline.log.limits import MAX_VALUE_BYTES
from tidecast.errors import UnknownTopic

Fresh = Callable[[str], str]
Start = Callable[..., subprocess.Popen[str]]
Headers = Sequence[tuple[str, bytes]]

MINUTE = 60_000
NOW = int(time.time() * 1000)
SEQ_LEN = 12
SERIES, PARTITIONS = ("s0", "s1", "s2", "s3"), 2
GOOD = b'{"series":"s0","value":1}'
NOWHERE = "127.0.0.1:1"


class Latin(str):
    """A header key that is sent as Latin-1; the protocol requires UTF-8."""

    def encode(self, *_: object) -> bytes:
        """The bytes that the client sends."""
        return super().encode("latin-1")


@dataclass(frozen=True)
class Invalid:
    """An invalid record: its number in the list of bad input, a description, and the expected reason."""

    number: int
    what: str
    reason: str
    value: bytes = GOOD
    key: bytes | None = b"s0"
    headers: Headers = (("trace", b"\xff\x00"), ("trace", b""))
    timestamp: int | None = NOW
    """None: the time of writing."""


def valued(number: str) -> bytes:
    return f'{{"series":"s0","value":{number}}}'.encode()


def timed(ts: object) -> bytes:
    return f'{{"series":"s0","value":1,"ts":{ts}}}'.encode()


CASES = (
    Invalid(1, "empty", "malformed_json", b""),
    Invalid(2, "white space", "malformed_json", b" \r\n\t "),
    Invalid(3, "truncated", "malformed_json", GOOD[:-3]),
    Invalid(4, "trailing garbage", "malformed_json", GOOD + b"x"),
    Invalid(5, "two documents", "malformed_json", GOOD + GOOD),
    Invalid(6, "byte order mark", "malformed_json", b"\xef\xbb\xbf" + GOOD),
    Invalid(7, "UTF-16", "malformed_json", GOOD.decode().encode("utf-16")),
    Invalid(7, "UTF-16 without a mark", "malformed_json", GOOD.decode().encode("utf-16-le")),
    Invalid(8, "hexadecimal", "malformed_json", valued("0x1F")),
    Invalid(8, "leading zero", "malformed_json", valued("012")),
    Invalid(9, "control character", "malformed_json", b'{"series":"s0","value":1,"note":"\x01"}'),
    Invalid(10, "NaN", "malformed_json", valued("NaN")),
    Invalid(11, "Infinity", "malformed_json", valued("-Infinity")),
    Invalid(12, "invalid UTF-8", "bad_encoding", b'{"series":"s\xff","value":1}'),
    Invalid(12, "invalid UTF-8 in a field nobody reads", "bad_encoding", b'{"value":1,"note":"\xff"}'),
    Invalid(12, "invalid UTF-8 in the key that names the series", "bad_encoding", b'{"value":1}', key=b"s\xff"),
    Invalid(13, "lone surrogate", "bad_encoding", rb'{"series":"\ud800","value":1}'),
    Invalid(13, "lone surrogate in a field nobody reads", "bad_encoding", rb'{"value":1,"note":"\udc00"}'),
    Invalid(14, "100,000 nested arrays", "too_deep", b"[" * 100_000),
    Invalid(14, "nested arrays in a field nobody reads", "too_deep", b'{"a":' + b"[" * 9_000 + b"]" * 9_000 + b"}"),
    Invalid(15, "5,000 nested objects", "too_deep", b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
    Invalid(16, "array at the top", "schema", b"[1]"),
    Invalid(17, "field missing", "schema", b'{"series":"s0"}'),
    Invalid(18, "null", "schema", valued("null")),
    Invalid(19, "boolean", "schema", valued("true")),
    Invalid(20, "no number in a string", "schema", valued('"unavailable"')),
    Invalid(21, "timestamp of a wrong type", "schema", timed("[1]")),
    Invalid(21, "two values to choose from", "schema", b'{"series":"s0","heat":1,"flow":2}'),
    Invalid(22, "empty key", "schema", b'{"value":1}', key=b""),
    Invalid(22, "empty name", "schema", b'{"series":"","value":1}'),
    Invalid(23, "1e999", "out_of_range", valued("1e999")),
    Invalid(24, "integer of 400 digits", "out_of_range", valued("9" * 400)),
    Invalid(25, "integer of 5,000 digits", "out_of_range", valued("9" * 5_000)),
    Invalid(26, "infinite as float32", "out_of_range", valued("1e39")),
    Invalid(27, "before 2000", "bad_time", timed(946_684_799_999)),
    Invalid(28, "a time in no unit", "bad_time", timed(500_000_000_000)),
    Invalid(29, "more than 5 minutes ahead", "bad_time", timed(NOW + MAX_AHEAD + 1)),
    Invalid(29, "no calendar goes so far", "bad_time", timed("9" * 30)),
    Invalid(30, "older than the whole window", "bad_time", timed(NOW - 1_460 * MINUTE)),
    Invalid(32, "neither key nor series", "bad_key", b'{"value":1}', key=None),
    Invalid(33, "key of 129 bytes", "bad_key", b'{"value":1}', key=b"k" * 129),
    Invalid(33, "key of 100,000 bytes", "bad_key", b'{"value":1}', key=b"k" * 100_000),
    Invalid(34, "NUL", "bad_key", b'{"value":1}', key=b"s\x00"),
    Invalid(34, "control character in the name", "bad_key", rb'{"series":"s\u0007","value":1}', key=None),
    Invalid(35, "the Confluent wire format", "malformed_json", b"\0\0\0\0\x2a" + GOOD),
    Invalid(36, "one byte over 64 KiB", "too_large", GOOD.ljust(MAX_VALUE_BYTES + 1)),
    Invalid(36, "far over 64 KiB", "too_large", bytes(range(256)) * 2_000),
    Invalid(37, "101 headers", "too_large", headers=[("n", b"v")] * (MAX_HEADERS + 1)),
)
KAFKA_ONLY = (
    Invalid(39, "header key not UTF-8", "undecodable_record", headers=[("a", b"1"), (Latin("größe"), b"\xfe")]),
    Invalid(27, "without any time", "bad_time", timestamp=-1),
)


class Sent(NamedTuple):
    """A record to send."""

    partition: int
    key: bytes | None
    value: bytes | None
    timestamp: int | None = NOW
    headers: Headers = ()


def good(event: Event) -> Sent:
    """An event in its series' partition: s0 and s2 lie in 0, the others in 1."""
    return Sent(int(event.series[1:]) % PARTITIONS, event.series.encode(), encode(event))


def bad(case: Invalid) -> Sent:
    """A case's record; odd numbers go to partition 1."""
    return Sent(case.number % PARTITIONS, case.key, case.value, case.timestamp, case.headers)


def steps(first: int, count: int) -> list[Event]:
    """Events of all series, step by step, a day ago, as none may be in the future."""
    begin = NOW - 1_440 * MINUTE
    return [
        Event(series, begin + step * MINUTE, (float(step % 7 + place),))
        for step in range(first, first + count)
        for place, series in enumerate(SERIES)
    ]


class Log:
    """A log with helpers for these tests."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.on_kafka = not address.startswith("sqlite:")
        self.log: EventLog = connect(address)

    def send(self, topic: str, records: Iterable[Sent]) -> list[tuple[int, int]]:
        """Send records to a topic; the partition and offset of each."""
        self.log.create_topic(topic, PARTITIONS)
        ends = {partition: bounds.end for partition, bounds in self.log.bounds(topic).items()}
        places = []
        with closing(self.log.producer()) as producer:
            for partition, key, value, timestamp, headers in records:
                producer.send(topic, partition, key, value, timestamp=timestamp, headers=headers)
                places.append((partition, ends[partition]))
                ends[partition] += 1
            producer.flush()
        return places

    def records(self, topic: str) -> list[Record]:
        """All records of a topic; none if it does not exist."""
        try:
            bounds = self.log.bounds(topic)
        except UnknownTopic:
            return []
        return [
            record
            for partition, (start, end) in bounds.items()
            for records in self.log.read(topic, partition, start, end)
            for record in records
        ]

    def count(self, topic: str) -> int:
        """The number of records on a topic."""
        return len(self.records(topic))

    def outputs(self, topic: str) -> list[tuple[int, bytes | None, bytes | None]]:
        """Partition, key and value of each of a topic's records, in order."""
        return [(record.partition, record.key, record.value) for record in self.records(topic)]


@pytest.fixture
def log(log_address: str) -> Iterator[Log]:
    log = Log(log_address)
    yield log
    log.log.close()


@pytest.fixture
def kafka(kafka_bootstrap: str) -> Iterator[Log]:
    log = Log(kafka_bootstrap)
    yield log
    log.log.close()


def options(log: Log, topic: str, model_file: Path) -> list[object]:
    """`tidecast serve` on a topic, in a group of the same name."""
    serve = ["serve", "--topic", topic, "--output", f"{topic}-out", "--group", topic, "--model", model_file]
    return [*serve, "--bootstrap", log.address, "--json"]


def forecasts_of(events: Sequence[Event]) -> int:
    return len(events) - len(SERIES) * (SEQ_LEN - 1)


def until_forecast(log: Log, topic: str, events: Sequence[Event], service: subprocess.Popen[str]) -> None:
    until(lambda: log.count(f"{topic}-out") >= forecasts_of(events), service)


def failure(service: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code of a service that ends by itself, and the error on its last line."""
    out, err = service.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err, err
    *before, last = err.splitlines()
    assert last.startswith("tidecast: ")
    assert not [line for line in before if line.startswith("tidecast:")]
    assert out == ""
    return service.returncode, last


def test_each_invalid_record_is_one_dead_letter_and_forecasts_are_unaffected(
    log: Log, fresh: Fresh, start_tidecast: Start, model_file: Path
) -> None:
    cases, dirty, clean = CASES + (KAFKA_ONLY if log.on_kafka else ()), fresh("dirty"), fresh("clean")
    events = steps(0, len(cases) + 1)
    between = [[good(event) for event in steps(number, 1)] for number in range(len(cases) + 1)]
    mixed = [record for step, case in zip(between, cases, strict=False) for record in (*step, bad(case))] + between[-1]
    places = log.send(dirty, mixed)[len(SERIES) :: len(SERIES) + 1]
    log.send(clean, map(good, events))
    for topic, letters in ((dirty, len(cases)), (clean, 0)):
        service = start_tidecast(*options(log, topic, model_file))
        until_forecast(log, topic, events, service)
        summary = stop(service)
        assert (summary["forecasts"], summary["dead_letters"]) == (forecasts_of(events), letters)
    assert log.outputs(f"{dirty}-out") == log.outputs(f"{clean}-out")
    written = log.records(f"{dirty}-dead-letters")
    found = {origin(letter): letter for letter in written}
    assert len(written) == len(found) == len(cases)
    for where, case in zip(places, cases, strict=True):
        check_dead_letter(found[where], dirty, case)


def origin(letter: Record) -> tuple[int, int]:
    """Partition and offset of a dead letter's invalid record; the dead letter is in the same partition."""
    headers = dict(letter.headers)
    assert int(headers["tidecast.partition"]) == letter.partition
    return letter.partition, int(headers["tidecast.offset"])


def check_dead_letter(letter: Record, topic: str, case: Invalid) -> None:
    """A dead letter has its record's key, value and headers, its position and the reason."""
    headers = dict(letter.headers)
    assert headers["tidecast.reason"].decode() == case.reason, (case, headers["tidecast.detail"])
    assert headers["tidecast.detail"]
    assert headers["tidecast.topic"].decode() == topic
    assert int(headers["tidecast.timestamp"]) == (letter.timestamp if case.timestamp is None else case.timestamp)
    assert headers["tidecast.sha256"].decode() == hashlib.sha256(case.value).hexdigest()
    assert letter.value == case.value[:MAX_VALUE_BYTES]
    assert letter.key == (case.key and case.key[:MAX_VALUE_BYTES])
    original = [header for header in letter.headers if not header[0].startswith("tidecast.")]
    assert original == [(re.sub("[^ -~]", "?", name), held) for name, held in case.headers]


def test_unusual_records_are_accepted_counted_or_skipped(
    log: Log, fresh: Fresh, start_tidecast: Start, model_file: Path
) -> None:
    """31: late and duplicate; 38: tombstones; 42: negative zero; 43: unknown fields."""
    topic, events = fresh("odd"), steps(0, SEQ_LEN)
    unusual = b'{"unit":["m",{"per":"s"}],"ts":%d,"value":-0.0}' % (events[-1].ts + MINUTE)
    tombstone, late, twice = Sent(1, b"s3", None), good(events[3]), good(events[-1])
    log.send(topic, [*map(good, events), tombstone, late, twice, Sent(1, b"s3", unusual), tombstone])
    service = start_tidecast(*options(log, topic, model_file))
    until(lambda: log.count(f"{topic}-out") == len(SERIES) + 1, service)
    summary = stop(service)
    counted = ("records", "tombstones", "late", "duplicate", "dead_letters")
    assert [summary[name] for name in counted] == [len(events) + 5, 2, 1, 1, 0]


def test_service_stops_at_a_wrong_checksum(
    kafka: Log, kafka_server: tuple[str, Path], fresh: Fresh, start_tidecast: Start, model_file: Path
) -> None:
    """40: the events before it are forecast; then every start fails at the same offset, and names it."""
    topic, before, after = fresh("flipped"), steps(0, SEQ_LEN), steps(SEQ_LEN, 3)
    kafka.send(topic, map(good, before))
    ((_, offset),) = kafka.send(topic, [Sent(0, b"s0", b'{"note":"flip me"}')])
    kafka.send(topic, map(good, after))
    (segment,) = kafka_server[1].glob(f"node0/data/{topic}-0/*.log")
    with segment.open("r+b") as file:
        file.seek(segment.read_bytes().index(b"flip me"))
        file.write(b"g")
    for _ in range(2):
        code, line = failure(start_tidecast(*options(kafka, topic, model_file)))
        assert code == os.EX_UNAVAILABLE
        assert re.search(rf"{topic}.* at offset {offset} failed crc check", line)
        ours = [record for record in kafka.records(f"{topic}-out") if record.partition == 0]
        assert len(ours) == 2, "one for each series of this partition"
        assert not kafka.records(f"{topic}-dead-letters")


@pytest.mark.slow
def test_compression_bombs_take_little_memory(
    kafka: Log, fresh: Fresh, start_tidecast: Start, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """41: a gigabyte in one batch, of which only positions are kept, and in many, each read normally."""
    topic, before, after, zeros = fresh("bombs"), steps(0, SEQ_LEN), steps(SEQ_LEN, 3), bytes(1_000_000)
    kafka.send(topic, map(good, before))
    service = start_tidecast(*options(kafka, topic, model_file))
    until_forecast(kafka, topic, before, service)
    calm = peak_memory(service)
    stop(service)
    with closing(
        KafkaProducer(bootstrap_servers=kafka.address, compression_type="gzip", max_request_size=4 << 20)
    ) as raw:
        places = [(0, raw.send(topic, zeros, b"s0", partition=0).get(60).offset) for _ in range(300)]
        with monkeypatch.context() as patched:
            patched.setattr("kafka.record.default_records.gzip_encode", bomb)
            bomb_position = (0, raw.send(topic, bytes(3 << 20), b"s0", partition=0).get(60).offset)
    kafka.send(topic, map(good, after))
    service = start_tidecast(*options(kafka, topic, model_file))
    until_forecast(kafka, topic, before + after, service)
    assert peak_memory(service) - calm < 4 * MAX_UNPACKED
    stop(service)
    found = {origin(letter): letter for letter in kafka.records(f"{topic}-dead-letters")}
    assert list(found) == [*places, bomb_position]
    last = found.pop(bomb_position)
    assert (dict(last.headers)["tidecast.reason"], last.key, last.value) == (b"undecodable_record", None, b"")
    for where, letter in found.items():
        check_dead_letter(
            letter, topic, Invalid(41, f"zeros at {where}", "too_large", zeros, headers=(), timestamp=None)
        )


def bomb(_: bytes) -> bytes:
    """One record with a value of 1,000 MiB of zeros, compressed by gzip to a thousandth."""
    size, body = 1_000 << 20, bytearray(3)  # no attributes, no deltas of time and offset
    encode_varint(2, body.append)
    body += b"s0"
    encode_varint(size, body.append)
    whole = bytearray()
    encode_varint(len(body) + size + 1, whole.append)
    pack = zlib.compressobj(wbits=31)
    parts = [pack.compress(whole + body), *(pack.compress(bytes(1 << 20)) for _ in range(size >> 20))]
    return b"".join([*parts, pack.compress(b"\0"), pack.flush()])


def peak_memory(process: subprocess.Popen[str]) -> int:
    """A process's peak resident memory, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) << 10


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_of_any_codec_is_read_whole_or_by_position_only(kafka: Log, fresh: Fresh, codec: str) -> None:
    topic, most = fresh("packed"), MAX_UNPACKED >> 20
    with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
        admin.create_topics({topic: {"num_partitions": 1, "configs": {"max.message.bytes": 4 << 20}}})
    limits = {"batch_size": 2 * MAX_UNPACKED, "max_request_size": 2 * MAX_UNPACKED, "linger_ms": 60_000}
    with closing(KafkaProducer(bootstrap_servers=kafka.address, compression_type=codec, **limits)) as producer:
        for megabytes in (most - 1, most + 1, 1):
            for _ in range(megabytes):
                producer.send(topic, bytes(1 << 20), b"k", partition=0)
            producer.flush(60)
    records = kafka.records(topic)
    assert [record.offset for record in records] == list(range(2 * most + 1))
    marked = [isinstance(record.headers, Undecodable) for record in records]
    assert marked == [False] * (most - 1) + [True] * (most + 1) + [False]
    kept = [record.value for record in records]
    assert kept == [b"" if odd else bytes(MAX_VALUE_BYTES + 1) for odd in marked]


def test_log_append_time_is_the_reference_for_event_times(kafka: Log, fresh: Fresh) -> None:
    topic, decoder = fresh("stamped"), Decoder()
    with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
        stamped = {"message.timestamp.type": "LogAppendTime"}
        admin.create_topics({topic: {"num_partitions": PARTITIONS, "configs": stamped}})
    ahead = NOW + 60 * MINUTE
    kafka.send(topic, [Sent(0, b"s0", b'{"value":1}', timestamp=1), Sent(0, b"s0", timed(ahead), timestamp=ahead)])
    timeless, early = kafka.records(topic)
    assert decoder.decode(timeless)[0].ts == timeless.timestamp > NOW - MINUTE
    with pytest.raises(InvalidEvent, match=r"bad_time: .* more than 5 minutes ahead"):
        decoder.decode(early)


@pytest.mark.slow
def test_a_service_does_not_start_while_dead_letters_are_too_large_for_their_topic(
    kafka: Log, fresh: Fresh, start_tidecast: Start, model_file: Path
) -> None:
    """Nothing is committed; once the topic is fixed, a start writes all of it."""
    topic, events = fresh("full"), steps(0, SEQ_LEN + 6)
    letters, half = f"{topic}-dead-letters", len(events) // 2
    records = list(map(good, events))
    places = kafka.send(topic, [*records[:half], Sent(0, b"s0", b"no event" * 1_000), *records[half:]])
    with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
        admin.create_topics({letters: {"num_partitions": PARTITIONS, "configs": {"max.message.bytes": 1_024}}})
        for _ in range(2):
            code, line = failure(start_tidecast(*options(kafka, topic, model_file)))
            assert code == os.EX_CONFIG
            assert f"{letters} takes records of up to 1,024 bytes" in line
            assert not kafka.records(letters)
        wider = ConfigResource("topic", letters, {"max.message.bytes": "2000000"})
        admin.alter_configs([wider])
    service = start_tidecast(*options(kafka, topic, model_file))
    until(lambda: len(set(kafka.outputs(f"{topic}-out"))) == forecasts_of(events) and kafka.count(letters) > 0, service)
    summary = stop(service)
    assert (summary["records"], summary["dead_letters"]) == (len(events) + 1, 1)
    assert len(set(kafka.outputs(f"{topic}-out"))) == forecasts_of(events)
    assert [origin(letter) for letter in kafka.records(letters)] == [places[half]]


@pytest.mark.parametrize(
    ("number", "code", "arguments", "message"),
    [
        (44, os.EX_CONFIG, ["--config", "broken.toml"], "broken.toml: Invalid value"),
        (44, os.EX_CONFIG, ["--group", "a b"], "group: 'a b' names topics"),
        (44, os.EX_CONFIG, ["--output", "in"], "output, late-topic: in, in,"),
        (44, os.EX_CONFIG, ["--model", "none.onnx"], "none.onnx: there is no such file"),
        (44, os.EX_CONFIG, ["--bootstrap", "nowhere"], "bootstrap: 'nowhere' is not the address of a log"),
        (45, os.EX_CONFIG, [], "topic in does not exist"),
        (47, os.EX_TEMPFAIL, ["--bootstrap", NOWHERE], f"Kafka at {NOWHERE} does not answer"),
    ],
)
def test_failed_start_is_reported_in_one_line(
    start_tidecast: Start, model_file: Path, tmp_path: Path, number: int, code: int, arguments: list[str], message: str
) -> None:
    (tmp_path / "broken.toml").write_text("topic =")
    service = start_tidecast("serve", "--topic", "in", "--model", model_file, *arguments)
    ended, line = failure(service)
    assert ended == code
    assert message in line


def test_changed_partition_count_is_rejected(kafka: Log, fresh: Fresh, start_tidecast: Start, model_file: Path) -> None:
    """45 as well."""
    topic, events = fresh("wider"), steps(0, SEQ_LEN)
    kafka.send(topic, map(good, events))
    service = start_tidecast(*options(kafka, topic, model_file))
    until_forecast(kafka, topic, events, service)
    stop(service)
    with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
        admin.create_partitions({topic: PARTITIONS + 1})
    until(lambda: kafka.log.partitions(topic) > PARTITIONS, service)
    code, line = failure(start_tidecast(*options(kafka, topic, model_file)))
    assert code == os.EX_CONFIG
    assert re.search(rf"{topic}.* {PARTITIONS} partitions", line)
