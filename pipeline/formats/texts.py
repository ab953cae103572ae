"""The codec of texts: JSON to TextEvent, or InvalidEvent with the reason for its dead letter.

    {"id": "7fe1", "text": "see you at five"}

`id` defaults to the record's key.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.json import check_key, parse
from pipeline.formats.series import check_series
from pipeline.log import Record


class TextEvent(NamedTuple):
    """One text to label; `key` is its record's key, or its id if that has none."""

    id: str | int
    text: str
    key: bytes


class _Wire(msgspec.Struct, gc=False):
    text: str
    id: str | int | None = None


@dataclass(slots=True)
class TextDecoder:
    """Decodes records into texts."""

    _json: msgspec.json.Decoder[_Wire] = field(default_factory=lambda: msgspec.json.Decoder(_Wire))

    def decode(self, record: Record) -> tuple[TextEvent]:
        """Decode a record's one text. Raises InvalidEvent. Callers skip tombstones (value None)."""
        wire = parse(self._json, record)
        check_key(record.key or b"")
        if wire.id is None and record.key is None:
            raise InvalidEvent("bad_key", "neither an id in the body nor a key")
        try:
            name = (record.key or b"").decode() if wire.id is None else wire.id
        except UnicodeDecodeError as error:
            raise InvalidEvent("bad_encoding", f"key: {error}") from None
        checked = check_series(str(name))
        return (TextEvent(name, wire.text, checked.encode() if record.key is None else record.key),)
