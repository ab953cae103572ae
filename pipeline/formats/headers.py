"""The headers of the records that Tidecast produces: of their provenance, and of the trace that they are part of."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec

OURS = "tidecast."
"""The prefix of all our headers."""

MODEL, VERSION, PROVIDER = "tidecast.model", "tidecast.version", "tidecast.provider"
"""Of a forecast or label: the sha256 of the model's file, its label, and the onnxruntime provider that ran it."""
INPUT, OFFSETS = "tidecast.input", "tidecast.offsets"
"""Of a forecast, label, score or alert: TOPIC/PARTITION of its input, and FIRST-LAST, the offsets it is made of."""
PROVENANCE = "tidecast.provenance"
"""The five of a forecast or label as one JSON object, whose fields are named as they are, without the prefix."""
REDRIVEN = "tidecast.redriven"
"""Of a redriven record: its dead letter, as TOPIC/PARTITION/OFFSET."""
TRACE_CONTEXT = {"traceparent": 128, "tracestate": 512}
"""The headers of W3C's trace context, which go on from a record to its forecast, and how many bytes each may have."""


_Fields = dict[str, str]
_unpack = msgspec.json.Decoder(_Fields).decode


def read_headers(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """A record's headers as texts, those that are packed into PROVENANCE each by its own name."""
    found = {name: (content or b"").decode(errors="replace") for name, content in headers}
    if packed := found.pop(PROVENANCE, ""):
        with suppress(msgspec.DecodeError):  # somebody else's
            found |= {OURS + name: content for name, content in _unpack(packed).items()}
    return found


class Provenance:
    """The provenance of a batch of forecasts or labels: what is the same in each is written once."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        """`fields` are those of all of them, by the names of their headers; OFFSETS is not among them."""
        packed = msgspec.json.encode({name.removeprefix(OURS): content for name, content in fields.items()})
        self._packed = packed[:-1].replace(b"%", b"%%") + b',"offsets":"%d-%d"}'

    def of(self, first: int, last: int) -> tuple[str, bytes]:
        """The header of one that is made of these offsets."""
        return PROVENANCE, self._packed % (first, last)


def trace_context(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes]]:
    """A record's trace context, of several the last; what is longer than it may be, or has no parent, is left out."""
    found = {
        name: value for name, value in headers if name in TRACE_CONTEXT and value and len(value) <= TRACE_CONTEXT[name]
    }
    return list(found.items()) if "traceparent" in found else []


class Origin(NamedTuple):
    """The input that an output record came of."""

    topic: str
    partition: int
    first: int
    """The offset of the oldest record in it."""
    last: int
    """That of the record which completed it."""


def parse_origin(source: str, offsets: str) -> Origin | None:
    """From the headers INPUT and OFFSETS; None if they are not a service's."""
    match = re.fullmatch(r"(.+)/(\d+) (\d+)-(\d+)", f"{source} {offsets}")
    return Origin(match[1], *map(int, match.groups()[1:])) if match else None
