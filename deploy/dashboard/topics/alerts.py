"""Which findings have begun and not ended."""

from pipeline.formats.alerts import Alert

MOST = 200_000
"""Most findings that are kept."""


class OpenAlerts:
    """Findings by series, target and kind, whichever way they are read: one of each is open at most."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, str], Alert] = {}
        self._ended: dict[tuple[str, str, str], int] = {}
        """When the newest one that has ended began."""

    def __len__(self) -> int:
        return len(self._open)

    def add(self, alert: Alert) -> None:
        """The begin or the end of a finding."""
        place = alert.series, alert.target or "", alert.kind
        held = self._open.get(place)
        if alert.phase == "end":
            if place in self._ended or len(self._ended) < MOST:
                self._ended[place] = max(alert.since, self._ended.get(place, alert.since))
            if held is not None and held.since <= alert.since:
                del self._open[place]
        elif (
            (held is None or alert.since > held.since)
            and alert.since > self._ended.get(place, alert.since - 1)
            and (held is not None or len(self._open) < MOST)
        ):
            self._open[place] = alert

    def clear(self) -> None:
        """Forget all."""
        self._open.clear()
        self._ended.clear()

    @property
    def newest_first(self) -> list[Alert]:
        """The open ones."""
        return sorted(self._open.values(), key=lambda alert: (-alert.since, alert.series, alert.target or ""))
