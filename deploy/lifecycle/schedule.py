"""`tidecast schedule`: a job run on a schedule, in this process."""

import logging
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from deploy.logs import show_timestamps
from deploy.settings.values import parse_seconds_option
from tidecast.errors import ConfigError

logger = logging.getLogger(__name__)

POLL_S = 0.2


def trigger(cron: str | None, every: str | None) -> BaseTrigger:
    """By a cron expression in the local time zone, or at an interval, starting at once.

    Raises ConfigError unless exactly one is given.
    """
    if (cron is None) == (every is None):
        raise ConfigError("cron: give one of --cron '0 */6 * * *' and --every 6h")
    if cron is not None:
        try:
            return CronTrigger.from_crontab(cron)
        except ValueError as error:
            raise ConfigError(f"cron: {cron!r}: {error}") from None
    interval = parse_seconds_option("every", every)
    if not interval:
        raise ConfigError(f"every: {every!r} is not a positive duration")
    return IntervalTrigger(seconds=interval, start_date=datetime.now(UTC) + timedelta(seconds=0.1))


def repeat(when: BaseTrigger, job: Callable[[], object], name: str) -> None:
    """Run a job on a schedule until SIGTERM or Ctrl-C; a failure is one line, and runs never overlap.

    Runs that were missed, while the machine slept or a run took longer, are made up for by one.
    """
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    scheduler = BackgroundScheduler()
    show_timestamps()

    def attempt() -> None:
        try:
            job()
        except Exception as error:  # whatever it was, the next run may succeed
            logger.warning(f"{name}: {str(error) or type(error).__name__}")
        if following := when.get_next_fire_time(None, datetime.now(UTC)):
            logger.info(f"{name}: next at {following:%Y-%m-%d %H:%M:%S %Z}")

    logger.info(f"{name}: first at {when.get_next_fire_time(None, datetime.now(UTC)):%Y-%m-%d %H:%M:%S %Z}")
    scheduler.add_job(attempt, when, max_instances=1, coalesce=True, misfire_grace_time=None)
    signals = list[int]()  # a handler that takes a lock, as the scheduler's or an event's, may wait for itself
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    scheduler.start()
    while not signals:
        time.sleep(POLL_S)
    scheduler.shutdown(wait=False)
