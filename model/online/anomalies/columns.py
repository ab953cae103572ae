"""The columns of a track's state."""

from model.online.tracks import Field, Fields


class Number:
    """<i8: counts of steps, the state, steps and times in ms."""

    VALUES, ERRORS, NAIVES, SAID, STEP, RUN, REPEATS, BY = range(8)
    LONGEST_RUN, RUN_TS, WORSE, WORSE_TS, STATE, MISSING, AGE, BACK, QUIET, SINCE, SINCE_TS = range(8, 19)
    """BY: the version of the newest forecast that there was an error of. WORSE: on how many steps in a row errors have
    been worse than usual; WORSE_TS: when the first of these was, also while a drift lasts, else 0."""
    ALL = 19


class Mean:
    """<f8: exponentially weighted means."""

    LEVEL, SHORT, LONG, DAYS, OFFSET, SMALL, SIZE, MOVE, NAIVE, ERROR, USUAL = range(11)
    """Of the value over half a day, a few steps, thousands of steps, and some days; of the naive error over a few
    steps. Of sizes: the value's over very few steps, and over many, its moves', the naive error's, and the forecast's
    error's, lately and for long."""
    ALL = 11


class Case:
    """<f8: what is being looked into, from when something may have changed."""

    LAST, LAST_OLD, BASE, ANCHOR, SIZE, NOW, OLD, MOVES, OLD_MOVES, OFFSET, USUAL_SIZE, USUAL_MOVE, JUMP, ERROR = range(
        14
    )
    LEVEL, TOTAL, BEFORE, VALUE, USUAL = range(14, 19)
    """What is said of it: the level before; sums of its values, and of those a season before, or of that level; its
    first value and what was forecast for it, and once it is a shift or a unit, the means of these sums."""
    ALL = 19


class Distance:
    """The distances from what was expected, which have records each."""

    LEVEL, SHORT, ERROR, NAIVE, OFFSET, SMALL = range(6)
    """Of the value over half a day from that of thousands of steps, and over a few steps from that of some days; errors
    of the forecast, and of the seasonal naive one; the mean of the latter over a few steps; and how many times smaller
    the value is than usual."""
    ALL = 6


class State:
    """What is going on in a track: bits of Number.STATE."""

    CASE, SUSTAINED, SHIFT, UNIT, STUCK, DRIFT = (1 << bit for bit in range(6))
    """CASE: something may have changed, its kind not yet known; SUSTAINED: in the mean of a few steps."""


DISTURBED = State.CASE | State.SHIFT | State.UNIT | State.STUCK
"""What is going on while nothing is learnt of distances and errors."""
RECORDS = 3
FIELDS: Fields = {
    "anomaly_numbers": Field("<i8", (Number.ALL,)),
    "anomaly_means": Field("<f8", (Mean.ALL,)),
    "anomaly_records": Field("<f4", (RECORDS, Distance.ALL)),
    "anomaly_case": Field("<f8", (Case.ALL,)),
}
