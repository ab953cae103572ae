"""What several workers say of themselves, as one service: alive and ready if all are, metrics with a label `worker`."""

import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from deploy.serving.monitoring.exposition import Exposition
from deploy.serving.monitoring.group_offsets import GroupOffsets
from deploy.serving.monitoring.stats import ServiceStats
from deploy.serving.workers.place import Place
from deploy.serving.workers.said import Asked

WITHIN_S = 2.0
"""How long a worker may take to answer, on a machine where it has much to do."""
SILENT_S = 30.0
"""One that has said nothing for so long is not alive."""
FAMILY = re.compile(r"(?=^# HELP )", re.MULTILINE)
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(\{?)", re.MULTILINE)


class GroupReport:
    """Asks the workers; where their group stands is kept here, the same for all of them."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        self._stats = ServiceStats("forecasts", workers={})
        self._group = Exposition(lambda: self._stats, "group")
        self._asking = ThreadPoolExecutor(2 * len(places), "asking")

    @property
    def offsets(self) -> GroupOffsets:
        """Where the group stands."""
        return self._stats.offsets

    def hanging(self) -> str:
        """Which worker is not alive, and why; one that is started again is none."""
        for place, said in self._ask("hanging"):
            if said:
                return f"worker {place.number}: {said}"
            if said is None and place.worker and time.monotonic() - place.worker.heard > SILENT_S:
                return f"worker {place.number} does not answer"
        return ""

    def missing(self) -> str:
        """Which worker does not serve yet, and what it lacks."""
        lacking = ((place, "it is not there yet" if said is None else said) for place, said in self._ask("missing"))
        return next((f"worker {place.number}: {said}" for place, said in lacking if said), "")

    def metrics(self) -> bytes:
        """Those of each worker, those of the group once, and which workers there are."""
        said = {str(place.number): text for place, text in self._ask("metrics")}
        self._stats.workers = {
            str(place.number): (said[str(place.number)] is not None, place.restarts) for place in self._places
        }
        labelled = [_labelled(text, number) for number, text in said.items() if text]
        return _merged([self._group.render().decode(), *labelled]).encode()

    def _ask(self, asked: Asked) -> Iterable[tuple[Place, str | None]]:
        """All at once: one that is slow to answer doesn't add to the others."""
        return zip(self._places, self._asking.map(lambda place: place.ask(asked, WITHIN_S), self._places), strict=True)


def _labelled(text: str, worker: str) -> str:
    """Metrics whose samples have the worker's label too."""
    label = f'worker="{worker}"'
    return SAMPLE.sub(lambda match: f"{match[1]}{{{label}{',' if match[2] else '}'}", text)


def _merged(texts: Iterable[str]) -> str:
    """Metrics of several sources, all samples of a name together below one header."""
    families: dict[str, list[str]] = {}
    for text in texts:
        for family in filter(None, FAMILY.split(text)):
            help_line, type_line, samples = family.split("\n", 2)
            families.setdefault(f"{help_line}\n{type_line}\n", []).append(samples)
    return "".join(header + "".join(samples) for header, samples in families.items())
