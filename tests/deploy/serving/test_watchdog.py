"""Faults that make no error: a call that never returns, a partition that never goes on."""

import subprocess
import sys

import pytest
from waiting import PATIENCE_S

from deploy.serving.watchdog import StallDetector
from tidecast.errors import LogUnavailable

WATCHED = """
import time
from deploy.logs import configure_logging
from deploy.serving.watchdog import Watchdog
configure_logging()
watched = Watchdog({limit})
for call in ("a quick call", "another one"):
    with watched(call):
        pass
with watched("the slow call"):
    time.sleep(3600 if {hangs} else 0.01)
print("went on")
"""


def watched(limit: float, hangs: bool) -> "subprocess.CompletedProcess[str]":
    code = WATCHED.format(limit=limit, hangs=hangs)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)


def test_a_call_that_never_returns_ends_the_process() -> None:
    ended = watched(1, hangs=True)
    assert (ended.returncode, ended.stdout) == (75, "")
    assert ended.stderr.strip() == "tidecast: the slow call has not returned in 1 s; ending, to start again"


def test_calls_that_return_are_left_alone() -> None:
    ended = watched(60, hangs=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "went on\n", "")


def test_a_partition_that_stands_still_with_a_lag() -> None:
    standstill = StallDetector(2)
    standstill.look({0: 5, 1: 7}, {0: 3, 1: 3})
    standstill.look({0: 5, 1: 8}, {0: 3, 1: 3})
    with pytest.raises(LogUnavailable, match="partition 0 stands still at 5, 4 records before its end"):
        standstill.look({0: 5, 1: 9}, {0: 4, 1: 3})


@pytest.mark.parametrize(
    "looks",
    [
        [({0: 5}, {0: 0})] * 9,
        [({0: 5 + number}, {0: 3}) for number in range(9)],
        [({0: 5 + number // 2}, {0: 3}) for number in range(9)],
        [({0: 5}, {0: 3}), ({}, {})] * 4,
    ],
    ids=["nothing waits", "it goes on", "it goes on slowly", "it comes and goes"],
)
def test_what_is_no_standstill(looks: list[tuple[dict[int, int], dict[int, int]]]) -> None:
    standstill = StallDetector(2)
    for positions, lag in looks:
        standstill.look(positions, lag)
