"""Fields of a JSON object by the names that people use: sensorId, sensor_id and Sensor-ID are one."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

LEVELS = 4
"""How deep a hint is looked for."""


class Found(NamedTuple):
    """A field's value, what to call the field, and a question if it can be read in another way too."""

    value: Any
    name: str
    question: str = ""


class Fields(NamedTuple):
    """An object, and its names as `plain` writes them; fields that are null are left out."""

    given: Mapping[str, Any]
    names: Mapping[str, str]


@lru_cache(4096)
def plain(name: str) -> str:
    """A name in lower case, of letters and digits only."""
    return "".join(char for char in name.lower() if char.isalnum())


def fields_of(given: Mapping[str, Any]) -> Fields:
    """An object's fields. Of two that differ by case or hyphens only the one that is plain, or the first, is found."""
    names: dict[str, str] = {}
    for name, value in given.items():
        if value is not None and ((short := plain(name)) not in names or name == short):
            names[short] = name
    return Fields(given, names)


def step(path: str, name: str) -> str:
    """The path of a field of the object at `path`."""
    return f"{path}.{name}" if re.fullmatch(r"[^.\[\]']+", name) else f"{path}['{name}']"


def nested(given: object, path: str = "$", levels: int = LEVELS) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in an object or array, each with its path; of an array's elements the first."""
    if isinstance(given, dict):
        yield path, given
        for name, value in given.items() if levels else ():
            yield from nested(value, step(path, name), levels - 1)
    elif isinstance(given, list) and given and levels:
        yield from nested(given[0], path if "[*]" in path else f"{path}[*]", levels - 1)


def shown(value: object) -> str:
    """A value in an error's detail."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value[:40]) if isinstance(value, str) else f"{value!s:.40}"


def listed(names: Mapping[str, Any] | list[str]) -> str:
    """Names of fields in an error's detail."""
    some = [f"`{name[:40]}`" for name in list(names)[:6]]
    return ", ".join(some) + (", .." if len(names) > len(some) else "") if some else "none"
