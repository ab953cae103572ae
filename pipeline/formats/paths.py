"""Paths into a record's JSON, as the table [decode] of tidecast.toml gives them: $.payload.time, $.metrics[*].value."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tidecast.errors import ConfigError

KEY, TIMESTAMP = "record.key", "record.timestamp"
"""What a record has besides its JSON."""
EACH = "[*]"
_STEP = re.compile(r"\.([^.\[\]]+)|\['([^']+)'\]|\[(\d{1,6})\]|(\[\*\])")

Step = str | int


@dataclass(frozen=True, slots=True)
class Path:
    """A path: `each` leads to an array of which every element is an event, `steps` from there, or from the top."""

    text: str
    steps: tuple[Step, ...]
    each: tuple[Step, ...] | None = None

    @classmethod
    def parse(cls, text: object, *, instead: str = "") -> Self:
        """From text such as $.payload.time, $['a b'][0] or $.metrics[*].value; `instead` may be given for a path.

        Raises ConfigError.
        """
        if isinstance(text, str) and text == instead:
            return cls(text, ())
        if not isinstance(text, str) or not re.fullmatch(rf"\$({_STEP.pattern})*", text):
            allowed = f" or {instead!r}" if instead else ""
            raise ConfigError(f"{text!r} is not a path such as '$.payload.time'{allowed}")
        steps: list[Step] = [
            EACH if each else int(index) if index else name or quoted
            for name, quoted, index, each in _STEP.findall(text[1:])
        ]
        if steps.count(EACH) > 1:
            raise ConfigError(f"{text!r} has more than one [*]")
        if EACH not in steps:
            return cls(text, tuple(steps))
        at = steps.index(EACH)
        return cls(text, tuple(steps[at + 1 :]), tuple(steps[:at]))


def follow(found: Any, steps: Sequence[Step]) -> Any:
    """What lies at the end of these steps; None if there is nothing."""
    for step in steps:
        if isinstance(step, int):
            found = found[step] if isinstance(found, list) and step < len(found) else None
        else:
            found = found.get(step) if isinstance(found, dict) else None
    return found


@dataclass(frozen=True, slots=True)
class Paths:
    """Where an event's fields are, by [decode]; a field without a path is found by its name."""

    series: tuple[Path, ...] = ()
    """Several make up a name together, joined by commas; or `record.key`."""
    ts: Path | None = None
    """Or `record.timestamp`."""
    values: Mapping[str, Path] = field(default_factory=dict)
    """By feature."""

    @classmethod
    def parse(cls, table: object) -> Self:
        """From the settings of the table [decode]: series, ts, value, values. Raises ConfigError."""
        if not isinstance(table, dict):
            raise ConfigError("[decode] is a table: a line such as ts = '$.payload.time' below it")
        if unknown := sorted(table.keys() - {"series", "ts", "value", "values"}):
            raise ConfigError(f"[decode] has no setting called {unknown[0]!r}: it takes series, ts, value and values")
        values = table.get("values", {})
        if not isinstance(values, dict) or ("value" in table and "value" in values):
            raise ConfigError("[decode] values is a table of features: values = {flow = '$.payload.flow'}")
        values = ({"value": table["value"]} if "value" in table else {}) | values
        series = table.get("series", [])
        series = series if isinstance(series, list) else [series]
        try:
            paths = cls(
                tuple(Path.parse(text, instead=KEY) for text in series),
                Path.parse(table["ts"], instead=TIMESTAMP) if "ts" in table else None,
                {name: Path.parse(text) for name, text in values.items()},
            )
        except ConfigError as error:
            raise ConfigError(f"[decode] {error}") from None
        if len({path.each for path in paths.all if path.each is not None}) > 1:
            raise ConfigError("[decode] has paths through several arrays: [*] must follow the same path in each")
        return paths

    @property
    def all(self) -> tuple[Path, ...]:
        """Every path."""
        return (*self.series, *((self.ts,) if self.ts else ()), *self.values.values())

    @property
    def each(self) -> tuple[Step, ...] | None:
        """The steps to the array whose elements are events; None if the whole record is one event."""
        return next((path.each for path in self.all if path.each is not None), None)

    def __bool__(self) -> bool:
        return bool(self.all)
