"""The environment of one fault: a topic under load, services as processes, and a comparison of what they wrote.

Two worlds share the brokers only: topics, group and transactional ids are their own.
"""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from cluster import Cluster, Lane
from kafka import KafkaAdminClient, TopicPartition, errors
from kafka.structs import OffsetAndMetadata
from load import PARTITIONS, RECORDS, Load, rows
from oracle import Expected, Oracle, Verdict, compare, read, regressed
from service import RESTART_CODES, SETTINGS, Service, Unexpected

from deploy.settings.serve import Guarantee
from pipeline.log.connect import connect
from pipeline.log.settings import KafkaSettings

MAX_BATCH = 2048
"""Most records that one crash may repeat, at least once."""
IN_A_CONTAINER = """
import os, socket
os.getpid, socket.gethostname = lambda: 1, lambda: "localhost"
from tidecast.__main__ import main
main()
"""
"""A service as process 1 of a host whose name says nothing."""
INTERRUPTED = threading.Event()
"""Set to stop all worlds."""


class World:
    """A topic with six partitions, its load and its services, to which a fault is applied."""

    def __init__(
        self,
        name: str,
        guarantee: Guarantee,
        bootstrap: str,
        model: Path,
        folder: Path,
        *,
        cluster: Cluster | None = None,
        lane: Lane | None = None,
        workers: int = 1,
    ) -> None:
        self.topic, self.group, self.guarantee = name, f"{name}-group", guarantee
        self.output, self.state, self.letters = f"{name}-out", f"{name}-group-state", f"{name}-group-dead-letters"
        self.bootstrap, self.serve_from = bootstrap, lane.bootstrap if lane else bootstrap
        self.model, self.folder = str(model), folder
        self.oracle = Oracle(model)
        self.services: list[Service] = []
        self.expected: Expected | None = None
        self.repeats = 0
        """How many outputs may be repeated at least once, besides a batch per crash."""
        self.workers = workers
        """Of each service."""
        self._cluster, self._lane = cluster, lane
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.log = stack.enter_context(
                contextlib.closing(connect(self.bootstrap, KafkaSettings(client="kafka-python")))
            )
            self.log.create_topic(self.topic, PARTITIONS)
            self.load = stack.enter_context(contextlib.closing(Load(self.bootstrap, self.topic, rows())))
            self._admin = self._connect_admin()
            stack.callback(lambda: self._admin.close())
            stack.callback(self._delete_topics)
            stack.callback(self._close_services)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _close_services(self) -> None:
        for service in self.services:
            service.close()

    def _delete_topics(self) -> None:
        """Brokers with the partitions of all earlier faults would be slow to recover from the next one."""
        with contextlib.suppress(errors.KafkaError):
            ours = [
                name for name in self._admin.list_topics() if name == self.topic or name.startswith(f"{self.topic}-")
            ]
            self._admin.delete_topics(ours)

    @property
    def cluster(self) -> Cluster:
        assert self._cluster, "this needs brokers of its own"
        return self._cluster

    @property
    def lane(self) -> Lane:
        assert self._lane, "this needs a lane"
        return self._lane

    @property
    def admin(self) -> KafkaAdminClient:
        return self._admin

    def _connect_admin(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self.bootstrap.split(","), request_timeout_ms=5000)

    def sending(
        self, rate: int = 500, at_least: int = RECORDS, pace: float = 0.2
    ) -> contextlib.AbstractContextManager[None]:
        """Send input at `rate` records per second; each burst is at least one transaction for the brokers."""
        return self.load.sending(rate, at_least, pace)

    def serve(
        self,
        instance: str = "a",
        *options: str,
        failpoint: str = "",
        supervised: bool = True,
        environment: Mapping[str, str] | None = None,
        stderr: str = "",
        container: int | None = None,
    ) -> Service:
        """Start a service: with a shell's redirection of its stderr, or in a folder and on a host as of a container."""
        program = ["-m", "tidecast"] if container is None else ["-c", IN_A_CONTAINER]
        command = [sys.executable, "-P", *program, "serve"]
        command += ["--topic", self.topic, "--output", self.output, "--model", self.model, "--group", self.group]
        command += ["--instance", instance] if instance else []
        command += ["--device", "cpu", "--guarantee", self.guarantee, "--bootstrap", self.serve_from, *options]
        command = ["sh", "-c", f'exec "$@" 2>{stderr}', "sh", *command] if stderr else command
        folder = self.folder if container is None else self.folder / str(container)
        folder.mkdir(exist_ok=True)
        service = Service(command, {**SETTINGS, **(environment or {})}, folder, failpoint, supervised, self.workers)
        self.services.append(service)
        return service

    def positions(self) -> dict[int, OffsetAndMetadata]:
        """The group's committed offsets, by partition; empty while no coordinator is available."""
        try:
            found = self._admin.list_group_offsets({self.group: None})[self.group]
        except (errors.KafkaError, TimeoutError):
            with contextlib.suppress(errors.KafkaError):  # the old one would go on asking a coordinator that is gone
                admin, self._admin = self._admin, self._connect_admin()
                admin.close()
            return {}
        return {where.partition: offset for where, offset in found.items() if where.topic == self.topic}

    def progress(self) -> int:
        """How many records the group has committed."""
        return sum(offset.offset for offset in self.positions().values())

    def until(self, condition: Callable[[], bool], otherwise: str, seconds: float = 60) -> float:
        """Wait for a condition, while no service fails; how long it took, in seconds."""
        began = time.monotonic()
        while not condition():
            if INTERRUPTED.is_set():
                raise Unexpected("interrupted")
            if broken := [service for service in self.services if service.failed]:
                raise Unexpected(f"a service ended with {broken[0].codes[-1]}")
            if time.monotonic() - began > seconds:
                raise Unexpected(f"{otherwise} in {seconds:g} s")
            time.sleep(0.05)
        return time.monotonic() - began

    def until_commit(self, seconds: float = 90) -> float:
        """Seconds until the group commits more than it has now."""
        before = self.progress()
        return self.until(lambda: self.progress() > before, "no further commit", seconds)

    def until_idle(self) -> None:
        """Wait until nothing was committed for some time: in any partition, or in those of one of several workers."""
        seen: dict[int, tuple[int, float]] = {}
        seconds, enough = (0.5, all) if self.workers == 1 else (2.0, any)

        def is_idle() -> bool:
            now = time.monotonic()
            for partition, where in self.positions().items():
                if seen.get(partition, (-1,))[0] != where.offset:
                    seen[partition] = where.offset, now
            return bool(seen) and enough(now - since > seconds for _, since in seen.values())

        self.until(is_idle, "it went on committing", 60 * self.workers)

    def wait(self, seconds: float) -> None:
        """Wait while a fault lasts and no service fails."""
        began = time.monotonic()
        self.until(lambda: time.monotonic() - began >= seconds, "", seconds + 1)

    def until_drained(self, seconds: float = 120) -> float:
        """Seconds until the group has committed the whole topic."""

        def all_read() -> bool:
            positions = self.positions()
            bounds = self.log.bounds(self.topic)
            return all(end == 0 or (p in positions and positions[p].offset == end) for p, (_, end) in bounds.items())

        return self.until(all_read, "the topic was not read to its end", seconds)

    def members(self) -> float:
        """The number of services in the group, each with all of its workers; nan while no coordinator is available."""
        try:
            return len(self._admin.describe_groups([self.group])[self.group]["members"]) / self.workers
        except errors.KafkaError:
            return math.nan

    def transactional_id(self, instance: str) -> str:
        """That of a service's only worker, or of its first one."""
        return f"{self.group}-{instance}{'-0' * (self.workers > 1)}"

    def until_back(self) -> float:
        """Seconds until what was killed commits again: the group, or if others go on meanwhile, in every partition."""
        return self.until_commit() if self.workers == 1 else self.until_all_commit()

    def until_all_commit(self) -> float:
        """Seconds until every partition has a further commit."""
        before: dict[int, int] = {}

        def known() -> bool:
            before.update({partition: where.offset for partition, where in self.positions().items()})
            return bool(before)

        waited = self.until(known, "no coordinator")
        return waited + self.until(
            lambda: bool(now := self.positions()) and all(now[each].offset > offset for each, offset in before.items()),
            "not all partitions continue",
            90,
        )

    def delete_before(self, offsets: Mapping[int, int]) -> None:
        """Delete the input's records before these offsets, as retention does."""
        self._admin.delete_records({TopicPartition(self.topic, partition): to for partition, to in offsets.items()})

    def stop(self) -> None:
        """SIGTERM to all services; each must end with 0, or as one that had not begun; a zombie may be fenced."""
        living = [service for service in self.services if not service._exited.is_set()]
        for service in living:
            service.terminate()
        for service in living:
            code = service.wait_for_exit(30)
            if code == -signal.SIGTERM and not service.stderr:
                continue
            if code not in ((0, os.EX_TEMPFAIL) if service.zombie else (0,)):
                raise Unexpected(f"a service ended with {code} on SIGTERM: {service.stderr[-2000:]}")

    def allowed_repeats(self) -> int:
        """How many outputs may be duplicates: none exactly once, a batch per crash at least once."""
        crashes = sum(code in RESTART_CODES for service in self.services for code in service.codes)
        return 0 if self.guarantee == "exactly-once" else self.repeats + crashes * MAX_BATCH

    def verdict(self) -> Verdict:
        """Compare the outputs with those expected for the topic's records, or with `expected`."""
        expected = self.expected or self.oracle.expected_output(read(self.log, self.topic))
        back = regressed(self.log, self.group, self.state)
        return compare(self.log, expected, self.output, self.letters) + Verdict(regressed=back)
