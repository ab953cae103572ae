"""Failures that raise no error: a call that never returns, a stalled partition."""

import subprocess
import sys

import pytest
from waiting import PATIENCE_S

from deploy.serving.monitoring.watchdog import StallDetector
from tidecast.errors import LogUnavailable

WATCHED = """
import time
from deploy.logs import configure_logging
from deploy.serving.monitoring.watchdog import Watchdog
configure_logging()
watchdog = Watchdog({timeout_s})
for call in ("a quick call", "another one"):
    with watchdog.watch(call):
        pass
with watchdog.watch("the slow call"):
    time.sleep(3600 if {hangs} else 0.01)
print("done")
"""


def run_watched(timeout_s: float, hangs: bool) -> "subprocess.CompletedProcess[str]":
    code = WATCHED.format(timeout_s=timeout_s, hangs=hangs)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)


def test_call_that_never_returns_ends_the_process() -> None:
    ended = run_watched(1, hangs=True)
    assert (ended.returncode, ended.stdout) == (75, "")
    assert ended.stderr.strip() == "tidecast: the slow call has not returned within 1 s; exiting for a restart"


def test_calls_that_return_in_time_have_no_effect() -> None:
    ended = run_watched(60, hangs=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_stalled_partition_is_an_error() -> None:
    detector = StallDetector(2)
    detector.update({0: 5, 1: 7}, {0: 3, 1: 3})
    detector.update({0: 5, 1: 8}, {0: 3, 1: 3})
    with pytest.raises(LogUnavailable, match="partition 0 is stalled at offset 5 with a lag of 4 records"):
        detector.update({0: 5, 1: 9}, {0: 4, 1: 3})


@pytest.mark.parametrize(
    "updates",
    [
        [({0: 5}, {0: 0})] * 9,
        [({0: 5 + number}, {0: 3}) for number in range(9)],
        [({0: 5 + number // 2}, {0: 3}) for number in range(9)],
        [({0: 5}, {0: 3}), ({}, {})] * 4,
    ],
    ids=["no lag", "progress", "slow progress", "reassigned in between"],
)
def test_partition_is_not_stalled(updates: list[tuple[dict[int, int], dict[int, int]]]) -> None:
    detector = StallDetector(2)
    for positions, lag in updates:
        detector.update(positions, lag)
