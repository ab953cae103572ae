"""The process that looks after workers: starts them, starts those again that die, and stops them together.

A worker that was killed, or ended with 75 as the log or the registry did not answer, is started again. Any other end is
one that a restart doesn't mend, so it ends them all, with its exit code.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait

from deploy.logs import show_timestamps
from deploy.serving.connections import Connections, stop_on_signals
from deploy.serving.identity import instance_name
from deploy.serving.monitoring.group_offsets import offset_watch
from deploy.serving.workers.place import Place
from deploy.serving.workers.processes import Run
from deploy.serving.workers.summary import together
from deploy.serving.workers.worker import Work
from deploy.settings.files import another_connection, open_log
from deploy.settings.machine import available_cores
from deploy.settings.serve import ServeConfig
from deploy.web import Listener
from pipeline import failpoint
from tidecast.errors import ConfigError, TidecastError

logger = logging.getLogger(__name__)

TICK_S = 0.2
LEFT_WITHIN_S = 5.0
"""How long the broker may take to let a member go."""


def supervise(
    config: ServeConfig, connections: Connections, workers: int | None, run: Run
) -> tuple[int, dict[str, object] | None]:
    """`tidecast serve --workers`: an exit code, and a summary if they ended as they should.

    None workers are one a core, at most one a partition. Raises ConfigError for a log that workers can't share.
    """
    stop = stop_on_signals()
    count = _count(config.topic, connections.bootstrap, workers)
    with ExitStack() as stack:
        name = config.instance or stack.enter_context(instance_name(config.group))
        works = [Work(number, replace(config, instance=f"{name}-{number}"), connections) for number in range(count)]
        works[0] = replace(works[0], failpoint=os.environ.get(failpoint.VARIABLE, ""))
        logger.info(f"{count} worker{'s' * (count > 1)}, as {config.group}/{name}-0{f' to -{count - 1}' * (count > 1)}")
        show_timestamps()
        places = [Place(run, work, partial(_leave, connections.bootstrap, work.config)) for work in works]
        if connections.http:
            stack.enter_context(_told(connections.http, places, connections.bootstrap, config))
        code = _look_after(places, stop)
    if code:
        return code, None
    return 0, together(
        [each for place in places for each in place.ended], count, sum(place.restarts for place in places)
    )


def _count(topic: str, bootstrap: str, wanted: int | None) -> int:
    """How many workers there are to be."""
    if bootstrap.startswith("sqlite:"):
        if wanted:
            raise ConfigError(
                f"workers: the embedded log gives all partitions to one process, so --workers {wanted} "
                "would wait for it; a Kafka shares them out"
            )
        return 1
    with closing(open_log(bootstrap)) as log:
        partitions = log.partitions(topic)
    if wanted is None:
        return min(available_cores(), partitions)
    if wanted > partitions:
        logger.warning(
            f"{wanted} workers for {partitions} partition{'s' * (partitions > 1)} of {topic}: "
            f"{wanted - partitions} will have none, and only wait to take over"
        )
    return wanted


def _leave(bootstrap: str, config: ServeConfig) -> None:
    """Give a dead worker's partitions to the others at once."""
    try:
        with closing(another_connection(bootstrap, LEFT_WITHIN_S)) as log:
            log.remove_member(config.group, config.instance)
    except TidecastError as error:
        logger.info(f"{config.instance} is a member of {config.group} until its session times out: {error}")


@contextmanager
def _told(listener: Listener, places: Sequence[Place], bootstrap: str, config: ServeConfig) -> Iterator[None]:
    """Answers about all workers, and where their group stands."""
    from deploy.serving.monitoring.http import HttpServer
    from deploy.serving.workers.group_report import GroupReport

    report = GroupReport(places)
    with closing(HttpServer(listener, report)), closing(offset_watch(bootstrap, config, report.offsets)):
        yield


def _look_after(places: Sequence[Place], stop: threading.Event) -> int:
    """Keep the workers running until `stop` is set, or one ended for good; an exit code."""
    try:
        code, began, said = 0, time.monotonic(), False
        while not code and not stop.is_set():
            wait([place.worker.sentinel for place in places if place.worker], TICK_S)
            code = max(place.look() for place in places)
            if not said and all(place.served for place in places):
                logger.info(f"all serve, after {time.monotonic() - began:.1f} s")
                said = True
        return max(code, _stop(places))
    except BaseException:  # a second Ctrl-C
        for place in places:
            place.kill()
        raise


def _stop(places: Sequence[Place]) -> int:
    """Have all of them finish their batch and end; an exit code."""
    for place in places:
        place.stop()
    codes = [place.end() for place in places]
    return next((code for code in codes if code), 0)
