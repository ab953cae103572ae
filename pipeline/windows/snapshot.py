"""The states of series as they were at one moment, read while the series go on: copy on write."""

from collections.abc import Callable, Iterable

from pipeline.windows.batch import SeriesState

StateOf = Callable[[str], SeriesState | None]
"""A copy of a series' state; None for one that is not there any more."""


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

    def keep(self, name: str, state_of: StateOf) -> None:
        """To be called before a series changes."""
        if name in self.unread:
            del self.unread[name]
            self._kept[name] = state_of(name)

    def take(self, state_of: StateOf) -> tuple[str, SeriesState | None]:
        """Another series and its state. Raises KeyError if all have been taken."""
        if self._kept:
            return self._kept.popitem()
        name, _ = self.unread.popitem()
        return name, state_of(name)
