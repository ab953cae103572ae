"""The series of an event: which field names it, or its record's key."""

import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.json import check_key, confluent_schema
from pipeline.formats.names import Fields, Found, fields_of, listed, nested, plain, shown, step
from pipeline.formats.times import NAMES as TIMES

CERTAIN = ("series", "uniqueid", "seriesid", "seriesname")
"""Names that stand for nothing else, as `plain` writes them."""
THINGS = ("sensor", "device", "meter", "machine", "station", "asset", "entity", "item", "node", "deveui")
"""What a series is of: the field is called so, or its id, or its name."""
OTHERS = ("id", "name", "host", "hostname", "source", "key", "tag")
"""Names of a series only where the record has no key: many messages have an id of their own."""
KINDS = frozenset(("metric", "metricname", "measurement", "measurand", "parameter", "quantity", "variable", "signal"))
KINDS |= frozenset(("channel", "property", "attribute", "field", "kind", "type", "unit", "units", "name", "tag"))
KINDS |= frozenset(("sensortype", "datatype", "tags", "labels", "dimensions"))
"""What tells several measurements of one thing apart."""
FROM_KEY = "the key"
MAX_SERIES_BYTES = 128
MAX_CACHED = 65_536
"""Most keys, or names, that are remembered."""

_THINGS = {
    f"{thing}{form}": (rank, at) for rank, thing in enumerate(THINGS) for at, form in enumerate(("id", "", "name"))
}
NAMING = frozenset((*CERTAIN, *_THINGS, "tags", "labels"))
"""Every name of a field by which `find_series` may find one, whatever the fields hold."""


def find_series(fields: Fields) -> Found | None:
    """The field that names the series whatever the record's key is: `series`, `sensorId`, tags; None if none does."""
    given, names = fields
    for short in CERTAIN:
        if short in names:
            return Found(given[names[short]], f"`{names[short]}`")
    called = [(short, name) for short, name in names.items() if short in _THINGS and _may_name(given[name])]
    things = sorted((*_THINGS[short], name) for short, name in called)
    if not things:
        return _metric(given)
    first, _, name = things[0]
    other = next((other for rank, _, other in things if rank != first and given[other] != given[name]), None)
    question = f"is the series `{name}` or `{other}`, or both?" if other else ""
    if other:
        question += f' [decode] series = "{step("$", name)}", or ["{step("$", name)}", "{step("$", other)}"]'
    return Found(given[name], f"`{name}`", question)


def _may_name(value: object) -> bool:
    """Whether a value may be a series' name: text that is not blank, or a whole number."""
    return bool(value.strip()) if isinstance(value, str) else isinstance(value, int) and not isinstance(value, bool)


def find_other_series(fields: Fields) -> Found | None:
    """The field that names the series where the record has no key. Raises InvalidEvent where it may be a part only."""
    given, names = fields
    for short in OTHERS:
        if (name := names.get(short)) is None or not isinstance(given[name], str | int):
            continue
        beside = next((each for each in ("tags", "labels") if isinstance(given.get(each), dict) and given[each]), None)
        if beside and short != "id":
            paths = f'["{step("$", name)}", "{step(step("$", beside), next(iter(given[beside])))}"]'
            raise InvalidEvent("schema", f"is the series `{name}` alone, or with `{beside}`? [decode] series = {paths}")
        return Found(given[name], f"`{name}`")
    return None


def _metric(given: Mapping[str, Any]) -> Found | None:
    """The series of Telegraf's and Prometheus' JSON: by their own definition a name and all its tags or labels."""
    tags, labels = given.get("tags"), given.get("labels")
    if isinstance(given.get("fields"), dict) and isinstance(tags, dict):
        name, pairs, where = given.get("name", given.get("measurement")), tags, "`name` and `tags`"
    elif isinstance(labels, dict) and "__name__" in labels:
        name, pairs, where = labels["__name__"], labels, "`labels`"
    else:
        return None
    described = [f"{tag}={value}" for tag, value in sorted(pairs.items()) if tag != "__name__"]
    return Found(",".join(filter(None, (name if isinstance(name, str) else "", *described))), where)


def series_text(found: Found) -> str:
    """A series' name: text, or a whole number. Raises InvalidEvent."""
    if isinstance(found.value, str):
        return found.value
    if isinstance(found.value, bool) or not isinstance(found.value, int):
        raise InvalidEvent("schema", f"{found.name} is {shown(found.value)}, not a series' name")
    return str(found.value)


