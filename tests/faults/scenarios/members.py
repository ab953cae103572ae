"""Members that join and leave, and open transactions of others."""

import contextlib
import time

from faults import BOTH, Figure, fault
from kafka import KafkaProducer
from load import PARTITIONS
from scenarios.killed import TAKEN_OVER, begin, under_load
from world import World

from pipeline.failpoint import STEPS


@fault(
    "rebalance storm, dynamic members: one of 3 leaves or joins every 2 s for 60 s",
    "each once; lag drains in 30 s",
    BOTH,
)
def storm(world: World) -> Figure:
    return come_and_go(world)


@fault("rebalance storm, static members", "the same", BOTH)
def static_storm(world: World) -> Figure:
    return come_and_go(world, "--static")


def come_and_go(world: World, *options: str) -> Figure:
    members = {name: world.serve(name, *options) for name in "abc"}
    with world.sending(rate=250):
        world.until_commit()
        began = time.monotonic()
        while time.monotonic() - began < 60:
            for name in members:
                members[name].terminate()
                world.wait(2)
                members[name].wait_for_exit()
                members[name] = world.serve(name, *options)
                world.wait(2)
    return Figure("drained", world.until_drained(), 30)


@fault(
    "a second member joins at each step",
    "no poll with an open transaction: 0 outputs from records already given away",
    BOTH,
    cases=STEPS,
)
def second_joins(world: World, step: str) -> None:
    begin(world, step)
    began = world.progress()
    with world.sending(rate=300):
        world.serve("a", failpoint=f"{step}:{under_load(world, step)}:hold={4 if world.workers == 1 else 8}")
        if step not in TAKEN_OVER:
            world.until(lambda: world.progress() > began, "nothing was committed")
            world.until_idle()
        world.serve("b")
        world.until(lambda: world.members() == 2, "two never joined")
        world.until_commit()


@fault("takeover while a foreign transaction is open on the state topic", "waits, or 75; then windows equal", BOTH)
def foreign_transaction(world: World) -> Figure:
    first = world.serve("a", supervised=False)
    with world.sending():
        world.until_commit()
        foreign = KafkaProducer(
            bootstrap_servers=world.bootstrap.split(","), transactional_id=f"{world.topic}-foreign", acks="all"
        )
        with contextlib.closing(foreign):
            foreign.init_transactions()
            foreign.begin_transaction()
            for partition in range(PARTITIONS):
                foreign.send(world.state, key=b"foreign", partition=partition)
            foreign.flush()
            first.kill()
            world.serve("b")
            world.until(lambda: world.members() == 1, "the first was not missed")
            world.wait(12)
            foreign.commit_transaction()
        return Figure("forecasts after its end", world.until_commit(), 35)
