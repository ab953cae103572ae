"""The time of an event: which field holds it, in ISO 8601 or as a number whose unit is known by its magnitude.

From 2000 to 9999 the numbers of seconds, milliseconds, microseconds and nanoseconds do not overlap.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.names import Fields, Found, nested, plain, step

MIN_TIME = 946_684_800_000
"""2000-01-01, in epoch milliseconds: an earlier time is of a broken clock."""
MAX_TIME = 253_402_300_799_999
"""The end of the year 9999, in epoch milliseconds: the last that calendars support."""

MILLISECONDS, ISO, ISO_UTC = "epoch milliseconds", "ISO 8601", "ISO 8601 without a zone, taken as UTC"
UNITS = (("epoch seconds", 1_000, 1), ("epoch microseconds", 1, 1_000), ("epoch nanoseconds", 1, 1_000_000))
"""Other units, with the milliseconds of each as a fraction."""
DIGITS = "digits such as 20261128 or 20261128103000, taken as UTC"
NAMES: tuple[str, ...] = ("ts", "ds", "eventtime", "eventtimestamp", "timestamp", "time", "datetime", "date", "eventts")
NAMES += ("epoch", "unixtime", "unixtimestamp", "timeunix")
_FORMS = ("s", "sec", "seconds", "ms", "millis", "us", "micros", "ns", "nano", "nanos", "utc")
NAMES += tuple(f"{name}{form}" for name in NAMES if name not in ("ds", "date") for form in _FORMS)
_READ = ("measured", "measurement", "observed", "observation", "recorded", "sampled", "sample", "reading", "read")
NAMES += tuple(f"{read}{form}" for read in _READ for form in ("at", "on", "time", "ts", "timestamp"))
"""What people call a time, as `plain` writes it, the surest first."""
DAY = 86_400_000
LEAST, MOST = 19_000_000, 2**63
"""The smallest number that may be a time, as digits such as 20261128, and the first that can't."""
SOON = 4_102_444_800_000
"""2100-01-01, in epoch milliseconds: numbers up to here may well be times."""

_RANKS = {name: rank for rank, name in enumerate(NAMES)}
_CALLED = re.compile(r"(?i:time|date|stamp|epoch)|(?i:^|[^a-zA-Z])(?i:t|ts|at)$|[a-z](At|Ts|TS)$")
_TEXT = re.compile(r"(19|20)\d\d-\d\d-\d\d([T ]\d\d:.*)?")
_COMPACT = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])(\d{4}|\d{6})?")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


class Moment(NamedTuple):
    """A time, and how it was written."""

    ts: int
    """Epoch milliseconds."""
    form: str
    """For people: `epoch seconds`, `ISO 8601`."""


def read_time(given: object, min_time: int = MIN_TIME) -> Moment:
    """A field's time, a number or text, not before `min_time` (epoch milliseconds). Raises InvalidEvent."""
    if isinstance(given, str):
        text = given.strip()
        if _TEXT.match(text):
            return _checked(_read_text(text), min_time)
        if not _NUMBER.fullmatch(text):
            return _checked(_read_text(text), min_time)
        if (moment := _compact(text)) is not None:
            return _checked(moment, min_time)
        given = int(text) if text.lstrip("+-").isdecimal() and len(text) < 100 else float(text)
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise InvalidEvent("schema", f"{str(given)[:40]!r} is no time")
    return _read_number(given, min_time)


