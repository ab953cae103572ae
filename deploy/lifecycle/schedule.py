"""`tidecast schedule`: the same job again and again, in this process."""

import logging
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from deploy.console import say
from deploy.settings.values import parse_seconds_option
from tidecast.errors import ConfigError


def trigger(cron: str | None, every: str | None) -> BaseTrigger:
    """When to run: by cron's five fields in the local time zone, or every so often, at once for the first time.

    Raises ConfigError unless it is one of them.
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
        raise ConfigError(f"every: {every!r} is no time to wait")
    return IntervalTrigger(seconds=interval, start_date=datetime.now(UTC) + timedelta(seconds=0.1))


def repeat(when: BaseTrigger, job: Callable[[], object], name: str) -> None:
    """Run a job at its times until SIGTERM or Ctrl-C; one that fails is said in a line, one still running is not begun.

    After a time that was missed, by sleep or by a longer job, it runs once.
    """
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    scheduler = BlockingScheduler()

    def attempt() -> None:
        try:
            job()
        except Exception as error:  # whatever it was, the next time may be better
            say(f"tidecast: {name}: {str(error) or type(error).__name__}")
        if following := when.get_next_fire_time(None, datetime.now(UTC)):
            say(f"{name}: next at {following:%Y-%m-%d %H:%M:%S %Z}")

    say(f"{name}: first at {when.get_next_fire_time(None, datetime.now(UTC)):%Y-%m-%d %H:%M:%S %Z}")
    scheduler.add_job(attempt, when, max_instances=1, coalesce=True, misfire_grace_time=None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scheduler.shutdown(wait=False))
    scheduler.start()
