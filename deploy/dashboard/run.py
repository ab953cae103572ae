"""`tidecast dashboard`: which topics are shown, the reader of them, and the server of the page."""

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from deploy.console import printable
from deploy.dashboard.app import make_app
from deploy.dashboard.stream import Streams
from deploy.dashboard.topics.reader import Reader
from deploy.dashboard.topics.state import State, Topics
from deploy.dashboard.views.registry import RegistryView
from deploy.dashboard.views.whole import Views
from deploy.settings.files import another_connection, decode_paths, open_log
from deploy.settings.serve import group_name
from deploy.web import Access, listen, read_token
from model.artifacts.versions import parse_reference
from pipeline.log import EventLog
from tidecast.errors import ConfigError, LogUnavailable, NotAuthorized

logger = logging.getLogger(__name__)

KINDS = ("forecasts", "labels")
"""What an output topic is called after its input."""
SHOWN = 20
"""Most topics and groups that a message names."""
MOST_GROUPS = 50
"""Most groups that are asked whether they have read a topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is shown, and where."""

    bootstrap: str
    tracking_uri: str
    topic: str | None = None
    output: str | None = None
    group: str | None = None
    model: str | None = None
    features: tuple[str, ...] | None = None
    since: int | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    token_file: Path | None = None
    allowed_hosts: Sequence[str] = field(default=())


PATIENCE_S = 5.0
"""After which Kafka counts as out of reach: the page says so, and tries again."""


def dashboard(options: Options) -> None:
    """Serve the page until it is interrupted."""
    with suppress(OSError, AttributeError):  # whatever serves on this machine comes first
        os.nice(19)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # Linux
    access = Access.of(options.host, read_token(options.token_file), options.allowed_hosts)
    with closing(listen("port", options.host, options.port)) as server:
        print(_address(server, options.host, with_token=bool(access.token)), flush=True)  # noqa: T201
        address = options.bootstrap
        log = open_log(address, PATIENCE_S)
        topics = find_topics(log, options)
        group = f"group {topics.group}" if topics.group else "no group: --group NAME shows its lag"
        logger.info(f"showing {topics.input} and {topics.output}, {group}")
        state = State(topics)
        members = not address.startswith("sqlite:")
        reader = Reader(lambda: _again(address), log, state, options.since, members=members)
        name = None if not options.model or options.model.endswith(".onnx") else parse_reference(options.model)[0]
        views = Views(state, reader, RegistryView(options.tracking_uri, name), log.label, options.bootstrap)
        reader.start()
        try:
            with suppress(KeyboardInterrupt):
                _serve(views, reader, access, server)
        finally:
            reader.stop()
            state.store.close()


def _address(server: socket.socket, host: str, *, with_token: bool) -> str:
    name, port = f"[{host}]" if ":" in host else host, server.getsockname()[1]
    return f"http://{name}:{port}/" + ("?token=... (the first time)" if with_token else "")


def _again(address: str) -> EventLog:
    """Another connection to the log; none to an embedded one that is gone, as that would make it anew."""
    if address.startswith("sqlite:") and not Path(address.removeprefix("sqlite:")).exists():
        raise LogUnavailable(f"{address}: the file is gone")
    return another_connection(address, PATIENCE_S)


def _serve(views: Views, reader: Reader, access: Access, server: socket.socket) -> None:
    streams = Streams(views, reader)
    config = uvicorn.Config(
        make_app(views, streams, access),
        access_log=False,
        log_config=None,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        ws="none",
        h11_max_incomplete_event_size=16_384,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[server])


def find_topics(log: EventLog, options: Options) -> Topics:
    """The topics of a service. Raises ConfigError, with the list, where it has to be said which are meant."""
    names = log.topics()
    topic, output = options.topic, options.output
    if topic is None:
        topic, beside = _only_topic(names)
        output = output or beside
        logger.info(f"{topic} is the only topic with forecasts or labels beside it; --topic NAME takes another")
    if output is None:
        forecasts, labels = (f"{topic}-{kind}" for kind in KINDS)
        output = labels if labels in names and forecasts not in names else forecasts
    group = options.group or find_group(log, names, topic, options.model)
    paths = decode_paths(options.bootstrap)
    return Topics(input=topic, output=output, group=group, features=options.features, paths=paths)


def _only_topic(names: Sequence[str]) -> tuple[str, str]:
    """The topic with forecasts or labels beside it, and those. Raises ConfigError if there is not one."""
    found = [(name, f"{name}-{kind}") for name in names for kind in KINDS if f"{name}-{kind}" in names]
    if len(found) == 1:
        return found[0]
    there = (
        f"of {', '.join(name for name, _ in found[:SHOWN])}" if found else "none has -forecasts or -labels beside it"
    )
    raise ConfigError(f"topic: --topic NAME says which one is shown: {there}")


def find_group(log: EventLog, names: Sequence[str], topic: str, model: str | None) -> str | None:
    """The group of the service: as it is called by default, or the only one that has read the topic."""
    if model:
        return group_name(topic, model)
    groups = [name.removesuffix("-state") for name in names if name.endswith("-state")]
    groups = [name for name in groups if f"{name}-dead-letters" in names]
    prefix = f"tidecast-{topic}"
    chosen = [name for name in groups[:MOST_GROUPS] if topic in names and _has_read(log, name, topic)]
    chosen = chosen or [name for name in groups if name == prefix or name.startswith(f"{prefix}-")]
    if len(chosen) > 1:
        there = ", ".join(map(printable, chosen[:SHOWN]))
        logger.info(f"of several groups none is shown: --group NAME takes one of {there}")
    return chosen[0] if len(chosen) == 1 else None


def _has_read(log: EventLog, group: str, topic: str) -> bool:
    with suppress(NotAuthorized):
        return bool(log.committed(group, topic))
    return False
