"""Dead letters: a record that could not be used, with its bytes, its position and the reason.

On their topic they are the record's own key, value and headers, with headers `tidecast.*` behind. In a file, in which a
person repairs them, they are JSON lines.
"""

import hashlib
from typing import NamedTuple

import msgspec

from pipeline.formats.errors import InvalidEvent
from pipeline.formats.headers import OURS
from pipeline.log import MAX_VALUE_BYTES, Record, Truncated


class Base64(msgspec.Struct, frozen=True):
    """Bytes that are no UTF-8."""

    base64: bytes


Content = str | Base64
"""Bytes as a person can read and change them in a file of JSON lines."""


class DeadLetter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record that was no event: where it was, why it was refused, and what is kept of it. A line of the file."""

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
    """The letter itself: its topic/partition/offset."""
    cut: str = ""
    """The sha256 of the part of the value that is kept, if that is not all of it."""


def content(raw: bytes) -> Content:
    """Bytes as text, or in base64 where they are no UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Base64(raw)


def raw(content: Content) -> bytes:
    """The bytes that a file's content stands for."""
    return content.encode() if isinstance(content, str) else content.base64


def read_dead_letter(record: Record) -> DeadLetter | None:
    """The letter in a record of a dead-letter topic; None for a record that is none."""
    about = dict(record.headers)  # ours come last: the refused record's may be called like them
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
    """What is written of an invalid or late record."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def encode_dead_letter(record: Record, error: InvalidEvent) -> Message:
    """The first 64 KiB of a record's key and of its value, its headers, and after them where it was and why.

    Headers longer than that together are left out, so that a letter always fits where its record did.
    """
    value = record.value or b""
    headers = [(name, content or b"") for name, content in record.headers]  # Kafka has None too, its client refuses it
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
    return Message(record.key and record.key[:MAX_VALUE_BYTES], value[:MAX_VALUE_BYTES], headers)
