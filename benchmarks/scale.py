"""Rebalances and restarts of a large fleet: a simulation, by figures that were measured on one machine.

    python benchmarks/scale.py [--series 10000000] [--instances 16] [--workers 2] [--partitions 128] [--json]

Records come evenly. A worker takes `--rate` a second, has its new partitions' windows back at `--restore` series a
second, one partition after another, and reads again what came since the last checkpoint of one that was killed; that
takes most of its time, where it has others to serve too. Who gets which partition is computed by kafka-python's
assignor, in its two rounds; a member takes up to `--join` seconds to come to one. Each line: how long partitions stood
still, and when all had caught up.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

STEP_S = 0.25
AGAIN_S = 1.5
"""Until a worker that was killed joins its group again."""
TOPIC = "points"
RESTORING = 0.8
"""The share of a worker's time that it restores in while it serves others."""
LATE_S = 2.0
"""A partition whose oldest record waits for longer has not caught up."""
Floats = npt.NDArray[np.float64]


class Fleet(NamedTuple):
    """A service at its size, and what its workers do."""

    series: int
    interval: float
    instances: int
    workers: int
    partitions: int
    rate: float
    restore: float
    replay: float
    start: float
    session: float
    checkpoint: float
    join: float

    @property
    def arrivals(self) -> float:
        """Records a second in a partition."""
        return self.series / self.interval / self.partitions


@dataclass
class Group:
    """The members of a group, and who has which partition."""

    fleet: Fleet
    owned: dict[str, set[int]] = field(default_factory=dict)
    assigning_s: float = 0.0
    """The longest that a leader took to assign."""

    def round(self, members: Sequence[str]) -> dict[str, set[int]]:
        """One round of a rebalance: what each member has after it."""
        numbers = set(range(self.fleet.partitions))
        cluster = SimpleNamespace(topics=lambda: [TOPIC], partitions_for_topic=lambda _: numbers)
        assignor = CooperativeStickyAssignor()
        joined = [SimpleNamespace(member_id=name, metadata=self._metadata(assignor, name)) for name in members]
        began = time.perf_counter()
        answers = assignor.assign(cluster, joined)
        self.assigning_s = max(self.assigning_s, time.perf_counter() - began)
        self.owned = {name: {each for _, numbers in answers[name].assignment for each in numbers} for name in members}
        return self.owned

    def _metadata(self, assignor: CooperativeStickyAssignor, name: str) -> Any:
        owned = [SimpleNamespace(topic=TOPIC, partitions=sorted(self.owned.get(name, ())))]
        return SimpleNamespace(topics=[TOPIC], owned_partitions=owned, generation_id=1, user_data=b"")


