"""JSON values of records, with limits on size and depth, and why a value is refused."""

import re
from math import inf
from typing import Any, TypeVar

import msgspec
import numpy as np

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.log import Record, Undecodable
from pipeline.log.limits import COLUMNAR, MAX_VALUE_BYTES

MAX_HEADERS = 100
MAX_DEPTH = 500
"""Levels of nesting in a value: a limit of our own, because that of Python depends on the depth of the caller."""
STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
LEVELS = np.zeros(256, np.int8)
"""What each byte outside a string adds to the depth."""
LEVELS[list(b"[{")], LEVELS[list(b"]}")] = 1, -1
FORMATS = {
    b"\3\0": "the wire format of AWS Glue's schema registry",
    b"\3\5": "the wire format of AWS Glue's schema registry",
    b"\0": "binary data (first byte 0, as some schema registries write)",
    b"\x1f\x8b": "gzip",
    b"Obj\1": "an Avro file",
    COLUMNAR: "an Arrow stream, which holds events and no texts",
    b"ARROW1": "an Arrow file, which is no Arrow stream (write_ipc_stream in polars, new_stream in pyarrow)",
    b"\xef\xbb\xbf": "a byte order mark first",
}
"""Other formats by their first bytes."""
Wire = TypeVar("Wire")


WITHIN = msgspec.json.Decoder(dict[str, msgspec.Raw])
ANY = msgspec.json.Decoder(float_hook=float)
"""Any JSON, with infinity for a number that is too large for a float."""


def parse_any(record: Record) -> Any:
    """A record's value as JSON of any type; a number that is out of all range is infinity. Raises InvalidEvent."""
    try:
        return parse(ANY, record)
    except InvalidEvent as error:
        if error.reason != "out_of_range":
            raise
    return {name: _any(raw) for name, raw in parse(WITHIN, record).items()}


def _any(raw: msgspec.Raw) -> Any:
    try:
        return ANY.decode(raw)
    except msgspec.ValidationError:
        return inf


def parse(decoder: "msgspec.json.Decoder[Wire]", record: Record) -> Wire:
    """A record's value as JSON of the decoder's type. Raises InvalidEvent."""
    payload, headers = record.value or b"", record.headers
    if isinstance(headers, Undecodable):
        raise InvalidEvent("undecodable_record", headers.why)
    if len(payload) > MAX_DEPTH and _depth(payload[:MAX_VALUE_BYTES]) > MAX_DEPTH:
        raise InvalidEvent("too_deep", f"nested deeper than {MAX_DEPTH} levels")
    if len(payload) > MAX_VALUE_BYTES:
        raise InvalidEvent("too_large", f"the value is longer than {MAX_VALUE_BYTES} bytes")
    if len(headers) > MAX_HEADERS:
        raise InvalidEvent("too_large", f"{len(headers)} headers, and {MAX_HEADERS} are the most")
    try:
        wire = decoder.decode(payload)
        if not payload.isascii():
            payload.decode()  # the decoder does not validate the fields that it skips
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _refusal(payload, error) from None
    return wire


def check_key(key: bytes) -> bytes:
    """A key that names something, as it is. Raises InvalidEvent for one that may have been truncated."""
    if len(key) > MAX_VALUE_BYTES:
        raise InvalidEvent("bad_key", f"the key is longer than {MAX_VALUE_BYTES} bytes")
    return key


def confluent_schema(content: bytes) -> int | None:
    """The schema id of bytes in Confluent's wire format: a magic byte 0, the id as four bytes from 1 on, the data."""
    return int.from_bytes(content[1:5]) or None if content[:1] == b"\0" and len(content) > 5 else None


def _depth(payload: bytes) -> int:
    """The deepest nesting of arrays and objects; an upper bound where that is within the limit anyway."""
    if payload.count(b"[") + payload.count(b"{") <= MAX_DEPTH:
        return MAX_DEPTH
    outside = np.frombuffer(STRING.sub(b"", payload), np.uint8)
    return int(LEVELS[outside].cumsum(dtype=np.int32).max(initial=0))


def _refusal(payload: bytes, error: Exception) -> InvalidEvent:
    """Why a payload was not decoded: faults of JSON come before those of the schema."""
    if (schema := confluent_schema(payload)) is not None:
        what = f"Confluent wire format (magic byte 0, schema id {schema}), not plain JSON"
        return InvalidEvent("malformed_json", f"{what}: write with a JSON converter, without a schema registry")
    if format_ := next((name for magic, name in FORMATS.items() if payload.startswith(magic)), None):
        return InvalidEvent("malformed_json", f"{format_}, not plain JSON")
    if malformed := _malformed(payload):
        if _malformed(SURROGATE.sub(b"", payload)):
            return InvalidEvent("malformed_json", malformed)
        return InvalidEvent("bad_encoding", "half of a surrogate pair")
    try:
        payload.decode()
    except UnicodeDecodeError as undecodable:
        return InvalidEvent("bad_encoding", str(undecodable))
    if "out of range" not in str(error):
        return InvalidEvent("schema", str(error))
    return InvalidEvent("out_of_range", str(error))


def _malformed(payload: bytes) -> str:
    """What makes it invalid JSON; empty if it is valid."""
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        return str(error)
    return ""
