"""Dead letters: the reasons for which a record is one, and their codecs: its bytes, its position and the reason.

On a dead-letter topic they have the record's own key, value and headers, followed by headers `tidecast.*`. In a file,
for repair by hand, they are JSON lines.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import msgspec

from pipeline.formats.headers import OURS
from pipeline.log import Record
from pipeline.log.limits import COLUMNAR, MAX_COLUMNAR_BYTES, MAX_VALUE_BYTES, Truncated
from tidecast.errors import TidecastError

Reason = Literal[
    "malformed_json",
    "malformed_arrow",
    "bad_encoding",
    "too_deep",
    "schema",
    "out_of_range",
    "bad_time",
    "bad_key",
    "too_large",
    "undecodable_record",
    "series_limit",
    "inference_failed",
    "refused",
    "late",
]
REASONS: frozenset[Reason] = frozenset(get_args(Reason))
"""Every reason: `late` goes to the late topic, all others to the dead-letter topic."""

ADVICE: Mapping[str, str] = {
    "malformed_json": "The value is no JSON: check what writes to the topic, or whether it is cut off.",
    "malformed_arrow": "The value begins as an Arrow stream and is none: check what writes to the topic.",
    "bad_encoding": "The value is not UTF-8: check the producer's encoding, or whether it sends Avro or Protobuf.",
    "too_deep": "The JSON is nested too deep to be an event: check what writes to the topic.",
    "schema": "A series, a time or a value is missing, or is not what it should be: [decode] names the fields.",
    "out_of_range": "A value is infinite as a float32: check the sensor or its unit.",
    "bad_time": "Its time can't be: check the producer's clock and time zone, and the unit of its times.",
    "bad_key": "The key can't be a series' name: name the series in the value, or mend the producer's keys.",
    "too_large": "The record is too large for an event: check what writes to the topic.",
    "undecodable_record": "The record can't be unpacked: check the producer's compression and headers.",
    "series_limit": "There are more series in its partition than --series-limit: raise it, or check the series' names.",
    "inference_failed": "The model has no output for this window: its log says why; `tidecast explain` repeats it.",
    "refused": "The output topic does not take its forecast: raise the topic's max.message.bytes.",
    "late": "It came after its step was taken: check the producer's delay; a replay in order of time uses it.",
}
"""What to do about each, one line."""

MAX_LETTER_BYTES = 3 * MAX_VALUE_BYTES + 4096
"""The most that a dead letter has: key, value and headers of the record, and our own headers."""
MAX_DETAIL = 300
"""The longest detail, in characters; a longer one is truncated."""


def advice(reason: str) -> str | None:
    """What to do about a reason; None if it is not known."""
    return ADVICE.get(reason)


def one_line(text: str) -> str:
    """Text with its control characters escaped."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class InvalidEvent(TidecastError):
    """An invalid record. `reason` is one word for programs, `detail` one line for people."""

    exit_code = os.EX_DATAERR

    def __init__(self, reason: Reason, detail: str) -> None:
        detail = one_line(detail)
        detail = detail if len(detail) <= MAX_DETAIL else f"{detail[:MAX_DETAIL]}..."
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


class Base64(msgspec.Struct, frozen=True):
    """Bytes that are not UTF-8."""

    base64: bytes


Content = str | Base64
"""Bytes, as they can be read and edited in a file of JSON lines."""


class DeadLetter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A dead letter as a line of the file: the record's position, the reason, and what is kept of its bytes."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """The record's own, epoch milliseconds."""
    reason: str
    detail: str
    key: Content | None
    value: Content | None
    headers: list[tuple[str, Content]] = []
    letter: str
    """Topic/partition/offset of the dead letter itself."""
    cut: str = ""
    """If the value is truncated, the sha256 of the part that is kept; else empty."""


def content(raw: bytes) -> Content:
    """Bytes as text, or as base64 if they are not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Base64(raw)


def raw(content: Content) -> bytes:
    """The bytes of a file's content."""
    return content.encode() if isinstance(content, str) else content.base64


def read_dead_letter(record: Record) -> DeadLetter | None:
    """Decode a record of a dead-letter topic; None if it is not a dead letter."""
    about = dict(record.headers)  # ours come last, and so override the invalid record's of the same names
    facts = {name.removeprefix(OURS): (fact or b"").decode(errors="replace") for name, fact in about.items()}
    value = record.value or b""
    digest = hashlib.sha256(value).hexdigest()
    try:
        timestamp = int(facts["timestamp"])
        return DeadLetter(
            topic=facts["topic"],
            partition=int(facts["partition"]),
            offset=int(facts["offset"]),
            timestamp=timestamp if timestamp >= 0 else record.timestamp,
            reason=facts["reason"],
            detail=facts["detail"],
            key=None if record.key is None else content(record.key),
            value=content(value),
            headers=[(name, content(own or b"")) for name, own in record.headers if not name.startswith(OURS)],
            letter=f"{record.topic}/{record.partition}/{record.offset}",
            cut="" if digest == facts["sha256"] else digest,
        )
    except (KeyError, ValueError):
        return None


class Message(NamedTuple):
    """A dead letter, or a late event, as it is produced."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def encode_dead_letter(record: Record, error: InvalidEvent) -> Message:
    """Encode a dead letter: the first 64 KiB of the record's key and value, its headers, its position and the reason.

    A columnar value is kept whole.

    Headers of more than 64 KiB in all are left out, so that a dead letter always fits where its record did.
    """
    value = record.value or b""
    headers = [(name, content or b"") for name, content in record.headers]  # Kafka allows None, its client does not
    size = sum(len(name.encode()) + len(content) for name, content in headers)
    about = {
        "reason": error.reason,
        "detail": error.detail,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "sha256": value.sha256 if isinstance(value, Truncated) else hashlib.sha256(value).hexdigest(),
    }
    headers = headers if size <= MAX_VALUE_BYTES else [(f"{OURS}headers", b"left out")]
    headers += [(f"{OURS}{name}", str(fact).encode()) for name, fact in about.items()]
    kept = MAX_COLUMNAR_BYTES if value.startswith(COLUMNAR) else MAX_VALUE_BYTES
    return Message(record.key and record.key[:MAX_VALUE_BYTES], value[:kept], headers)
