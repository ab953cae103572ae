"""Steps 6 and 7 of the loop: flushed, then committed, at once or with others."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from deploy.serving.monitoring.stats import ServiceStats
from deploy.serving.monitoring.watchdog import Watchdog
from deploy.serving.output import Output
from deploy.serving.pace import Interval
from deploy.serving.partitions import Partitions
from deploy.settings.serve import ServeConfig
from pipeline import failpoint
from pipeline.log import Consumer, Producer, Record
from tidecast.errors import ConsumerFenced, LogUnavailable

COMMIT_S = 0.5
"""Seconds between two commits, at least once: what a restart after a kill forecasts again."""


class Commits:
    """What has been produced and is not committed yet."""

    def __init__(
        self,
        config: ServeConfig,
        consumer: Consumer,
        producer: Producer,
        output: Output,
        partitions: Partitions,
        watchdog: Watchdog,
        stats: ServiceStats,
    ) -> None:
        self._config, self._consumer, self._producer = config, consumer, producer
        self._output, self._partitions, self._watchdog, self._stats = output, partitions, watchdog, stats
        self._transactional = config.guarantee == "exactly-once"
        self._interval = Interval(COMMIT_S)
        self._numbers: set[int] = set()
        self._began = 0.0
        consumer.before_revocation = self._before_revocation

    def begin(self) -> None:
        """Before the results of some records are produced: exactly once they are one transaction."""
        self._began = self._began or time.monotonic()
        if self._transactional:
            self._producer.begin()

    def add(self, done: Mapping[int, Sequence[Record]], *, at_once: bool = False) -> None:
        """The results of these records have been produced."""
        self._partitions.advance(done)
        self._numbers.update(done)
        self._stats.count_written(done.values())
        if at_once or self._transactional:
            self.commit()
        self._stats.observe_latency(done.values())

    def commit_when_due(self, *, idle: bool) -> None:
        """Commit if it is time, or if there is nothing else to do."""
        if idle or self._interval.due():
            self.commit()

    @property
    def pending(self) -> bool:
        """Whether something is not committed yet."""
        return bool(self._numbers)

    def commit(self) -> None:
        """Commit all that has been produced."""
        if not self.pending:
            return
        stats, refused = self._stats, self._output.refused
        with stats.stage("commit"):
            self._flush_and_commit()
        self._output.committed()
        stats.count_committed(refused[self._config.output])
        if refused:
            stats.dead_letters["refused"] += refused.total()
            refused.clear()
        stats.seconds = time.monotonic() - self._began

    def forget(self, partition: int) -> None:
        """A partition is another member's now, which forecasts again what is not committed."""
        self._numbers.discard(partition)

    def _flush_and_commit(self) -> None:
        failpoint.reached("produced")
        with self._watchdog.watch("flush"):
            self._producer.flush()
        failpoint.reached("flushed")
        offsets = self._partitions.commits(self._numbers)
        with self._watchdog.watch("commit"):
            if self._transactional:
                self._producer.commit(offsets, self._consumer)
            else:
                self._consumer.commit(offsets)
        self._numbers.clear()
        failpoint.reached("committed")

    def _before_revocation(self) -> None:
        """As far as it can still be committed, nobody has to do it again."""
        with suppress(LogUnavailable, ConsumerFenced):
            self.commit()
