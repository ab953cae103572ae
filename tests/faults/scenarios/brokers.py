"""Brokers that are killed or hang, and faulty networks."""

import time
from collections.abc import Callable

from faults import BOTH, Figure, fault
from world import World

LOST_RESPONSES = 200
"""How many responses to EndTxn are lost."""
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
    return killed(world, lambda: world.cluster.transaction_coordinator(world.transactional_id("a")))


def killed(world: World, which: Callable[[], int]) -> Figure:
    world.serve()
    with world.sending():
        world.until_commit()
        node = which()
        world.cluster.kill(node)
        again = world.until_all_commit()
        world.cluster.restart(node)
        world.until_all_commit()
    return Figure("forecasts again", again, 30)


@fault(
    "network partition of 5 s and of 60 s",
    "retry, or exit 75 and restart: each once; healed in 20 s",
    BOTH,
    cases=(5, 60),
    lane=True,
)
def partitioned(world: World, seconds: int) -> Figure:
    world.serve()
    with world.sending(rate=250):
        world.until_commit()
        with world.lane.cut():
            world.wait(seconds)
        healed = world.until_all_commit()
    return Figure("healed", healed, 20)


@fault("every connection reset for 3 s", "the same", BOTH, lane=True)
def reset(world: World) -> Figure:
    world.serve()
    with world.sending():
        world.until_commit()
        with world.lane.reset():
            world.wait(3)
        healed = world.until_all_commit()
    return Figure("healed", healed, 20)


@fault("200 ms latency on every response", "continues: each once; nothing hangs for 30 s", BOTH, lane=True)
def latency(world: World) -> list[Figure]:
    with world.lane.toxic("latency", "downstream", latency=200, jitter=20):
        world.serve()
        with world.sending():
            begun = world.until_commit()
            slowest = max(world.until_commit() for _ in range(20))
    return [Figure("begun", begun, 60), Figure("longest stand", slowest, 30)]


@fault("the response to EndTxn lost, 200 times", "retried, or 75 and restart: each once")
def end_transaction_lost(world: World) -> Figure:
    world.serve_from = world.cluster.lost_answers_bootstrap
    service = world.serve()
    with world.sending():
        world.until_commit()
        world.cluster.lost_answers.lose(LOST_RESPONSES)
        world.until(lambda: world.cluster.lost_answers.left == 0, f"fewer than {LOST_RESPONSES} were lost", 600)
    return Figure("restarts", len(service.codes), LOST_RESPONSES, "")


@fault("brokers as slow as 20 KB/s for 60 s", "slows down; lost 0; memory <= baseline + 100 MiB", BOTH, lane=True)
def slow(world: World) -> Figure:
    service = world.serve()
    with world.sending():
        world.until_commit()
        usual = service.peak()
        with world.lane.toxic("bandwidth", "upstream", "downstream", rate=20):
            world.wait(60)
            peak = service.peak()
        world.until_all_commit()
    return Figure("more memory", max(peak, service.peak()) - usual, EXTRA_MIB, "MiB")


@fault(
    "all brokers hang for 2 minutes",
    "waits, or 75 and restart; lost 0; memory <= baseline + 100 MiB",
    BOTH,
    alone=True,
)
def brokers_hang(world: World) -> list[Figure]:
    service = world.serve()
    with world.sending(rate=150):
        world.until_commit()
        usual = service.peak()
        with world.cluster.stopped():
            began = time.monotonic()
            peak = usual
            while time.monotonic() - began < 120:
                world.wait(5)
                peak = max(peak, service.peak())
        again = world.until_all_commit()
        peak = max(peak, service.peak())
    return [Figure("more memory", peak - usual, EXTRA_MIB, "MiB"), Figure("forecasts again", again, 60)]
