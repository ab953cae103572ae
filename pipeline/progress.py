"""How far a long piece of work is, for whoever wants to know."""

from collections.abc import Callable

Progress = Callable[[int, int], object]
"""Called with how much is done, and of how much."""


def silent(done: int, total: int) -> None:
    """Progress nobody looks at."""