def no_series(fields: Fields) -> str:
    """That no field names the series, and how to name one."""
    inside = (
        step(path, found.name.strip("`"))
        for path, each in nested(fields.given)
        if path != "$" and (found := _find_inside(path, fields_of(each))) is not None and " " not in found.name
    )
    path = next(inside, "")
    hint = f'; one may be at {path}: [decode] series = "{path}"' if path else ': [decode] series = "$..." says which'
    return f"no field among {listed(fields.given)} names the series{hint}"


def _find_inside(path: str, fields: Fields) -> Found | None:
    """The series' field in a nested object; `id` or `name` only of an object that is a thing."""
    thing = plain(path.rsplit(".", 1)[-1]) in _THINGS
    return find_series(fields) or (find_other_series(fields) if thing else None)


def unusable_series(fields: Fields) -> InvalidEvent | None:
    """Why the field of a thing names no series; None if there is none."""
    for short in _THINGS:
        if (name := fields.names.get(short)) is not None and not isinstance(fields.given[name], dict):
            return InvalidEvent("schema", f"`{name}` is {shown(fields.given[name])}, not a series' name")
    return None


def key_differs(found: Found, key: str | None) -> bool:
    """Whether the key names another series than the field in which it was found; our own names need no key."""
    return key is not None and plain(found.name) not in CERTAIN and key != str(found.value)


def may_be_part(found: Found) -> bool:
    """Whether the field may name what the series is of only, such as a device that measures several things."""
    short = plain(found.name)
    return short in _THINGS or short in OTHERS


class Key(NamedTuple):
    """A record's key as a series, or why it is none."""

    series: str | None
    error: InvalidEvent | None = None


NO_KEY = Key(None)


class Keys:
    """Reads records' keys as series, each once."""

    def __init__(self) -> None:
        self._read: dict[bytes, Key] = {}

    def read(self, key: bytes | None) -> Key:
        """What a key names."""
        if key is None:
            return NO_KEY
        if (known := self._read.get(key)) is None:
            if len(self._read) >= MAX_CACHED:
                self._read.clear()
            known = self._read[key] = _read_key(key)
        return known

    def series(self, key: bytes | None) -> str:
        """The series that a key names. Raises InvalidEvent."""
        known = self.read(key)
        if known.series is None:
            raise known.error or InvalidEvent("bad_key", "neither a series in the body nor a key")
        return known.series


def _read_key(key: bytes) -> Key:
    """A key as a series: text, without the quotes of a JSON string."""
    if (schema := confluent_schema(key)) is not None:
        form = f"in the Confluent wire format (schema id {schema}){' or an int64' if len(key) == 8 else ''}"
        return Key(None, InvalidEvent("bad_key", f"the key is {form}"))
    if key == b"null":
        return Key(None, InvalidEvent("bad_key", "the key is JSON's null"))
    try:
        name = check_key(key).decode()
        if key[:1] == b"\0":
            raise InvalidEvent("bad_key", f"it is binary ({_binary(key)})")
        if len(name) >= 2 and name[0] == name[-1] == '"':
            with suppress(msgspec.MsgspecError):
                name = msgspec.json.decode(key, type=str)
        return Key(check_series(name))
    except UnicodeDecodeError as error:
        return Key(None, InvalidEvent("bad_encoding", f"the key is no text ({_binary(key)}): {error}"))
    except InvalidEvent as error:
        return Key(None, InvalidEvent(error.reason, f"the key: {error.detail}"))


def _binary(key: bytes) -> str:
    kind = {4: ", an int32?", 8: ", an int64 or a double?", 16: ", a UUID?"}.get(len(key), "")
    return f"{len(key)} bytes{kind}"


def check_series(name: str) -> str:
    """Return the name if it is valid for a series. Raises InvalidEvent."""
    if not name:
        raise InvalidEvent("schema", "the series' name is empty")
    if len(name) > MAX_SERIES_BYTES or len(name.encode()) > MAX_SERIES_BYTES:
        raise InvalidEvent("bad_key", f"the series' name is longer than {MAX_SERIES_BYTES} bytes")
    if not name.isprintable() and any(unicodedata.category(letter) == "Cc" for letter in name):
        raise InvalidEvent("bad_key", f"the series' name {name!r} has control characters")
    if name.isspace():
        raise InvalidEvent("schema", "the series' name is blank")
    return name


def name_neither(names: Iterable[str], and_no_time: bool) -> bool:
    """Whether fields of these names, whatever they hold, never name a series, nor a time."""
    called = set(map(plain, names))
    return called.isdisjoint(NAMING) and not (and_no_time and not called.isdisjoint(TIMES))
