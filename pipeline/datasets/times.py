"""Cells as times: epochs, ISO 8601, dates in digits and as people write them, read only where one reading is right."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

import polars as pl

from pipeline.datasets.tables import Table, first_of, shortened

EPOCHS = {
    "s": (1e11, "seconds", 1e3),
    "ms": (1e14, "milliseconds", 1.0),
    "us": (1e17, "microseconds", 1e-3),
    "ns": (1e19, "nanoseconds", 1e-6),
}
"""A column of numbers whose largest is below the bound has that unit; times the factor it is milliseconds."""
SMALLEST_EPOCH = 1e8
"""Integers below this are dates in digits: 1949, 20140701."""
YEAR_2000, YEAR_2100 = 946_684_800_000, 4_102_444_800_000
DIGITS = {
    6: (r"^((?:19|20)\d\d)(\d\d)$", "${1}-${2}-01", "YYYYMM"),
    10: (r"^((?:19|20)\d\d)(\d\d)(\d\d)(\d\d)$", "${1}-${2}-${3}T${4}:00", "YYYYMMDDhh"),
    12: (r"^((?:19|20)\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$", "${1}-${2}-${3}T${4}:${5}", "YYYYMMDDhhmm"),
    14: (r"^((?:19|20)\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$", "${1}-${2}-${3}T${4}:${5}:${6}", "YYYYMMDDhhmmss"),
}
_SECONDS, _ISO, _NAME = DIGITS[14]
DIGITS |= {
    14 + places: (f"{_SECONDS[:-1]}(\\d{{{places}}})$", f"{_ISO}.${{7}}", f"{_NAME} and a fraction")
    for places in (2, 3)
}
"""Dates in so many digits, and ISO 8601 for them. A column of epochs has numbers among it that are none of these."""
SHORT_YEAR = r"^\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])$"
PARTIAL = {4: "-01-01", 7: "-01"}
"""Completes a year or a month to a date, by the length of the text."""
NUMBER = r"^[+-]?\d+(?:\.\d*)?$"
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WRITTEN = re.compile(
    r"""(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*[.,]?\s+)?
    (?: (?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})
      | (?P<first>\d{1,2})[-/.](?P<second>\d{1,2})[-/.](?P<year2>\d{4})
      | (?P<day3>\d{1,2})\.?[-\s/]\s*(?P<name3>[a-z]{3,9})\.?[-\s/,]\s*(?P<year3>\d{4})
      | (?P<name4>[a-z]{3,9})\.?[-\s]\s*(?:(?P<day4>\d{1,2}),?\s+)?(?P<year4>\d{4}))
    (?:[t\s,:]+(?P<clock>\d{1,2}(?:[:h]\d\d){1,2}(?:[.,]\d{1,9})?|\d{1,2}(?=\s*[ap]\.?m))(?:\s*(?P<half>[ap])\.?m\.?|\s*uhr)?)?
    (?:\s*(?P<zone>z|(?:utc|gmt)?[+-]\d{1,2}(?::?\d\d)?|utc|gmt))?(?:\s*(?:utc|gmt|\[[\w/+-]+\]|\([\w\s]+\)))?""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
PERIOD = re.compile(
    r"(?P<year>(?:19|20)\d\d)[-/ ]?(?P<unit>[QM])(?P<count>\d{1,2})|Q(?P<quarter>[1-4])[-/ ](?P<year2>(?:19|20)\d\d)"
    r"|(?P<month>\d{1,2})[/.-](?P<year3>(?:19|20)\d\d)",
    re.IGNORECASE | re.ASCII,
)
"""A quarter or a month: 2020Q1, Q1 2020, 2020M01, 01/2020."""
RANGE = re.compile(r"(.*\d\S*)\s+(?:-|–|—|to|bis)\s+(\S*\d.*)|(\d{4}-\S+)/(\d{4}-\S+)")  # noqa: RUF001
"""An interval of two times."""
SHORT_ZONE = "short names of zones are not offsets: without them, --timezone tells the zone"
FORMAT_HINT = "--time-format reads others, such as '%d/%m/%y %H:%M'"


class Moment(NamedTuple):
    """A time in epoch milliseconds; `wall` if it is a clock's, as if that were in UTC, and no moment yet."""

    ms: int
    wall: bool


@dataclass(frozen=True, slots=True)
class Times:
    """A column's times: `ms` (Int64), and `wall` (Boolean) as of a Moment."""

    ms: pl.Series
    wall: pl.Series
    note: str = ""
    """What they were taken for, where that does not go without saying."""


