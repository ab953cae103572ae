"""The surroundings of a process: a stderr that takes nothing, hosts of one name."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from faults import BOTH, Figure, fault
from service import SESSION_S
from world import World

CLOSED, FULL_PIPE, FULL_DISK = "closed", "full pipe", "full disk"


@contextlib.contextmanager
def taking_nothing(kind: str, folder: Path) -> Iterator[str]:
    """What the shell redirects a stderr to that takes nothing."""
    if kind in (CLOSED, FULL_DISK):
        yield "&-" if kind == CLOSED else "/dev/full"
        return
    path = folder / "stderr"
    os.mkfifo(path)
    reader, writer = os.open(path, os.O_RDONLY | os.O_NONBLOCK), os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    try:
        yield str(path)
    finally:
        os.close(reader)
        os.close(writer)


@fault(
    "stderr closed, a pipe that nobody reads, and a full disk, while serving; killed once",
    "each once, at least once a batch again; ready within the session time-out and 5 s; ends with 0 on SIGTERM",
    BOTH,
    cases=(CLOSED, FULL_PIPE, FULL_DISK),
)
def no_stderr(world: World, kind: str) -> Figure:
    with taking_nothing(kind, world.folder) as target:
        service = world.serve(stderr=target)
        with world.sending():
            world.until_commit()
            service.kill()
            again = world.until_back()
        world.until_drained()
        world.stop()
    return Figure("ready again", again, SESSION_S + 5)


@fault(
    "two replicas without --instance, each process 1 of a host called localhost",
    "neither fences the other: each once, 0 restarts",
    BOTH,
)
def one_host_name(world: World) -> Figure:
    services = [world.serve("", container=number) for number in range(2)]
    with world.sending():
        world.until(lambda: world.members() == 2, "two never joined")
        world.until_commit()
    world.until_drained()
    return Figure("restarts", sum(len(each.codes) for each in services), 0, "")
