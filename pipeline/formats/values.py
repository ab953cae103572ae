"""The values of an event: which fields hold them, and which texts are numbers."""

import re
from typing import Any

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.names import Fields, Found, fields_of, listed, nested, plain, shown, step
from pipeline.formats.times import looks_like_time

ALIASES = ("y", "val", "reading", "measurement")
"""Names of a value other than `value`, as `plain` writes them."""
PLACES = ("values", "fields")
"""Objects that hold values by their names: our own, and Telegraf's."""
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?[\d.]*\d,\d+")


def find_values(fields: Fields, features: tuple[str, ...], series: str) -> list[Found]:
    """The fields of the features, in their order; `series` is the one that names the series. Raises InvalidEvent."""
    places = _places(fields)
    if "value" in fields.names and "value" in places.get("values.", {}):
        raise InvalidEvent("schema", "a value, and another among the values")
    if features == ("value",):
        return [_find_value(fields, series)]
    order: dict[str, Any] = {name: places[name] for name in ("values.", "", "fields.") if name in places}
    return [_find_feature(fields, order, feature, alone=len(features) == 1) for feature in features]


def _find_feature(fields: Fields, places: dict[str, Any], feature: str, *, alone: bool) -> Found:
    for where, place in places.items():
        if place.get(feature) is not None:
            return Found(place[feature], f"`{where}{feature}`")
    if alone and fields.given.get("value") is not None and "values." not in places:
        return Found(fields.given["value"], "`value`")
    raise InvalidEvent("schema", f"no {feature!r} among {listed([*fields.given, *_inside(places)])}")


def _find_value(fields: Fields, series: str) -> Found:
    """The field of the only value: called `value` or one of its other names, or the only number there is.

    Not one among `values`: those are features by name.
    """
    given, places = fields.given, _places(fields)
    if name := fields.names.get("value"):
        return Found(given[name], f"`{name}`")
    for where in ("values.", "fields."):
        if places.get(where, {}).get("value") is not None:
            return Found(places[where]["value"], f"`{where}value`")
    called = [(where, name) for where, place in places.items() for name in place if plain(name) in ALIASES]
    numbers = [(where, name) for where, name in called if is_number(places[where][name])]
    numbers = numbers or (called if len(called) == 1 else _numbers(places, series))
    if len(numbers) == 1 and numbers[0][0] != "values.":
        ((where, name),) = numbers
        return Found(places[where][name], f"`{where}{name}`", "" if called else name)
    if numbers:
        which = f"--features {','.join(name for _, name in numbers[:2])}"
        paths = f'or [decode] value = "{step("$", numbers[0][0] + numbers[0][1])}"'
        names = listed([f"{where}{name}" for where, name in numbers])
        raise InvalidEvent("schema", f"which is the value, of {names}? {which}, {paths}")
    raise InvalidEvent("schema", _no_value(fields, places))


def _no_value(fields: Fields, places: dict[str, Any]) -> str:
    inside = (
        f'; one may be at {step(path, name)}: [decode] value = "{step(path, name)}"'
        for path, each in nested(fields.given)
        if path.lstrip("$.") not in ("", *PLACES)
        for short, name in fields_of(each).names.items()
        if short in ("value", *ALIASES) and is_number(each[name])
    )
    return f"no value among {listed([*fields.given, *_inside(places)])}{next(inside, '')}"


def _places(fields: Fields) -> dict[str, Any]:
    """The object, and those in it that hold values, by what their fields' names begin with."""
    inside = {f"{name}.": fields.given.get(name) for name in PLACES}
    return {"": fields.given} | {where: place for where, place in inside.items() if isinstance(place, dict)}


def _inside(places: dict[str, Any]) -> list[str]:
    return [f"{where}{name}" for where, place in places.items() if where for name in place]


def _numbers(places: dict[str, Any], series: str) -> list[tuple[str, str]]:
    """The numbers that may be a value: all but the series and what looks like a time."""
    return [
        (where, name)
        for where, place in places.items()
        for name, value in place.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
        if f"`{where}{name}`" != series and not looks_like_time(name, value)
    ]


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
