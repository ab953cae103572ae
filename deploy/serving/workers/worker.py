"""A worker: a service that answers its supervisor by a pipe, and stops when that says so, or is gone."""

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import msgspec

from deploy.serving.connections import Connections
from deploy.serving.monitoring.report import ServiceReport
from deploy.serving.monitoring.stats import ServiceStats
from deploy.serving.run import run
from deploy.serving.workers.said import Answer, Asked, Ended, Said
from deploy.settings.serve import ServeConfig
from pipeline import failpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker's process is given."""

    number: int
    config: ServeConfig
    """With the instance's name."""
    connections: Connections
    failpoint: str = ""
    predecessor: bool = False
    """Whether the process before it has died, and is a member of the group still."""


def work(work: Work, supervisor: Connection) -> None:
    """Serve until the supervisor says stop or is gone, or on SIGTERM."""
    failpoint.arm(work.failpoint)
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the supervisor too
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    report = ServiceReport("worker")
    answers = {"hanging": report.hanging, "missing": report.missing, "metrics": report.metrics}
    line = _Line(supervisor)
    threading.Thread(target=line.answer, args=(answers, stop), name="supervisor", daemon=True).start()
    service = run(work.config, work.connections, stop, report, watched=False, predecessor=work.predecessor)
    line.say(_ended(service.config.output, service.stats))


def _ended(output: str, stats: ServiceStats) -> Ended:
    return Ended(output, stats.summary(), stats.latency_ms.counts.tolist(), stats.tally.intervals)


class _Line:
    """The worker's end of the pipe."""

    def __init__(self, supervisor: Connection) -> None:
        self._supervisor, self._lock = supervisor, threading.Lock()

    def say(self, said: Said) -> None:
        """Send a message, unless nobody listens any more."""
        with self._lock, suppress(OSError):
            self._supervisor.send_bytes(msgspec.json.encode(said))

    def answer(self, answers: Mapping[str, Callable[[], str | bytes]], stop: threading.Event) -> None:
        """Answer until stop is asked for, or nobody asks any more; then set `stop`, and go on until that."""
        with suppress(OSError, EOFError):
            while True:
                asked = msgspec.json.decode(self._supervisor.recv_bytes(), type=Asked)
                if asked == "stop":
                    stop.set()
                    continue
                text = answers[asked]()
                self.say(Answer(asked, text if isinstance(text, str) else text.decode()))
        stop.set()
