"""Brokers that are killed or hang, and networks between."""

import time
from collections.abc import Callable

from faults import BOTH, Figure, fault
from world import World

trials = 200
"""How many answers to EndTxn are lost."""
EXTRA_MIB = 100


@fault(
    "kill the partition leader", "retry, or exit 75 and restart: each once; forecasts again in 30 s", BOTH, alone=True
)
def leader_killed(world: World) -> Figure:
    return killed(world, lambda: world.cluster.leader(world.topic, 0))


@fault("kill the group coordinator", "the same", BOTH, alone=True)
def group_coordinator_killed(world: World) -> Figure:
    return killed(world, lambda: world.cluster.group_coordinator(world.group))


@fault("kill the transaction coordinator", "the same", alone=True)
def transaction_coordinator_killed(world: World) -> Figure:
    return killed(world, lambda: world.cluster.transaction_coordinator(f"{world.group}-a"))


def killed(world: World, which: Callable[[], int]) -> Figure:
    world.serve()
    with world.flowing():
        world.again()
        node = which()
        world.cluster.kill(node)
        again = all_again(world)
        world.cluster.restart(node)
        all_again(world)
    return Figure("forecasts again", again, 30)


def all_again(world: World) -> float:
    """Seconds until every partition goes on."""
    before: dict[int, int] = {}

    def known() -> bool:
        before.update({partition: where.offset for partition, where in world.positions().items()})
        return bool(before)

    asked = world.until(known, "no coordinator")
    return asked + world.until(
        lambda: bool(now := world.positions()) and all(now[each].offset > offset for each, offset in before.items()),
        "not all partitions go on",
        90,
    )


@fault(
    "network partition of 5 s and of 60 s",
    "retry, or exit 75 and restart: each once; healed in 20 s",
    BOTH,
    cases=(5, 60),
    lane=True,
)
def partitioned(world: World, seconds: int) -> Figure:
    world.serve()
    with world.flowing(rate=250):
        world.again()
        with world.lane.cut():
            world.lasting(seconds)
        healed = all_again(world)
    return Figure("healed", healed, 20)


@fault("every connection reset for 3 s", "the same", BOTH, lane=True)
def reset(world: World) -> Figure:
    world.serve()
    with world.flowing():
        world.again()
        with world.lane.reset():
            world.lasting(3)
        healed = all_again(world)
    return Figure("healed", healed, 20)


@fault("200 ms latency on every response", "continues: each once; nothing hangs for 30 s", BOTH, lane=True)
def latency(world: World) -> list[Figure]:
    with world.lane.toxic("latency", "downstream", latency=200, jitter=20):
        world.serve()
        with world.flowing():
            begun = world.again()
            slowest = max(world.again() for _ in range(20))
    return [Figure("begun", begun, 60), Figure("longest stand", slowest, 30)]


@fault("the response to EndTxn lost, 200 times", "retried, or 75 and restart: each once")
def end_transaction_lost(world: World) -> Figure:
    world.serve_from = world.cluster.lost_answers_bootstrap
    service = world.serve()
    with world.flowing():
        world.again()
        world.cluster.lost_answers.lose(trials)
        world.until(lambda: world.cluster.lost_answers.left == 0, f"fewer than {trials} were lost", 600)
    return Figure("restarts", len(service.codes), trials, "")


@fault("brokers as slow as 20 KB/s for 60 s", "slows down; lost 0; memory <= baseline + 100 MiB", BOTH, lane=True)
def slow(world: World) -> Figure:
    service = world.serve()
    with world.flowing():
        world.again()
        usual = service.peak()
        with world.lane.toxic("bandwidth", "upstream", "downstream", rate=20):
            world.lasting(60)
            peak = service.peak()
        all_again(world)
    return Figure("more memory", max(peak, service.peak()) - usual, EXTRA_MIB, "MiB")


@fault(
    "all brokers hang for 2 minutes",
    "waits, or 75 and restart; lost 0; memory <= baseline + 100 MiB",
    BOTH,
    alone=True,
)
def brokers_hang(world: World) -> list[Figure]:
    service = world.serve()
    with world.flowing(rate=150):
        world.again()
        usual = service.peak()
        with world.cluster.stopped():
            began = time.monotonic()
            peak = usual
            while time.monotonic() - began < 120:
                world.lasting(5)
                peak = max(peak, service.peak())
        again = all_again(world)
        peak = max(peak, service.peak())
    return [Figure("more memory", peak - usual, EXTRA_MIB, "MiB"), Figure("forecasts again", again, 60)]
