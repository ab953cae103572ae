"""Models and states at the limits of what a transaction and a record can hold."""

import contextlib

from faults import BOTH, Figure, fault
from kafka.admin import ConfigResource
from load import MINUTE, PARTITIONS, Load, rows
from oracle import Oracle, read
from service import Unexpected
from untrained import slow_model
from world import World

from pipeline.state.records import PART_PREFIX

BACKLOG, WAITING, STEPS = 10_000, 1_000, 12_000
SMALL = 4_096
"""The least record size of a state topic, in bytes."""


@fault(
    "a slow model with a backlog: a full poll takes longer than a transaction may",
    "less is taken on at once: each once, 0 restarts",
    BOTH,
    alone=True,
)
def slow_with_a_backlog(world: World) -> Figure:
    path = slow_model(world.folder / "slow.onnx")
    world.model, world.oracle = str(path), Oracle(path)
    world.load.send(BACKLOG)
    service = world.serve()
    world.until_drained(600)
    return Figure("restarts", len(service.codes), 0, "")


@fault(
    "states larger than a record, and more waiting steps than allowed; killed 3 times",
    "states take several records, the earliest steps go on before their lateness, which is said; outputs equal",
    BOTH,
)
def states_at_their_bounds(world: World) -> None:
    lateness = STEPS * MINUTE
    world.log.create_topic(world.state, PARTITIONS, compacted=True)
    limit = ConfigResource("topic", world.state, {"max.message.bytes": str(SMALL)})
    world.admin.alter_configs([limit])
    limits = ("--waiting-limit", str(WAITING), "--series-limit", str(WAITING), "--lateness", f"{STEPS}m")
    service = world.serve("a", "--static", *limits)
    with contextlib.closing(Load(world.bootstrap, world.topic, rows(2 * PARTITIONS))) as load:
        for _ in range(3):
            load.send(2 * BACKLOG)
            world.until_drained()
            service.kill()
        load.send(BACKLOG)
        world.until_drained()
    world.stop()
    if "the earliest are taken before their lateness" not in service.stderr:
        raise Unexpected(f"that is not said: {service.stderr}")
    if not any((each.key or b"").startswith(PART_PREFIX) for each in read(world.log, world.state)[0]):
        raise Unexpected("no state took several records")
    world.expected = world.oracle.expected_output(
        read(world.log, world.topic), limit=WAITING, lateness=lateness, waiting_limit=WAITING
    )
