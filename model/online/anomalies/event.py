"""A step that is looked at closely."""

from typing import NamedTuple


class Event(NamedTuple):
    """One track's step, the `row`-th of its batch."""

    row: int
    value: float
    last: float
    """The value before."""
    level: float
    """The mean of the values before."""
    error: float
    naive: float
    novelty: list[float]
    step: int
    ts: int
    missing: int
    """Steps that are missing before it."""
    enough: bool
    """Whether there have been enough for findings of values; the flags of errors say so themselves."""
    jumped: bool
    stuck: bool
    drifts: bool
    """Whether the forecast's errors have long been worse than usual and than the naive ones."""
    recovered: bool
    another: bool
    """Whether another version forecast it than the step before."""
