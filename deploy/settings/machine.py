"""What this process may have of its machine: by its cgroups too, as in a container."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_memory(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """Bytes of memory that this process may have: the machine's, or the least that a cgroup it is in allows."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [physical]
    for folder, newer in _folders("memory", cgroups, own):
        with suppress(OSError, ValueError):  # none there, or "max"
            limits.append(int((folder / ("memory.max" if newer else "memory.limit_in_bytes")).read_text()))
    return min(limits)


def available_cores(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """Cores that this process may use, at least one: those it may run on, or the least that a cgroup it is in allows.

    Part of a core, as of a limit of 1.5, is not counted.
    """
    limits = [float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)]
    for folder, newer in _folders("cpu", cgroups, own):
        files = ("cpu.max",) if newer else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        with suppress(OSError, ValueError):  # none there, or "max"
            quota, period = " ".join((folder / file).read_text() for file in files).split()
            limits.append(int(quota) / int(period) if int(quota) > 0 else math.inf)
    return max(1, math.floor(min(limits)))


def _folders(controller: str, cgroups: Path, own: Path) -> Iterator[tuple[Path, bool]]:
    """A process's cgroups and those that they are in, and whether they are of version 2; none on other systems."""
    lines = []
    with suppress(OSError):
        lines = own.read_text().splitlines()
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if newer := number == "0":
            root = cgroups
        elif controller in controllers.split(","):
            root = cgroups / controller
        else:
            continue
        place = Path(path)
        yield from ((root / folder.relative_to("/"), newer) for folder in (place, *place.parents))