def read_times(table: Table, column: str, form: str | None = None) -> Times:
    """The column as times; `form` is a strptime format, or the unit of an epoch: s, ms, us or ns. Raises DataError."""
    given = table.columns[column]
    table.refuse(given.is_null(), column, "missing time")
    if given.dtype == pl.Date or isinstance(given.dtype, pl.Datetime):
        return _all(given.dt.epoch("ms"), wall=getattr(given.dtype, "time_zone", None) is None)
    text = _whole(given).cast(pl.String).str.strip_chars()
    table.refuse(text == "", column, "missing time")
    if form and form not in EPOCHS:
        wrong = f"is not a time as --time-format {form!r} says"
        return _distinct(table, column, text, lambda cell: _of(datetime.strptime(cell, form)), wrong)
    numbers = text.str.contains(NUMBER)
    if not numbers.all():
        if form:
            raise table.fault(first_of(~numbers), column, f"{shortened(text[first_of(~numbers)])!r} is not a number")
        return _written(table, column, text)
    return _digits(table, column, text, form)


def looks_like_time(cells: Sequence[str]) -> bool:
    """Whether these texts are dates or times, whatever the order of day and month, and not just numbers."""
    starts = [start for cell in cells if (start := _start(cell) or cell)]
    return all(
        not re.fullmatch(NUMBER, cell) and (_iso(cell) or WRITTEN.fullmatch(cell) or PERIOD.fullmatch(cell))
        for cell in starts
    )


def _all(ms: pl.Series, *, wall: bool, note: str = "") -> Times:
    return Times(ms.cast(pl.Int64), pl.repeat(wall, len(ms), eager=True), note)


def _whole(given: pl.Series) -> pl.Series:
    """Numbers without a fraction as integers, all else as it is."""
    whole = given.dtype.is_float() and ((given == given.round()) & (given.abs() < 2**63)).all()
    return given.cast(pl.Int64) if whole else given


def _digits(table: Table, column: str, text: pl.Series, unit: str | None) -> Times:
    """Numbers: dates in digits, or an epoch."""
    number = text.cast(pl.Float64)
    largest = number.abs().to_numpy().max()
    if unit is None:
        if dates := _dates_in_digits(table, column, text):
            return dates
        if not SMALLEST_EPOCH <= largest < EPOCHS["ns"][0]:
            return _written(table, column, text.str.replace(r"\.0*$", ""))
    unit, guessed = unit or next(name for name, (bound, *_) in EPOCHS.items() if largest < bound), unit is None
    _, word, factor = EPOCHS[unit]
    ms = number * factor
    if guessed and ms.abs().max() >= YEAR_2000:  # type: ignore[operator]
        other = (ms * 1000).is_between(YEAR_2000, YEAR_2100)
        table.refuse(other, column, f"{{}} is no epoch in {word}, as others are: --time-format {unit} if it is")
        late = (
            f"{{}} is after the year 2100 as an epoch in {word}: --time-format {unit} if it is one, or says what it is"
        )
        table.refuse(ms > YEAR_2100, column, late)
    return _all(ms.round(), wall=False, note=f"epoch {word}")


def _dates_in_digits(table: Table, column: str, text: pl.Series) -> Times | None:
    """Numbers whose digits are all dates, of one length."""
    plain = text.str.replace(r"\.0*$", "")
    lengths = plain.str.len_chars().unique()
    if len(lengths) > 1 or lengths[0] not in DIGITS:
        return None
    pattern, iso, name = DIGITS[lengths[0]]
    dates = plain.str.replace(pattern, iso)
    if not plain.str.contains(pattern).all() or not all(map(_moment, dates.unique())):
        return None
    if name == "YYYYMM" and plain.str.contains(SHORT_YEAR).all():
        what = f"{text[0]!r} may be a month or a day: --time-format %Y%m, or --time-format %y%m%d"
        raise table.fault(0, column, what)
    times = _written(table, column, dates)
    return Times(times.ms, times.wall, name)


def _written(table: Table, column: str, text: pl.Series) -> Times:
    """Texts as times. Raises DataError for one that is none, or that may be two."""
    intervals = _start(text[0]) is not None
    if intervals:
        text = pl.Series([_start(cell) or cell for cell in text], dtype=pl.String)
    order = _day_first(table, column, text)
    wrong = f"is not a time (ISO 8601, or an epoch); {FORMAT_HINT}"
    times = _distinct(table, column, text, lambda cell: _moment(cell, day_first=order is not False), wrong)
    how = {None: "", True: "day first", False: "month first"}[order]
    return Times(times.ms, times.wall, ", ".join(filter(None, (how, "the starts of intervals" if intervals else ""))))


