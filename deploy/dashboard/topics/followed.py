"""A topic that is followed: how far it has been read, of what comes and of the past."""

from dataclasses import dataclass, field

from pipeline.log import Bounds


@dataclass(slots=True)
class Followed:
    """A topic that is followed. Offsets are by partition."""

    kind: str
    name: str
    id: str = ""
    """Empty while it does not exist."""
    bounds: dict[int, Bounds] = field(default_factory=dict)
    """As last seen."""
    positions: dict[int, int] = field(default_factory=dict)
    """The next to be read of what comes."""
    behind: dict[int, int] = field(default_factory=dict)
    """The oldest that was read of the past."""
    floor: dict[int, int] = field(default_factory=dict)
    """The oldest that is to be read."""
    newest: dict[int, int] = field(default_factory=dict)
    """The newest record that was read: after it there may be markers of transactions."""
    skipped: int = 0
    """Records that came too fast to be read."""
    past: int = 0
    """Records of the past that are to be read, in all."""
    due: float = 0.0
    refused: str = ""
    """Why it may not be read."""

    @property
    def left(self) -> int:
        """Records of the past that are still to be read."""
        return sum(max(0, at - self.floor[number]) for number, at in tuple(self.behind.items()))

    @property
    def waiting(self) -> int:
        """What has come and is still to be read."""
        return sum(max(0, each.end - self.positions.get(number, 0)) for number, each in tuple(self.bounds.items()))

    def skip(self, left: int) -> tuple[int, int]:
        """Go on with the newest `left` records of each partition; how many are to be read as the past, or never.

        They become a part of the past where all of the past has been read.
        """
        later = lost = 0
        for number, (_, end) in self.bounds.items():
            at, to = self.positions[number], max(self.positions[number], end - left)
            if self.behind[number] <= self.floor[number]:
                self.floor[number], self.behind[number] = at, to
                later += to - at
            else:
                lost += to - at
            self.positions[number] = to
        self.past, self.skipped = self.past + later, self.skipped + lost
        return later, lost

    @property
    def ends(self) -> dict[int, Bounds]:
        """The bounds; where all was read that has come, the end is after the newest record."""
        return {number: Bounds(each.start, self._end(number, each)) for number, each in self.bounds.items()}

    def _end(self, number: int, bounds: Bounds) -> int:
        if self.positions.get(number, -1) < bounds.end:
            return bounds.end
        if number in self.newest:
            return min(bounds.end, self.newest[number] + 1)
        floor = self.floor.get(number, bounds.start)
        return floor if self.behind.get(number, bounds.end) <= floor else bounds.end

    def reset(self, identity: str) -> None:
        """It is another topic now, or none."""
        self.id, self.bounds, self.positions, self.behind, self.floor = identity, {}, {}, {}, {}
        self.newest, self.skipped = {}, 0
        self.past, self.due, self.refused = 0, 0.0, ""
