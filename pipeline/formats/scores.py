"""The codec of live scores: a series' errors in one closed bucket of event time."""

import msgspec


class ModelScores(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the forecasts of one version for one target, an element per scored step.

    A mean is a sum divided by its count: `squared_error / count` is the mean squared error, `inside / intervals` the
    coverage.
    """

    model: str
    """NAME/VERSION; naive/48 for forecasts of the seasonal naive."""
    target: str
    count: list[int]
    """Forecasts whose actual value was observed."""
    squared_error: list[float]
    absolute_error: list[float]
    naive_squared_error: list[float]
    """Of the seasonal naive's forecasts for the same steps from the same origins."""
    naive_absolute_error: list[float]
    intervals: list[int]
    """Of the forecasts counted, those with an interval."""
    inside: list[int]
    width: list[float]
    winkler: list[float]


class SeriesScores(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of one series in one bucket. Times are epoch milliseconds.

    A series may have several records of one bucket if it expired within it.
    """

    series: str
    start: int
    """When the bucket begins; an actual value belongs to the bucket that holds its time."""
    until: int
    """The time of the last value in it."""
    steps: list[int]
    """The scored steps ahead."""
    naive: int
    """The lag of the seasonal naive, in steps; 1 repeats the last value."""
    coverage: float | None = None
    """That of the intervals."""
    scale: dict[str, float | None]
    """By target: the seasonal naive's mean absolute error one step ahead in the series' life so far, the denominator of
    scaled errors."""
    unscored: dict[str, list[int]]
    """By target and scored step: forecasts for steps that were never observed."""
    scores: list[ModelScores]


encode_scores = msgspec.json.Encoder().encode
"""A record's value, as JSON."""
_decode = msgspec.json.Decoder(SeriesScores).decode
_SUMS = tuple(name for name in ModelScores.__struct_fields__ if name not in ("model", "target"))


def decode_scores(value: bytes) -> SeriesScores:
    """A record's value. Raises msgspec.DecodeError, for sums that are not of each step too."""
    found = _decode(value)
    sums = [*found.unscored.values(), *(getattr(each, name) for each in found.scores for name in _SUMS)]
    if {len(each) for each in sums} - {len(found.steps)} or found.unscored.keys() != found.scale.keys():
        raise msgspec.ValidationError("there is not a sum for each step and target")
    return found
