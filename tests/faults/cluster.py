"""Three real brokers, reached directly by the tests, and by the services over lanes whose network can be disturbed.

A lane is a listener of its own on every broker, advertised at the port of a proxy. So a disturbed lane affects
only the services that use it.
"""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self
from urllib.request import Request, urlopen

from frames import LostAnswers
from kafka import KafkaAdminClient

NODES = 3
LANES = 4
"""Lanes through toxiproxy; there is one more, whose proxy knows Kafka's frames."""
PORTS = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections: a broker that comes back finds its port free."""
INTERNAL_PARTITIONS = 8

SERVER = """
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
default.replication.factor={replicas}
min.insync.replicas=2
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions={internal}
transaction.state.log.replication.factor={replicas}
transaction.state.log.num.partitions={internal}
transaction.state.log.min.isr=2
group.initial.rebalance.delay.ms=0
"""


class Lane:
    """A network path from services to the brokers: its bootstrap address, and toxics for all of its connections."""

    def __init__(self, name: str, api: str, ports: list[int]) -> None:
        self.bootstrap = _addresses(ports)
        self._name, self._api = name, api

    @contextlib.contextmanager
    def toxic(self, kind: str, *streams: str, **attributes: int) -> Iterator[None]:
        """Apply a toxic to the streams (``upstream``, ``downstream``) of every broker's proxy during the with block."""
        urls = [f"{self._api}/proxies/{self._name}-{node}/toxics" for node in range(NODES)]
        for url in urls:
            for stream in streams:
                _ask("POST", url, {"name": stream, "type": kind, "stream": stream, "attributes": attributes})
        try:
            yield
        finally:
            for url in urls:
                for stream in streams:
                    _ask("DELETE", f"{url}/{stream}")

    def cut(self) -> contextlib.AbstractContextManager[None]:
        """A network partition: nothing passes either way, and no connection is closed."""
        return self.toxic("timeout", "upstream", "downstream", timeout=0)

    def reset(self) -> contextlib.AbstractContextManager[None]:
        """Every connection is reset, and every new one."""
        return self.toxic("reset_peer", "upstream", "downstream", timeout=0)