def _read_number(number: float, min_time: int) -> Moment:
    if isinstance(number, int) and (moment := _compact(str(number) if 0 < number < 10**14 else "")) is not None:
        return _checked(moment, min_time)
    if min_time <= number <= MAX_TIME:
        return Moment(round(number), MILLISECONDS)
    for form, times, part in UNITS:
        if MIN_TIME * part <= number * times <= MAX_TIME * part:
            ts = (number * times + part // 2) // part if isinstance(number, int) else round(number * times / part)
            return Moment(ts, form)
    since = "2000" if min_time == MIN_TIME else str(min_time)
    shown = str(number) if isinstance(number, float) or abs(number) < 10**40 else "a longer number"
    raise InvalidEvent("bad_time", f"{shown} lies not between {since} and 9999, in s, ms, us or ns since 1970")


def _read_text(text: str) -> Moment:
    moment = datetime_of(f"{text[:-3].rstrip()}Z" if text.endswith(("UTC", "GMT")) else text)
    zoned = moment.tzinfo is not None
    return Moment(epoch(moment), ISO if zoned else ISO_UTC)


def _compact(text: str) -> Moment | None:
    """Digits that are a date, and perhaps a time of day; None if they are a number."""
    if not _COMPACT.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(f"{text[:8]}T{text[8:]}" if text[8:] else text)
    except ValueError:
        return None
    return Moment(epoch(moment), DIGITS)


def _checked(moment: Moment, min_time: int) -> Moment:
    if moment.ts < min_time:
        raise InvalidEvent("bad_time", f"{moment.ts} is before {min_time}; times are epoch milliseconds")
    if moment.ts > MAX_TIME:
        raise InvalidEvent("bad_time", f"{moment.ts} lies after the year 9999")
    return moment


def find_time(fields: Fields, min_time: int) -> tuple[Moment, Found] | None:
    """The time, and the field that holds it; None if no field is called so. Raises InvalidEvent naming the field."""
    given, names = fields
    called = sorted((rank, names[short]) for short in names if (rank := _RANKS.get(short)) is not None)
    if not called:
        return None
    (_, name), *others = called
    if plain(name) in ("date", "time") and (joined := _date_and_time(fields)) is not None:
        return joined
    moment = named_time(Found(given[name], f"`{name}`"), min_time)
    other = None if name == "ts" else next((each for _, each in others if _differs(moment, given[each])), None)
    question = f'is the time `{name}` or `{other}`? [decode] ts = "{step("$", name)}"' if other else ""
    return moment, Found(given[name], f"`{name}`", question)


def named_time(found: Found, min_time: int) -> Moment:
    """A field's time. Raises InvalidEvent naming the field."""
    try:
        return read_time(found.value, min_time)
    except InvalidEvent as error:
        raise InvalidEvent(error.reason, f"{found.name}: {error.detail}") from None


def _date_and_time(fields: Fields) -> tuple[Moment, Found] | None:
    """A date and a time of day in two fields."""
    given, names = fields
    date, time = (given.get(names.get(name, "")) for name in ("date", "time"))
    if not isinstance(date, str) or not isinstance(time, str) or not re.fullmatch(r"\d{4}-?\d\d-?\d\d", date):
        return None
    try:
        return read_time(f"{date}T{time}"), Found(None, f"`{names['date']}` and `{names['time']}`")
    except InvalidEvent:
        return None


def _differs(moment: Moment, other: object) -> bool:
    """Whether another field holds another time; a date is the same as any time of its day, wherever that is."""
    try:
        ts = read_time(other).ts
    except InvalidEvent:
        return False
    return abs(moment.ts - ts) >= (2 * DAY if isinstance(other, str) and ts % DAY == 0 else 1_000)


def unused_times(given: Mapping[str, Any]) -> Iterator[str]:
    """The paths of all fields that look like a time."""
    for path, each in nested(given):
        yield from (step(path, name) for name, value in each.items() if looks_like_time(name, value))


def looks_like_time(name: str, value: object) -> bool:
    """Whether a field may well be a time, by its text, or by its name and magnitude."""
    if isinstance(value, str) and _TEXT.fullmatch(value):
        return True
    if not isinstance(value, str | int | float) or (not isinstance(value, str) and not LEAST <= value < MOST):
        return False
    try:
        ts, form = read_time(value)
    except InvalidEvent:
        return False
    return ts < SOON and (_CALLED.search(name) is not None or (form == MILLISECONDS and not isinstance(value, str)))


def datetime_of(text: str) -> datetime:
    """Parse ISO 8601. Raises InvalidEvent."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidEvent("schema", f"{text[:40]!r} is no ISO 8601 time") from None


def epoch(moment: datetime) -> int:
    """Epoch milliseconds of a time, as UTC if it has no time zone."""
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def zoned_time(text: str) -> int | None:
    """The epoch milliseconds of ISO 8601 with a zone, as fast as they can be had; None for any other text."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else epoch(moment)


def parse_time(text: str) -> int:
    """Parse ISO 8601 to epoch milliseconds, as UTC if it has no time zone. Raises InvalidEvent."""
    return epoch(datetime_of(text))