class Simulation:
    """Partitions with their backlogs, and workers that serve or restore them."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.group = fleet, Group(fleet)
        self.members = [f"{machine}-{number}" for machine in range(fleet.instances) for number in range(fleet.workers)]
        self.now = 0.0
        self.backlog, self.work = np.zeros(fleet.partitions), np.zeros(fleet.partitions)
        self.owner = np.full(fleet.partitions, -1)
        self.longest, self.moved, self.rebalances = np.zeros(fleet.partitions), 0, 0
        self._standing = np.zeros(fleet.partitions)
        self.up = True
        """Whether the brokers are."""
        self.group.round(self.members)
        self._own()

    def _own(self) -> None:
        self.owner[:] = -1
        for place, name in enumerate(self.members):
            self.owner[sorted(self.group.owned.get(name, ()))] = place

    def of(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """The partitions of these members."""
        return np.isin(self.owner, [self.members.index(name) for name in names])

    def stop(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """These members are gone: their partitions have nobody until a rebalance."""
        lost = self.of(names)
        self.owner[lost] = -1
        for name in names:
            self.group.owned.pop(name, None)
        return lost

    def rebalance(self, members: Sequence[str], killed: npt.NDArray[np.bool_] | None = None) -> None:
        """Two rounds, or one if nothing moves from one member to another; new owners restore what they got."""
        self.rebalances += 1
        for _ in range(2):
            before = self.owner.copy()
            self.pass_by(self.fleet.join)
            self.group.round(members)
            self.pass_by(self.group.assigning_s)
            self._own()
            new = (self.owner >= 0) & (self.owner != before)
            self.moved += int(new.sum())
            self.work[new] = self.restoring(killed[new] if killed is not None else np.zeros(new.sum(), bool))
            if not (self.owner < 0).any() and not new.any():
                break

    def restoring(self, killed: npt.NDArray[np.bool_]) -> Floats:
        """Seconds of a worker until each of these partitions is served: windows, and the tail where it was killed."""
        fleet = self.fleet
        tail = np.random.default_rng(0).uniform(0, fleet.checkpoint, len(killed)) * fleet.arrivals / fleet.replay
        return fleet.series / fleet.partitions / fleet.restore + np.where(killed, tail, 0.0)

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(max(1, round(seconds / STEP_S)) if seconds > 0 else 0):
            self._step()

    def _step(self) -> None:
        fleet, served = self.fleet, (self.owner >= 0) & (self.work <= 0) & self.up
        self.now += STEP_S
        self.backlog += fleet.arrivals * STEP_S
        left, count = np.flatnonzero((self.owner >= 0) & (self.work > 0)), len(self.members)
        working = left[np.unique(self.owner[left], return_index=True)[1]]  # one partition of each worker at a time
        restoring = np.bincount(self.owner[working], minlength=count)
        serving = np.bincount(self.owner[served], self.backlog[served], minlength=count)
        share = np.where(serving > 0, RESTORING, 1.0)
        room = np.where(restoring > 0, 1.0 - RESTORING, 1.0) * fleet.rate * STEP_S
        self.work[working] -= (share * STEP_S)[self.owner[working]]
        done = np.minimum(1.0, room / np.maximum(serving, 1e-9))
        self.backlog[served] *= 1.0 - done[self.owner[served]]
        self._standing = np.where(served, 0.0, self._standing + STEP_S)
        self.longest = np.maximum(self.longest, self._standing)

    def until_caught_up(self, at_most: float = 7200.0) -> None:
        """Let time pass until nothing waits for long."""
        end = self.now + at_most
        while self.now < end and (self.backlog / self.fleet.arrivals > LATE_S).any():
            self._step()


def machine(simulation: Simulation, *numbers: int) -> list[str]:
    """The workers of machines."""
    return [name for name in simulation.members if int(name.split("-")[0]) in numbers]


def others(simulation: Simulation, gone: Sequence[str]) -> list[str]:
    """All members but these."""
    return [name for name in simulation.members if name not in gone]


def rolling(simulation: Simulation) -> None:
    """Each machine in turn is ended by SIGTERM, and back after its start."""
    for number in range(simulation.fleet.instances):
        names = machine(simulation, number)
        simulation.stop(names)
        simulation.rebalance(others(simulation, names))
        simulation.pass_by(simulation.fleet.start)
        simulation.rebalance(simulation.members)
        simulation.until_caught_up()


def rolling_static(simulation: Simulation) -> None:
    """The same with --static: each gets its own partitions back."""
    for number in range(simulation.fleet.instances):
        names = machine(simulation, number)
        own = simulation.of(names)
        owners = simulation.owner[own]
        simulation.owner[own] = -1
        simulation.pass_by(simulation.fleet.start)
        simulation.owner[own] = owners
        simulation.work[own] = simulation.restoring(np.zeros(own.sum(), bool))
        simulation.until_caught_up()


def worker_killed(simulation: Simulation) -> None:
    """One worker is killed, and is started again: its predecessor leaves as it joins."""
    killed = simulation.stop(simulation.members[:1])
    simulation.pass_by(AGAIN_S)
    simulation.rebalance(simulation.members, killed)


def machine_lost(simulation: Simulation) -> None:
    """One machine is lost: its partitions wait for the session timeout."""
    names = machine(simulation, 0)
    killed = simulation.stop(names)
    simulation.pass_by(simulation.fleet.session)
    simulation.rebalance(others(simulation, names), killed)


def third_lost(simulation: Simulation) -> None:
    """A third of the machines are lost for ten minutes, then back."""
    names = machine(simulation, *range(0, simulation.fleet.instances, 3))
    killed = simulation.stop(names)
    simulation.pass_by(simulation.fleet.session)
    simulation.rebalance(others(simulation, names), killed)
    simulation.pass_by(600)
    simulation.rebalance(simulation.members)


def brokers_away(simulation: Simulation) -> None:
    """No broker answers for five minutes."""
    simulation.up = False
    simulation.pass_by(300)
    simulation.up = True


def all_started(simulation: Simulation) -> None:
    """All were killed at once, as by a power cut of five minutes, and are started together."""
    killed = simulation.stop(simulation.members)
    simulation.pass_by(300 + simulation.fleet.start)
    simulation.rebalance(simulation.members, killed)


SCENARIOS = (rolling, rolling_static, worker_killed, machine_lost, third_lost, brokers_away, all_started)


def outcomes(fleet: Fleet) -> Iterator[dict[str, Any]]:
    """What each scenario does to the fleet."""
    for scenario in SCENARIOS:
        simulation = Simulation(fleet)
        scenario(simulation)
        simulation.until_caught_up()
        yield {
            "what": (scenario.__doc__ or "").rstrip("."),
            "longest_stand_s": float(simulation.longest.max()),
            "stood": float((simulation.longest > 1).mean()),
            "moved": simulation.moved,
            "rebalances": simulation.rebalances,
            "assigning_s": round(simulation.group.assigning_s, 3),
            "over_after_s": simulation.now,
        }


def main() -> None:
    """Simulate, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = Fleet(10_000_000, 60, 16, 2, 128, 9_500, 6_500, 40_000, 2.5, 10, 30, 0.5)
    for name, value in defaults._asdict().items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = vars(parser.parse_args())
    as_json = options.pop("json")
    fleet = Fleet(**options)
    load = fleet.series / fleet.interval / (fleet.instances * fleet.workers * fleet.rate)
    found = []
    for each in outcomes(fleet):
        found.append(each)
        if not as_json:
            print(
                f"{each['what']}\n    {each['stood']:.0%} of the partitions stood still, for up to "
                f"{each['longest_stand_s']:.1f} s; {each['moved']} moved in {each['rebalances']} rebalances; "
                f"over after {each['over_after_s']:,.0f} s"
            )
    if as_json:
        print(json.dumps({"fleet": fleet._asdict(), "load": round(load, 3), "outcomes": found}))


if __name__ == "__main__":
    main()