def _distinct(table: Table, column: str, text: pl.Series, read: Callable[[str], Moment | None], wrong: str) -> Times:
    """Texts as times, each distinct one read once."""
    parsed: dict[str, Moment] = {}
    for cell in text.unique(maintain_order=True):
        try:
            moment = read(cell)
        except (ValueError, OverflowError):
            moment = None
        if moment is None:
            short = f"; {SHORT_ZONE}" if re.search(r"\d\s*[A-Z]{2,5}$", cell) else ""
            raise table.fault(first_of(text == cell), column, f"{shortened(cell)!r} {wrong}{short}")
        parsed[cell] = moment
    moments = [parsed[cell] for cell in text]
    return Times(
        pl.Series([moment.ms for moment in moments], dtype=pl.Int64),
        pl.Series([moment.wall for moment in moments], dtype=pl.Boolean),
    )


def _day_first(table: Table, column: str, text: pl.Series) -> bool | None:
    """Whether dates such as 31/12/2020 begin with the day, as one of them proves; None if there are none such."""
    cells = text.unique(maintain_order=True).to_list()
    numeric = {
        cell: (int(match["first"]), int(match["second"]))
        for cell in cells
        if (match := WRITTEN.fullmatch(cell)) and match["first"]
    }
    if not numeric:
        return None
    proofs = {first > 12: cell for cell, (first, second) in numeric.items() if max(first, second) > 12}
    other = next((cell for cell in cells if cell not in numeric), None)
    if other is None and len(proofs) == 1:
        return next(iter(proofs))
    if other is not None or proofs:
        cell, like = other or proofs[True], next(iter(numeric)) if other else proofs[False]
        what = f"{shortened(cell)!r} is not written as {like!r} is"
    else:
        cell, what = cells[0], f"{cells[0]!r} may begin with the day or the month"
    ways = "--time-format tells the one way, such as '%d/%m/%Y' or '%m/%d/%Y %H:%M'"
    raise table.fault(first_of(text == cell), column, f"{what}: {ways}")


def _start(cell: str) -> str | None:
    """The first time of an interval, None for any other text."""
    match = None if _iso(cell) else RANGE.fullmatch(cell)
    return None if match is None else match[1] or match[3]


def _of(parsed: datetime) -> Moment:
    wall = parsed.tzinfo is None
    return Moment(round((parsed.replace(tzinfo=UTC) if wall else parsed).timestamp() * 1000), wall)


def _iso(cell: str) -> Moment | None:
    try:
        return _of(datetime.fromisoformat(cell + PARTIAL.get(len(cell), "")))
    except (ValueError, OverflowError):
        return None


def _moment(cell: str, *, day_first: bool = True) -> Moment | None:
    """A text as a time; None if it is none."""
    if moment := _iso(cell):
        return moment
    match = WRITTEN.fullmatch(cell)
    try:
        return _of(_date(match, day_first) + _clock(match)) if match else _period(cell)
    except (ValueError, OverflowError):
        return None


def _period(cell: str) -> Moment | None:
    """The start of a quarter or a month; None for any other text. Raises ValueError."""
    match = PERIOD.fullmatch(cell)
    if match is None:
        return None
    quarter = match["quarter"] or ((match["unit"] or "").upper() == "Q" and match["count"])
    month = 3 * int(quarter) - 2 if quarter else int(match["month"] or match["count"])
    return _of(datetime(int(match["year"] or match["year2"] or match["year3"]), month, 1))


def _date(match: re.Match[str], day_first: bool) -> datetime:
    """The midnight of a date as people write it, with the offset behind it. Raises ValueError."""
    found = match.groupdict()
    if name := found["name3"] or found["name4"]:
        month = 1 + MONTHS.index(name[:3].lower())
    elif found["first"]:
        month = int(found["second" if day_first else "first"])
    else:
        month = int(found["month"])
    day = found["day"] or found["day3"] or found["day4"] or found["first" if day_first else "second"] or "1"
    year = found["year"] or found["year2"] or found["year3"] or found["year4"]
    return datetime(int(year), month, int(day), tzinfo=_offset(found["zone"]))


def _clock(match: re.Match[str]) -> timedelta:
    """The time of day; 24:00 is the next day's 00:00. Raises ValueError."""
    hour, minute, second = f"{match['clock'] or 0}:0:0".lower().replace("h", ":").replace(",", ".").split(":")[:3]
    clock = timedelta(hours=int(hour), minutes=int(minute), seconds=float(second))
    if match["half"]:
        if not 1 <= int(hour) <= 12:
            raise ValueError(hour)
        clock += timedelta(hours=12 * (match["half"].lower() == "p") - 12 * (int(hour) == 12))
    if int(minute) > 59 or float(second) >= 60 or clock > timedelta(days=1):
        raise ValueError(match[0])
    return clock


def _offset(zone: str | None) -> timezone | None:
    if zone is None:
        return None
    zone = re.sub("utc|gmt|z", "", zone, flags=re.IGNORECASE)
    if not zone:
        return UTC
    digits = zone[1:].replace(":", "")
    digits = digits.zfill(2).ljust(4, "0") if len(digits) < 3 else digits.zfill(4)
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if zone[0] == "-" else offset)
