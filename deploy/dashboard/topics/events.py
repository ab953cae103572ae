"""The input's records as values by target: as a service reads them, without its model's card."""

import logging
from collections.abc import Sequence

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import ONE_VALUE, Decoder
from pipeline.formats.paths import Paths
from pipeline.formats.values import named_values
from pipeline.log import Record

logger = logging.getLogger(__name__)

Value = tuple[str, str, int, float]
"""Series, target (empty where there is one only), time, value."""


class Values:
    """Reads the values of targets: of those that are given, else as the scores name them, else as the events do."""

    def __init__(self, features: tuple[str, ...] | None, paths: Paths) -> None:
        self._given, self._paths = features, paths
        self.targets: tuple[str, ...] = ()
        """As scores or forecasts name them; empty: not known yet."""
        self._decoders: dict[tuple[str, ...], Decoder] = {}
        self._said = False
        self.invalid = 0

    @property
    def name(self) -> str:
        """What the only target is called."""
        known = self.targets or self._given or ONE_VALUE
        return known[0]

    def read(self, record: Record) -> Sequence[Value]:
        """The values of a record, none if it is invalid."""
        if record.value is None:
            return ()
        for features in self._tried():
            try:
                return self._of(features, record)
            except InvalidEvent:
                continue
        try:
            return self._of(self._named(record), record)
        except (InvalidEvent, ValueError):
            self.invalid += 1
            return ()

    def _tried(self) -> Sequence[tuple[str, ...]]:
        if self._given:
            return (self._given,)
        return (self.targets,) if self.targets and self.targets != ONE_VALUE else (ONE_VALUE,)

    def _of(self, features: tuple[str, ...], record: Record) -> Sequence[Value]:
        if (decoder := self._decoders.get(features)) is None:
            if len(self._decoders) > 50:
                self._decoders.clear()
            decoder = self._decoders[features] = Decoder(features, paths=self._paths)
        events = decoder.decode(record)
        wanted = [(name, features.index(name)) for name in self.targets if name in features]
        wanted = wanted or [(features[0], 0)]
        if len(wanted) == 1:
            at = wanted[0][1]
            return [(event.series, "", event.ts, event.values[at]) for event in events]
        return [(event.series, name, event.ts, event.values[at]) for event in events for name, at in wanted]

    def _named(self, record: Record) -> tuple[str, ...]:
        """The names of its values, said once if there are several to choose from. Raises ValueError if it has none."""
        if not (named := named_values(record)):
            raise ValueError
        if len(named) > 1 and not self.targets and not self._said:
            self._said = True
            logger.info(f"events have {', '.join(map(repr, named))}: the first is shown; --features NAME shows another")
        return named
