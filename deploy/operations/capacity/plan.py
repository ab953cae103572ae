"""From what a machine can do to how many of them a fleet needs, with their partitions, memory and traffic."""

import math
from dataclasses import dataclass
from typing import NamedTuple

BUSY = 0.6
"""The share of what a machine can do that it is given: an outage of 10 minutes is caught up with in 15."""
FULL = 0.8
"""The share of its memory."""
ROUNDING = 1e-9
PER_WORKER = 4
"""Partitions for each worker: when members come or go, the shares are even to a quarter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a machine can do with a model."""

    one: float
    """Records a second of one process."""
    whole: float
    """Records a second of `workers` processes together."""
    workers: int
    memory: int
    """Bytes that all of them may have."""
    process: int
    """Bytes of a worker without series."""
    series: float
    """Bytes of a series in memory."""
    state: float
    """Bytes of a series in the state topic, before compression."""
    event: float
    """Bytes of an input record."""
    forecast: float
    """Bytes of an output record."""

    def most_series(self, every_s: float) -> int:
        """How many series this machine takes that each have a value so often."""
        return int(min(self.whole * BUSY * every_s, self.room))

    @property
    def room(self) -> float:
        """How many series have room in its memory."""
        return max(0.0, FULL * self.memory - self.workers * self.process) / self.series


class Plan(NamedTuple):
    """What a fleet needs."""

    rate: float
    """Records a second."""
    instances: int
    """Machines like this one, without a spare one."""
    bound: str
    """What the number is due to: cores or memory."""
    workers: int
    """Of all of them."""
    partitions: int
    memory: float
    """Bytes of an instance."""
    state: float
    """Bytes of the state topic, before compression and replication."""
    network_in: float
    network_out: float
    """Bytes a second of all instances, from and to the brokers."""
    catch_up_s: float
    """How long it takes to catch up with a minute's outage."""


def plan(capacity: Capacity, series: int, every_s: float, series_limit: int, checkpoint_s: float) -> Plan:
    """What so many series need that each have a value every so many seconds."""
    rate = series / every_s
    by_cores = math.ceil(rate / (capacity.whole * BUSY) - ROUNDING)
    by_memory = math.ceil(series / capacity.room - ROUNDING) if capacity.room >= 1 else math.inf
    instances = int(max(1, by_cores, by_memory)) if by_memory < math.inf else 0
    workers = instances * capacity.workers
    least = max(PER_WORKER * workers, math.ceil(series / series_limit))
    load = rate / (max(1, instances) * capacity.whole)
    written = min(rate, series / checkpoint_s)  # of its changed series, each is written once a pass
    return Plan(
        rate=rate,
        instances=instances,
        bound="memory" if by_memory > by_cores else "cores",
        workers=workers,
        partitions=math.ceil(least / max(1, workers)) * max(1, workers),
        memory=capacity.workers * capacity.process + capacity.series * series / max(1, instances),
        state=capacity.state * series,
        network_in=rate * capacity.event,
        network_out=rate * capacity.forecast + written * capacity.state,
        catch_up_s=60 * load / (1 - load),
    )
