"""The place of a worker: the process that works there now, and when there is to be another one."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from deploy.serving.workers.processes import Run, Worker
from deploy.serving.workers.said import Asked, Ended
from deploy.serving.workers.worker import Work

logger = logging.getLogger(__name__)

RESTARTED = (0, os.EX_TEMPFAIL)
"""Exit codes after which a worker is started again, besides those of signals; 0 where somebody else has stopped it."""
ORPHANED = 255
"""The code of a worker whose end is not known, as the process that it was forked from is gone."""
STABLE_S, FIRST_WAIT_S, LONGEST_WAIT_S = 10.0, 1.0, 30.0
"""A worker that has run for so long is started again at once, one that dies sooner after a second; and one that never
served waits twice as long each time.
"""


class Place:
    """One of a service's workers."""

    def __init__(self, run: Run, work: Work, leave: Callable[[], None] = lambda: None) -> None:
        """Start it. `leave` has its group go on without one that has died; it may take a while."""
        self._run, self._work, self._leave = run, work, leave
        self._leaving: threading.Thread | None = None
        self.restarts = 0
        self.ended: list[Ended] = []
        """What its processes did, of those that could say."""
        self.worker: Worker | None = None
        self.served = False
        """Whether its process has served since its start."""
        self._due, self._wait_s = 0.0, 0.0
        self._start()

    @property
    def number(self) -> int:
        """The first one's is 0."""
        return self._work.number

    def _start(self) -> None:
        self._began, self.served = time.monotonic(), False
        try:
            self.worker = Worker(self._run, self._work)
        except (OSError, EOFError) as error:  # no process, or no memory for one
            self._delay()
            logger.warning(f"worker {self.number} can't be started now: {error or 'its process ended at once'}")
            return
        self._work = replace(self._work, failpoint="")

    def look(self) -> int:
        """Start it again if it has died and its time has come; an exit code if it has ended for good, else 0."""
        if self.worker is None:
            if time.monotonic() >= self._due and not (self._leaving and self._leaving.is_alive()):
                self.restarts += 1
                self._start()
            return 0
        code = self._code()
        if code is None:
            self.served = self.served or self.ask("missing", 0) == ""
            return 0
        if code not in RESTARTED and code > 0 and code != ORPHANED:
            logger.error(f"worker {self.number} ended with {code}, so all are stopped")
            return code
        self._delay()
        when = f"in {self._wait_s:g} s" if self._wait_s else "at once"
        logger.warning(f"worker {self.number} {_how(code)}: it is started again {when}")
        self._have_it_leave(code)
        return 0

    def _have_it_leave(self, code: int) -> None:
        """Have a dead process leave its group, for which it is a member until its session times out.

        The next one does so before it joins, if it begins soon: in one rebalance it has the same partitions. Otherwise
        the others have them at once. Of one that is stopped, or whose end is not known, nothing is done.
        """
        died = code not in (0, ORPHANED) and not self._work.config.static
        soon = self._wait_s <= FIRST_WAIT_S
        self._work = replace(self._work, predecessor=died and soon)
        if died and not soon:
            self._leaving = threading.Thread(target=self._leave, name=f"leave-{self.number}", daemon=True)
            self._leaving.start()

    def _delay(self) -> None:
        """Decide when there is to be another one."""
        longer_s = min(max(FIRST_WAIT_S, 2 * self._wait_s), LONGEST_WAIT_S)
        stable = time.monotonic() - self._began >= STABLE_S
        self._wait_s = 0.0 if stable else FIRST_WAIT_S if self.served else longer_s
        self._due = time.monotonic() + self._wait_s

    def _code(self) -> int | None:
        """The exit code of a process that has ended."""
        if self.worker is None or not self.worker.has_ended:
            return None
        worker, self.worker = self.worker, None
        code, ended = worker.exit()
        if ended:
            self.ended.append(ended)
        return code

    def ask(self, asked: Asked, within_s: float) -> str | None:
        """What the worker says of itself; None if there is none or it does not answer in time."""
        worker = self.worker
        return worker.ask(asked, within_s) if worker else None

    def stop(self) -> None:
        """Have it end."""
        if self.worker:
            self.worker.stop()

    def end(self) -> int:
        """Its exit code, once it has ended after it was to stop."""
        if self.worker:
            self.worker.wait()
        code = self._code() or 0
        if code:
            logger.warning(f"worker {self.number} {_how(code)}, and did not finish")
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        """End it at once."""
        if self.worker:
            self.worker.kill()


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return "ended" if code in (0, ORPHANED) else f"ended with {code}"
