"""Whether values are in another unit than before."""

from math import log
from typing import NamedTuple

RATIOS = (1000.0, 3600.0, 60.0, 100.0, 3.6)
"""Of units that people mix up: thousands, hours or minutes and seconds, percent, km/h and m/s."""
LARGE = 30.0
NEAR, NEAR_LARGE = 0.06, 0.7
"""How far, in logarithms, the levels' ratio may be from a known one, and from a large one."""
CLOSE, CLOSE_SPREAD, SPREAD = 0.02, 1.2, 1.5
"""How far that of the moves may be: nearer to the unit's factor than to 1, or if the levels' ratio is so close, by so
many times the factor's logarithm; and at most."""


class Unit(NamedTuple):
    """A value of before in the unit of now: factor * value + zero."""

    factor: float
    zero: float = 0.0

    @property
    def is_large(self) -> bool:
        """Whether few steps tell it from anything else."""
        return not 1 / LARGE < self.factor < LARGE

    @property
    def inverse(self) -> "Unit":
        """From now to before."""
        return Unit(1 / self.factor, -self.zero / self.factor)


FAHRENHEIT = Unit(1.8, 32.0)
UNITS = [unit for ratio in RATIOS for unit in (Unit(ratio), Unit(1 / ratio))] + [FAHRENHEIT, FAHRENHEIT.inverse]


def unit_between(now: float, old: float, moves: float, old_moves: float) -> Unit | None:
    """The known unit in which both the level and the moves from step to step are what they were, if there is one.

    now, old: mean sizes of some values, and of what they would have been; moves, old_moves: of their moves. A level
    shift leaves the moves as they were.
    """
    if not min(now, old, moves, old_moves) > 0:
        return None
    units = [unit for unit in UNITS if unit.factor * old + unit.zero > 0]
    away, unit = min((abs(log(now / (unit.factor * old + unit.zero))), unit) for unit in units)
    if away > (NEAR_LARGE if unit.is_large else NEAR):
        return None
    spread = min(abs(log(unit.factor)) * (CLOSE_SPREAD if away < CLOSE else 0.5), SPREAD)
    return unit if abs(log(moves / old_moves / unit.factor)) < spread else None
