"""What people are told of a series: a finding, and its sentence."""

from collections.abc import Callable
from typing import Literal, NamedTuple

Kind = Literal["spike", "level_shift", "drift", "stuck", "unit_change"]
Phase = Literal["begin", "end"]
Outcome = Literal["back", "settled", "replaced"]
"""How a finding ended: all is as it was before, what is now is taken as usual, or another model version forecasts."""
DATA_FAULTS: frozenset[Kind] = frozenset({"stuck", "unit_change"})
"""The data went wrong; the others are changes of what is measured or, drift, of how well it is forecast."""


class Finding(NamedTuple):
    """Something that begins or ends, seen at the `row`-th step of a batch. Times are event times in ms; `ts` is that of
    the step at which it was seen.

    value, usual and size, by kind, the former two as they were measured or forecast:
    spike        the value; what was forecast for it; how far it was above
    level_shift  the mean of the values from `since` until it was seen; that of the values a season before these, or
                 without a season of those before; how far the former is above
    unit_change  the same two; the factor
    stuck        the value; the longest run of one value before, in steps; the value
    drift        mean absolute error of the forecasts lately; the usual one; the former
    """

    row: int
    kind: Kind
    phase: Phase
    ts: int
    since: int
    size: float
    value: float
    usual: float
    outcome: Outcome | None = None
    """Of an end."""


def sentence(finding: Finding, series: str, time: Callable[[int], str]) -> str:
    """What a person is told, with the times as `time` writes them."""
    since, value, usual = time(finding.since), number(finding.value), number(finding.usual)
    if finding.outcome:
        ended = ENDED[finding.kind, finding.outcome].format(value=value, usual=usual)
        return f"{series}: {ended}, {time(finding.ts)}; it began {since}"
    match finding.kind:
        case "spike":
            return f"{series}: {value} at {since}, where {usual} was forecast"
        case "level_shift":
            way = "rose" if finding.size > 0 else "fell"
            return f"{series}: the level {way} by {number(abs(finding.size))} at {since}, from about {usual} to {value}"
        case "unit_change":
            change = f"{factor(finding.size)} what they were, about {value} instead of {usual},"
            return f"{series}: values are {change} since {since}: another unit?"
        case "stuck":
            return f"{series}: stuck at {value} since {since}; at most {usual} steps in a row were equal before"
        case "drift":
            return (
                f"{series}: forecasts are off by {value} on average since {since}, usually by {usual}, "
                "and worse than the naive forecast"
            )


ENDED: dict[tuple[Kind, Outcome], str] = {
    ("spike", "back"): "back from a spike of {value}",
    ("level_shift", "back"): "the level is back where it was",
    ("level_shift", "settled"): "the new level, about {value}, is taken as usual from now on",
    ("unit_change", "back"): "values are in the unit of before again",
    ("unit_change", "settled"): "the new unit is taken as usual from now on",
    ("stuck", "back"): "the value changes again after {value}",
    ("drift", "back"): "forecasts have recovered, and are off by {value} on average, usually by {usual}",
    ("drift", "replaced"): "another model version forecasts now, and is judged by its own errors",
}


def number(value: float) -> str:
    """Six digits, or all before the point of what people count."""
    return f"{value:,.0f}" if 1e6 <= abs(value) < 1e15 else f"{value + 0.0:,.6g}"


def factor(ratio: float) -> str:
    """A ratio as people write it: 1000 times, 1/60 of."""
    return f"{ratio:.4g} times" if ratio >= 1 else f"1/{1 / ratio:.4g} of"
