"""What people are told of a series: a finding, and its sentence."""

from collections.abc import Callable
from typing import Literal, NamedTuple

Kind = Literal["spike", "level_shift", "drift", "stuck", "unit_change"]
DATA_FAULTS: frozenset[Kind] = frozenset({"stuck", "unit_change"})
"""The data went wrong; the others are changes of what is measured or, drift, of how well it is forecast."""


class Finding(NamedTuple):
    """Something that begins or ends, seen at the `row`-th step of a batch. Times are event times in ms; `ts` is that of
    the step at which it was seen.

    size and usual, by kind:
    spike        how far from what was expected; what was expected
    level_shift  how far the level moved; the level before
    unit_change  the factor; the level before
    stuck        the value; the longest run of one value before, in steps
    drift        mean absolute error of the forecasts lately; the usual one
    """

    row: int
    kind: Kind
    phase: Literal["begin", "end"]
    ts: int
    since: int
    size: float
    usual: float


def sentence(finding: Finding, series: str, time: Callable[[int], str]) -> str:
    """What a person is told, with the times as `time` writes them."""
    size, usual, since = finding.size, finding.usual, time(finding.since)
    if finding.phase == "end":
        return f"{series}: {ENDED[finding.kind]}, {time(finding.ts)}; it began {since}"
    match finding.kind:
        case "spike":
            return f"{series}: {usual + size:.6g} at {since} where about {usual:.6g} was expected"
        case "level_shift":
            way = "rose" if size > 0 else "fell"
            return f"{series}: the level {way} by {abs(size):.6g}, from about {usual:.6g}, {since}"
        case "unit_change":
            return (
                f"{series}: values are {factor(size)} what they were (about {usual:.6g}) since {since}: another unit?"
            )
        case "stuck":
            return f"{series}: stuck at {size:.6g} since {since}; at most {usual:.0f} steps in a row were equal before"
        case "drift":
            return (
                f"{series}: forecasts are off by {size:.6g} on average since {since}, usually by {usual:.6g}, "
                "and worse than the naive forecast"
            )


ENDED: dict[Kind, str] = {
    "spike": "back from a spike",
    "level_shift": "the level is the new normal, or back",
    "unit_change": "the other unit is the new normal, or back",
    "stuck": "the value changes again",
    "drift": "forecasts are as good as usual or as naive ones again, or of another model version",
}


def factor(ratio: float) -> str:
    """A ratio as people write it: 1000 times, 1/60 of."""
    return f"{ratio:.4g} times" if ratio >= 1 else f"1/{1 / ratio:.4g} of"
