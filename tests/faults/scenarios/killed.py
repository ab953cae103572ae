"""Services that are killed, suspended, or terminated."""

import random
import time

from faults import BOTH, Figure, fault
from load import RECORDS
from service import SESSION_S, Unexpected
from world import World

from pipeline.failpoint import STEPS

LATER = {"offsets-sent": 7, "pass-begun": 2, "pass-sent": 2, "pass-committed": 2}
"""The count at which a step is past a new group's first checkpoint; other steps use the fifth."""
FENCED = {
    "exactly-once": (*STEPS[: STEPS.index("committed")], "pass-begun", "pass-sent"),
    "at-least-once": (*STEPS[: STEPS.index("committed")], "pass-sent"),
}
"""The steps after which something would still be committed. At least once a checkpoint that has begun is given up in
the next poll.
"""
PASS = ("pass-begun", "pass-sent", "pass-committed")
TAKEN_OVER = ("assigned", "restored", "replayed")


def under_load(world: World, step: str) -> int:
    """The count at which a step is reached under load."""
    if step == "offsets-sent" and world.guarantee == "at-least-once":
        return LATER["pass-sent"]
    return LATER.get(step, 1 if step in TAKEN_OVER else 5)


def begin(world: World, step: str) -> None:
    """An earlier run, for the steps that restore its state."""
    if step in TAKEN_OVER:
        life = world.serve()
        world.load.send(RECORDS // 10)
        world.until_drained()
        life.terminate()
        life.wait_for_exit()


@fault(
    "kill -9 in mid-batch, 30 times, static member",
    "exactly once each once, at least once a batch a kill again; ready again in 10 s",
    BOTH,
)
def thirty_kills(world: World) -> Figure:
    return kills(world, 30, 10, "--static")


@fault(
    "kill -9 in mid-batch, 6 times, dynamic member",
    "the same; ready again within the session time-out and 5 s",
    BOTH,
)
def dynamic_kills(world: World) -> Figure:
    return kills(world, 6, SESSION_S + 5)


def kills(world: World, times: int, limit: float, *options: str) -> Figure:
    service, moment, slowest = world.serve("a", *options), random.Random(times), 0.0
    with world.sending(rate=150, pace=0.02):
        world.until_commit()
        for _ in range(times):
            world.wait(moment.uniform(0.1, 3))
            service.kill()
            slowest = max(slowest, world.until_back())
    return Figure("ready again", slowest, limit)


@fault(f"kill -9 at each of {len(STEPS)} steps", "atomic: each once; at least once, a batch a kill again", BOTH)
def kill_at_each_step(world: World, records: int = RECORDS) -> None:
    portion = records // (len(PASS) + len(STEPS))
    for step in PASS:  # of a new group's first pass
        end_at(world, step, 1, portion)
    for step in STEPS:
        in_last_pass = step in PASS or (step == "offsets-sent" and world.guarantee == "at-least-once")
        end_at(world, step, 1, portion, in_last_pass)
    world.serve("a", "--static")


def end_at(world: World, step: str, count: int, records: int, in_last_pass: bool = False) -> None:
    """A run that is killed at a step."""
    life = world.serve("a", "--static", failpoint=f"{step}:{count}", supervised=False)
    world.load.send(records)
    if in_last_pass:
        world.until_drained()
        life.terminate()
    if (code := life.wait_for_exit()) != -9:
        raise Unexpected(f"at {step} it ended with {code}")


@fault("kill -9, no restart", "the other instance takes over in 35 s", BOTH)
def other_takes_exited(world: World) -> Figure:
    one = world.serve("a", supervised=False)
    world.serve("b")
    with world.sending():
        world.until(lambda: world.members() == 2, "two never joined")
        world.until_commit()
        one.kill()
        lag = {partition: where.offset for partition, where in world.positions().items()}
        taken = world.until(
            lambda: all(world.positions()[partition].offset > offset for partition, offset in lag.items()),
            "the other did not take over",
        )
    return Figure("taken over", taken, 35)


@fault("SIGTERM under load, 5 times", "finishes the batch, leaves the group, exit 0 in 10 s; each once", BOTH)
def sigterm(world: World) -> Figure:
    slowest = 0.0
    with world.sending():
        for _ in range(5):
            service = world.serve()
            world.until_commit()
            asked = time.monotonic()
            service.terminate()
            if code := service.wait_for_exit():
                raise Unexpected(f"it ended with {code}")
            slowest = max(slowest, time.monotonic() - asked)
            world.until(lambda: world.members() == 0, "it did not leave its group", 1)
    world.serve()
    return Figure("ended", slowest, 10)


@fault(
    "zombie: SIGSTOP 40 s at each step, then SIGCONT",
    "the other takes over in 35 s; fenced, it ends with 75: 0 zombie commits and checkpoints",
    BOTH,
    cases=STEPS,
)
def zombie(world: World, step: str) -> Figure:
    begin(world, step)
    with world.sending(rate=150 * world.workers):
        first = world.serve("a", failpoint=f"{step}:{under_load(world, step)}:stop", supervised=False)
        # the second checkpoint of a worker to which another has given its partitions comes after 60 s
        world.until(first.is_stopped, f"it never came to {step}", 60 * world.workers)
        stopped = time.monotonic()
        world.serve("b")
        taken = world.until_commit()
        world.wait(40 - (time.monotonic() - stopped))
        first.zombie = True
        first.resume()
        world.repeats += 2048
        if step in FENCED[world.guarantee] and (code := first.wait_for_exit(30)) != 75:
            raise Unexpected(f"the zombie ended with {code}")
        world.until_commit()
    return Figure("taken over", taken, 35)