class Cluster:
    """Brokers and proxies in a folder; a fault that needs one of the `lanes` borrows it."""

    def __init__(self, folder: Path, kafka: Path, toxiproxy: Path | None) -> None:
        self._folder, self._kafka = folder, kafka / "bin" / "kafka"
        lanes = LANES + 1 if toxiproxy else 0
        ports = _free_ports(NODES * (2 + 2 * lanes) + 1)
        self._api_port = ports.pop()
        self._brokers, self._controllers = _take(ports), _take(ports)
        self._inner, self._outer = ([_take(ports) for _ in range(lanes)] for _ in "io")
        self.bootstrap = _addresses(self._brokers)
        self.lanes: SimpleQueue[Lane] = SimpleQueue()
        self._toxiproxy = toxiproxy
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._configure()
            stack.callback(self._run, "kill")
            self._run("restart")
            if self._toxiproxy:
                self._start_proxies(stack, self._toxiproxy)
            self._admin = stack.enter_context(KafkaAdminClient(bootstrap_servers=self.bootstrap.split(",")))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _configure(self) -> None:
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(self._controllers))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        for node in range(NODES):
            home = self._folder / f"node{node}"
            home.mkdir(parents=True)
            inner = [f"LANE{lane}://127.0.0.1:{ports[node]}" for lane, ports in enumerate(self._inner)]
            outer = [f"LANE{lane}://127.0.0.1:{ports[node]}" for lane, ports in enumerate(self._outer)]
            direct = f"PLAINTEXT://127.0.0.1:{self._brokers[node]}"
            names = ["PLAINTEXT", "CONTROLLER", *(f"LANE{lane}" for lane in range(len(inner)))]
            lines = [
                SERVER.format(replicas=NODES, internal=INTERNAL_PARTITIONS).strip(),
                f"node.id={node}",
                f"controller.quorum.voters={voters}",
                f"listeners={','.join([direct, f'CONTROLLER://127.0.0.1:{self._controllers[node]}', *inner])}",
                f"advertised.listeners={','.join([direct, *outer])}",
                f"listener.security.protocol.map={','.join(f'{name}:PLAINTEXT' for name in names)}",
                f"log.dirs={home / 'data'}",
            ]
            (home / "server.properties").write_text("\n".join(lines) + "\n")
            (home / "port").write_text(f"{self._brokers[node]}\n")
        (self._folder / "cluster").write_text(f"{cluster}\n")
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: self._format(cluster, node), range(NODES)))

    def _format(self, cluster: str, node: int) -> None:
        properties = self._folder / f"node{node}" / "server.properties"
        tool = ["tool", "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties)]
        subprocess.run([self._kafka, *tool], check=True, capture_output=True)

    def _run(self, command: str, *node: int) -> None:
        # Brokers that run for minutes, on few cores, are faster without Java's optimising compiler.
        environment = {**os.environ, "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1"}
        called = [str(each) for each in (self._kafka, command, self._folder, *node)]
        subprocess.run(called, check=True, stdout=subprocess.DEVNULL, env=environment)

    def _start_proxies(self, stack: contextlib.ExitStack, toxiproxy: Path) -> None:
        server = subprocess.Popen(
            [toxiproxy / "toxiproxy-server", "-port", str(self._api_port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(server.wait)
        stack.callback(server.kill)
        api = f"http://127.0.0.1:{self._api_port}"
        _until_answered(self._api_port)
        for lane in range(LANES):
            for node, (inner, outer) in enumerate(zip(self._inner[lane], self._outer[lane], strict=True)):
                ways = {"listen": f"127.0.0.1:{outer}", "upstream": f"127.0.0.1:{inner}"}
                _ask("POST", f"{api}/proxies", {"name": f"{lane}-{node}", **ways})
            self.lanes.put(Lane(str(lane), api, self._outer[lane]))
        self.lost_answers = stack.enter_context(
            LostAnswers(dict(zip(self._outer[LANES], self._inner[LANES], strict=True)))
        )
        self.lost_answers_bootstrap = _addresses(self._outer[LANES])

    @contextlib.contextmanager
    def lane(self) -> Iterator[Lane]:
        """A lane for one scenario, once one is free."""
        lane = self.lanes.get()
        try:
            yield lane
        finally:
            self.lanes.put(lane)

    def kill(self, node: int) -> None:
        """SIGKILL a broker."""
        self._run("kill", node)

    def restart(self, node: int) -> None:
        """Start a broker that is down, and wait until all replicas are in sync again."""
        self._run("restart", node)
        _until(self._in_sync, f"broker {node} is not in sync again")

    def _in_sync(self) -> bool:
        topics = self._admin.describe_topics()
        return all(
            len(partition["isr_nodes"]) == len(partition["replica_nodes"])
            for topic in topics
            for partition in topic["partitions"]
        )

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """All brokers are suspended by SIGSTOP during the with block."""
        pids = [int((self._folder / f"node{node}" / "pid").read_text()) for node in range(NODES)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def leader(self, topic: str, partition: int) -> int:
        """The node that leads a partition."""
        (found,) = self._admin.describe_topics([topic])
        return next(int(each["leader_id"]) for each in found["partitions"] if int(each["partition_index"]) == partition)

    def group_coordinator(self, group: str) -> int:
        """The node that coordinates a group."""
        return self.leader("__consumer_offsets", internal_partition(group))

    def transaction_coordinator(self, transactional_id: str) -> int:
        """The node that coordinates a transactional id."""
        return self.leader("__transaction_state", internal_partition(transactional_id))


def internal_partition(name: str) -> int:
    """Where Kafka's own topics keep a group, or a transactional id: Java's hash of the name."""
    code = 0
    for letter in name.encode("utf-16-be")[1::2]:
        code = (31 * code + letter) & 0xFFFFFFFF
    return (code & 0x7FFFFFFF if code < 1 << 31 else ((1 << 32) - code) & 0x7FFFFFFF) % INTERNAL_PARTITIONS


def _ask(method: str, url: str, body: dict[str, Any] | None = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    urlopen(Request(url, data, {"Content-Type": "application/json"}, method=method)).close()


def _addresses(ports: list[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


def _take(ports: list[int]) -> list[int]:
    return [ports.pop() for _ in range(NODES)]


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    start = PORTS.start + os.getpid() * 97 % (len(PORTS) // 2)  # two clusters at once should not race for the same
    for port in range(start, PORTS.stop):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} ports are free")


def _until_answered(port: int) -> None:
    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    _until(answers, f"nothing answers on port {port}")


def _until(condition: Callable[[], bool], otherwise: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(0.1)
