"""Progress callbacks of long-running work."""

from collections.abc import Callable

Progress = Callable[[int, int], object]
"""Called with how much is done, and the total."""


def silent(done: int, total: int) -> None:
    """Ignore progress."""
