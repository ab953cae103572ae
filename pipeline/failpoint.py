"""Failpoints: steps of delivery and retraining at which TIDECAST_FAILPOINT kills, stops or delays the process.

    TIDECAST_FAILPOINT=STEP[:COUNT[:ACTION]]     at the COUNT-th time that STEP is reached

ACTION is ``kill`` (SIGKILL, the default), ``stop`` (SIGSTOP), ``fail`` (raise) or ``hold=SECONDS`` (this thread sleeps,
heartbeats go on). With it, tests end a real process between any two steps.
"""

import os
import signal
import time
from dataclasses import dataclass

from tidecast.errors import ConfigError

VARIABLE = "TIDECAST_FAILPOINT"
STEPS = (
    *("polled", "extended", "producing", "produced", "flushed", "offsets-sent", "committed"),
    *("pass-begun", "pass-sent", "pass-committed"),
    *("assigned", "restored", "replayed"),
)
"""In the order of the serving loop, of a checkpoint pass, and of taking over a partition."""
RETRAINING = ("uploaded", "registered", "challenger")
"""In the order of the last steps of a retraining."""


@dataclass(slots=True)
class Failpoint:
    """Acts when `step` is reached for the `left`-th time; the default one never does."""

    step: str = ""
    left: int = 0
    action: str = "kill"

    def reached(self, step: str) -> None:
        """Count `step` if it is this failpoint's, and act when the count is complete."""
        if step != self.step:
            return
        self.left -= 1
        if self.left == 0:
            self._act()

    def _act(self) -> None:
        name, _, seconds = self.action.partition("=")
        if name == "hold":
            time.sleep(float(seconds))
        elif name == "fail":
            raise RuntimeError(f"failpoint {self.step}")
        else:
            os.kill(os.getpid(), signal.SIGSTOP if name == "stop" else signal.SIGKILL)


def parse(text: str) -> Failpoint:
    """Parse the variable's text; an empty one gives a failpoint that never acts. Raises ConfigError."""
    if not text:
        return Failpoint()
    step, count, action, *more = [*text.split(":"), *("1", "kill")[text.count(":") :]]
    known = action in {"kill", "stop", "fail"} or action.removeprefix("hold=").replace(".", "", 1).isdecimal()
    steps = (*STEPS, *RETRAINING)
    if more or step not in steps or not count.isdecimal() or not known:
        raise ConfigError(f"{VARIABLE}: {text!r} is not like flushed, flushed:3 or flushed:3:hold=2; {' '.join(steps)}")
    return Failpoint(step, int(count), action)


_armed: Failpoint | None = None


def arm(text: str) -> Failpoint:
    """Set the process's failpoint from `text`, in place of the environment. Raises ConfigError."""
    global _armed
    _armed = parse(text)
    return _armed


def reached(step: str) -> None:
    """Mark that the process has reached a step. Raises ConfigError where the variable is invalid."""
    armed = _armed or arm(os.environ.get(VARIABLE, ""))
    armed.reached(step)
