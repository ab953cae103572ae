"""Which partitions a consumer in a group has, as its client tells of them between two polls."""

from collections import deque
from collections.abc import Iterable


class Assignment:
    """The partitions of one consumer. What the client tells counts from the next `take` on."""

    def __init__(self) -> None:
        self.owned: set[int] = set()
        self._told: deque[tuple[bool, set[int]]] = deque()

    def gain(self, partitions: Iterable[int]) -> None:
        """The client has these as well."""
        self._told.append((True, set(partitions)))

    def lose(self, partitions: Iterable[int]) -> None:
        """It has these no more."""
        self._told.append((False, set(partitions)))

    @property
    def moved(self) -> set[int]:
        """The partitions that have been told of since the last `take`."""
        return set[int]().union(*(partitions for _, partitions in self._told))

    @property
    def changed(self) -> bool:
        """Whether anything has been told since then."""
        return bool(self._told)

    def take(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The partitions that are new by now, and those that are gone; one in both was lost and assigned again."""
        before, kept = set(self.owned), set(self.owned)
        while self._told:
            gained, partitions = self._told.popleft()
            if gained:
                self.owned |= partitions
            else:
                self.owned -= partitions
                kept -= partitions
        return tuple(sorted(self.owned - kept)), tuple(sorted(before - kept))
