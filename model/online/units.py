"""Whether values are in another unit than before."""

from math import log
from typing import NamedTuple

RATIOS = (1000.0, 3600.0, 60.0, 100.0, 24.0, 10.0, 3.6, 2.20462, 1.60934, 3.28084, 2.54)
"""Of units that people mix up: thousands, hours and seconds, percent, days, km/h, pounds, miles, feet, inches."""
LARGE = 8.0
NEAR, NEAR_LARGE = 0.08, 0.7
"""How far, in logarithms, the levels' ratio may be from a known one, and from a large one."""
SPREAD = 1.5
"""How far, at most, that of the moves may be."""


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
    unit = min(units, key=lambda unit: abs(log(now / (unit.factor * old + unit.zero))))
    if abs(log(now / (unit.factor * old + unit.zero))) > (NEAR_LARGE if unit.is_large else NEAR):
        return None
    near = min(abs(log(unit.factor)) / 2, SPREAD)
    return unit if abs(log(moves / old_moves / unit.factor)) < near else None
