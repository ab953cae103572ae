"""The values of an event: which fields hold them, and which texts are numbers."""

import re
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

from pipeline.formats.columnar.ipc import read_table
from pipeline.formats.columnar.points import is_columnar
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.json import parse_any
from pipeline.formats.names import Fields, Found, listed, nested, plain, shown, step
from pipeline.formats.times import NAMES, looks_like_time
from pipeline.log import Record

ALIASES = ("y", "val", "reading", "measurement")
"""Names of a value other than `value`, as `plain` writes them."""
BOOKKEEPING = frozenset(("id", "seq", "seqno", "sequence", "sequencenumber", "messageid", "msgid", "qos"))
BOOKKEEPING |= frozenset(("firmware", "offset", "partition", "interval", "ttl", "quality", "status"))
BOOKKEEPING |= frozenset(("statuscode", "lat", "latitude", "lon", "lng", "longitude", "altitude", "port", "zip"))
"""Names of numbers about a message, or where it is from: a value only where a path says so."""
PLACES = ("values", "fields")
"""Objects that hold values by their names: our own, and Telegraf's."""
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?[\d.]*\d,\d+")


def named_values(record: Record) -> tuple[str, ...]:
    """The names of the values in a record's object of them, or of a columnar one's numbers; none where it has none."""
    if is_columnar(record.value):
        return tuple(name for name in read_table(record.value or b"").number_names if plain(name) not in NAMES)
    body = parse_any(record)
    places = [body.get(name) for name in PLACES] if isinstance(body, dict) else []
    return next((tuple(place) for place in places if isinstance(place, dict)), ())


def find_values(fields: Fields, features: tuple[str, ...], series: str) -> list[Found]:
    """The fields of the features, in their order; `series` is the one that names the series. Raises InvalidEvent."""
    places = _places(fields)
    if "value" in fields.names and "value" in places.get("values.", {}):
        raise InvalidEvent("schema", "a value, and another among the values")
    if features == ("value",):
        return [_find_value(fields, series)]
    order: dict[str, Any] = {name: places[name] for name in ("values.", "", "fields.") if name in places}
    return [_find_feature(fields, order, feature, alone=len(features) == 1) for feature in features]


def _is_bookkeeping(name: str) -> bool:
    return (short := plain(name)) in BOOKKEEPING or short.endswith("version")


def _find_feature(fields: Fields, places: dict[str, Any], feature: str, *, alone: bool) -> Found:
    for where, place in places.items():
        if place.get(feature) is not None:
            return Found(place[feature], f"`{where}{feature}`")
    if alone and fields.given.get("value") is not None and "values." not in places:
        return Found(fields.given["value"], "`value`")
    raise InvalidEvent("schema", f"no {feature!r} among {listed([*fields.given, *_inside(places)])}")


def _find_value(fields: Fields, series: str) -> Found:
    """The field of the only value: called `value` or one of its other names, or the only number there is.

    Not one among `values`: those are features by name. A value that is null is missing: no other number is it.
    """
    given, places = fields.given, _places(fields)
    if name := fields.names.get("value"):
        return Found(given[name], f"`{name}`")
    for where in ("values.", "fields."):
        if places.get(where, {}).get("value") is not None:
            return Found(places[where]["value"], f"`{where}value`")
    called = [(where, name) for where, place in places.items() for name in place if plain(name) in ("value", *ALIASES)]
    if called and all(places[where][name] is None for where, name in called):
        raise InvalidEvent("schema", f"`{''.join(called[0])}` is null")
    called = [(where, name) for where, name in called if places[where][name] is not None]
    numbers = [(where, name) for where, name in called if is_number(places[where][name])]
    numbers = numbers or (called if len(called) == 1 else _numbers(places, series))
    if len(numbers) == 1 and numbers[0][0] != "values.":
        ((where, name),) = numbers
        return Found(places[where][name], f"`{where}{name}`", "" if called else name)
    if numbers:
        which = f"--features {','.join(name for _, name in numbers[:2])}"
        where, name = numbers[0]
        paths = f'or [decode] value = "{step(step("$", where[:-1]) if where else "$", name)}"'
        names = listed([f"{where}{name}" for where, name in numbers])
        raise InvalidEvent("schema", f"which is the value, of {names}? {which}, {paths}")
    path = next(other_numbers(fields, series), "")
    hint = f'; one may be at {path}: [decode] value = "{path}"' if path else ""
    raise InvalidEvent("schema", f"no value among {listed([*fields.given, *_inside(places)])}{hint}")


def other_numbers(fields: Fields, series: str, taken: str = "") -> Iterator[str]:
    """The paths of what may be a value elsewhere: numbers in nested objects, decimal texts; surer ones first.

    `taken` is the field that was taken for it, as it is called.
    """
    numbers = [
        (plain(name) not in ("value", *ALIASES), f"{step(path, name)}{'[0]' if isinstance(value, list) else ''}")
        for path, each in nested(fields.given)
        for name, value in each.items()
        if f"`{path[2:]}{'.' if path[2:] else ''}{name}`" not in (series, taken)
        and is_number(value[0] if isinstance(value, list) and value else value)
        and not _is_bookkeeping(name)
        and not looks_like_time(name, value)
    ]
    return (path for _, path in sorted(numbers, key=itemgetter(0)))


def _places(fields: Fields) -> dict[str, Any]:
    """The object, and those in it that hold values, by what their fields' names begin with."""
    inside = {f"{name}.": fields.given.get(name) for name in PLACES}
    return {"": fields.given} | {where: place for where, place in inside.items() if isinstance(place, dict)}


def _inside(places: dict[str, Any]) -> list[str]:
    return [f"{where}{name}" for where, place in places.items() if where for name in place]


def _numbers(places: dict[str, Any], series: str) -> list[tuple[str, str]]:
    """The numbers that may be a value: all but the series, what looks like a time, and those of bookkeeping."""
    return [
        (where, name)
        for where, place in places.items()
        for name, value in place.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
        if f"`{where}{name}`" != series and not _is_bookkeeping(name) and not looks_like_time(name, value)
    ]


def telling(first: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """The fields by which two events may be of two series: text, whole numbers and tags that differ, no bookkeeping."""
    for name, value in other.items():
        kind = value is not None and type(value) is type(first.get(name)) and isinstance(value, str | int | dict)
        if kind and value != first[name] and not _is_bookkeeping(name) and not looks_like_time(name, value):
            yield name


def is_number(value: object) -> bool:
    """Whether it is a number, or text that is one in decimal notation."""
    if isinstance(value, str):
        return _DECIMAL.fullmatch(value.strip()) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(found: Found) -> float:
    """A field's value: a number, or decimal text. Raises InvalidEvent."""
    if is_number(found.value):
        try:
            return float(found.value)
        except OverflowError:
            raise InvalidEvent("out_of_range", f"{found.name} does not fit in a float32") from None
    comma = isinstance(found.value, str) and _COMMA.fullmatch(found.value.strip())
    hint = ": write numbers with a decimal point, without separators" if comma else ""
    raise InvalidEvent("schema", f"{found.name} is {shown(found.value)}, not a number{hint}")
