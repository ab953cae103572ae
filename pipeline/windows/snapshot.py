"""The states of series as they were at one moment, read while the series go on: copy on write."""

from collections.abc import Callable, Iterable, Sequence

from pipeline.windows.batch import SeriesState

StatesOf = Callable[[Sequence[str]], Sequence[SeriesState | None]]
"""Copies of the states of series; None for one that is not there any more."""


class Snapshot:
    """Some series' states: each is copied when it is taken, or right before it changes if that comes first."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.unread = dict.fromkeys(names)
        """The series that have not changed since, and have not been taken."""
        self.names = list(self.unread)
        """All of its series."""
        self._kept: dict[str, SeriesState | None] = {}

    def __len__(self) -> int:
        """The states that are still to be taken."""
        return len(self.unread) + len(self._kept)

    def keep(self, names: Iterable[str], states_of: StatesOf) -> None:
        """To be called before these series change."""
        if kept := [name for name in dict.fromkeys(names) if name in self.unread]:
            self._kept |= zip(kept, states_of(kept), strict=True)
            for name in kept:
                del self.unread[name]

    def take(self, most: int, states_of: StatesOf) -> list[tuple[str, SeriesState | None]]:
        """Up to so many other series and their states; none if all have been taken."""
        taken = [self._kept.popitem() for _ in range(min(most, len(self._kept)))]
        names = [self.unread.popitem()[0] for _ in range(min(most - len(taken), len(self.unread)))]
        return [*taken, *zip(names, states_of(names), strict=True)]
