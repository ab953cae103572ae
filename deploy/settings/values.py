"""Settings given as text: how an option's value is parsed, and the names derived from one."""

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from numbers import Real
from pathlib import Path
from typing import Literal

from tidecast.errors import ConfigError
from tidecast.freq import parse_duration

Device = Literal["auto", "cpu", "cuda"]
ScoreView = Literal["series", "model", "step"]
"""What a table of scores has a row for."""
OFF = "off"
"""The value of an option that switches something off."""
FORECAST_FILES = (".csv", ".parquet", ".jsonl")
"""What the name of a file of forecasts ends in."""


def model_name(path: str) -> str:
    """The name of a model that is trained on this file, unless it is given."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", Path(path).name.partition(".")[0]) if path != "-" else "stdin"


def parse_feature_names(option: str, text: str) -> tuple[str, ...]:
    """An option's comma-separated features. Raises ConfigError naming the option."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names) or {"series", "ts"} & set(names):
        raise ConfigError(f"{option}: {text!r} must be different names, none of them series or ts")
    return names


def parse_share(name: str, text: str) -> float | None:
    """An option's share, such as 0.9; None if it is off. Raises ConfigError."""
    if text == OFF:
        return None
    try:
        return float(text)
    except ValueError:
        percent = text.strip().removesuffix("%")
        meant = f"; did you mean {float(percent) / 100:g}?" if percent.isdecimal() else ""
        raise ConfigError(f"{name}: {text!r} is not a share such as 0.9; or {OFF}{meant}") from None


def checked_coverage(coverage: float | None) -> float | None:
    """The share that online intervals are to contain; None is of none. Raises ConfigError for what is no such share."""
    if coverage is not None and not 0.5 <= coverage <= 0.995:
        meant = f"; did you mean {coverage / 100:g}?" if 50 <= coverage <= 99.5 else ""
        raise ConfigError(f"coverage: {coverage:g} is not between 0.5 and 0.995, as 0.9 is; or {OFF}{meant}")
    return coverage


def parse_words(text: str) -> tuple[str, ...]:
    """An option's comma-separated words."""
    return tuple(word for part in text.split(",") if (word := part.strip()))


def checked_levels(levels: Iterable[float] | None) -> tuple[float, ...]:
    """Levels of intervals in percent, ascending; None is of none. Raises ConfigError for what is no such level."""
    found = [levels] if isinstance(levels, Real | str) else [] if levels is None else list(levels)
    for level in found:
        number = isinstance(level, Real) and not isinstance(level, bool)
        if not number or not 1 <= level < 100:
            meant = f"; did you mean {100 * level:g}?" if number and 0.01 <= level < 1 else ""
            raise ConfigError(f"level: {level!r} is not a percentage from 1 to 99.9, such as 90{meant}")
    return tuple(int(level) if level == int(level) else float(level) for level in sorted(set(found)))


def parse_levels(text: str) -> tuple[float, ...]:
    """An option's comma-separated levels, or `none`. Raises ConfigError."""
    try:
        return checked_levels(
            [] if text == "none" else [float(word.strip().removesuffix("%")) for word in text.split(",")]
        )
    except ConfigError:
        raise
    except ValueError:
        raise ConfigError(f"level: {text!r} is neither percentages such as 80,90 nor none") from None


def parse_duration_option(name: str, text: str | None) -> int | None:
    """An option's duration in milliseconds. Raises ConfigError."""
    try:
        return None if text is None else parse_duration(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def parse_seconds_option(name: str, text: str | None) -> float | None:
    """An option's duration in seconds. Raises ConfigError."""
    milliseconds = parse_duration_option(name, text)
    return None if milliseconds is None else milliseconds / 1000


def parse_time_option(name: str, text: str | None) -> int | None:
    """An option's time in epoch milliseconds; a duration is that long before now. Raises ConfigError."""
    if text is None:
        return None
    with suppress(ConfigError):
        return int(time.time() * 1000) - parse_duration(text)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{name}: {text!r} is not a time such as 2026-01-31T12:00, or a duration such as 90d"
        ) from None
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)


def parse_span(first: str, since: str | None, last: str, until: str | None) -> tuple[int | None, int | None]:
    """Two options' times, from the first up to before the last, in epoch milliseconds. Raises ConfigError."""
    start, end = parse_time_option(first, since), parse_time_option(last, until)
    if start is not None and end is not None and start >= end:
        raise ConfigError(f"{first}: --{first} {since} is not before --{last} {until}")
    return start, end
