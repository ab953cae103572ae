"""`tidecast dashboard`: which topics are shown, the reader of them, and the server of the page."""

import logging
import signal
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from deploy.console import printable
from deploy.dashboard.app import make_app
from deploy.dashboard.reader import Reader
from deploy.dashboard.registry import RegistryView
from deploy.dashboard.state import State, Topics
from deploy.dashboard.stream import Streams
from deploy.dashboard.views import Views
from deploy.settings.files import decode_paths, open_log
from deploy.settings.serve import group_name
from deploy.web import Access, listen, read_token
from pipeline.log import EventLog
from pipeline.log.connect import connect
from tidecast.errors import ConfigError

logger = logging.getLogger(__name__)

KINDS = ("forecasts", "labels")


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


def dashboard(options: Options) -> None:
    """Serve the page until it is interrupted."""
    access = Access.of(options.host, read_token(options.token_file), options.allowed_hosts)
    with closing(listen("port", options.host, options.port)) as server:
        port = server.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        hint = " (with ?token=... once)" if access.token else ""
        print(f"http://{host}:{port}/{hint}", flush=True)  # noqa: T201
        log = open_log(options.bootstrap)
        topics = find_topics(log, options)
        logger.info(
            f"{log.label}: {topics.input}, {topics.output}, "
            + (f"group {topics.group}" if topics.group else "no group: --group shows its lag")
        )
        state = State(topics)
        kafka = getattr(options.bootstrap, "kafka", None)
        reader = Reader(lambda: connect(options.bootstrap, kafka), log, state, options.since)
        name = options.model and options.model.partition("@")[0].partition("/")[0]
        views = Views(state, reader, RegistryView(options.tracking_uri, name), log.label)
        streams = Streams(views, reader)
        config = uvicorn.Config(
            make_app(views, streams, access),
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=1,
            ws="none",
            proxy_headers=False,
            h11_max_incomplete_event_size=16_384,
        )
        reader.start()
        try:
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[server])
        finally:
            reader.stop()
            log.close()
            state.store.close()


def find_topics(log: EventLog, options: Options) -> Topics:
    """The topics of a service. Raises ConfigError, with the list, where it has to be said which are meant."""
    names = log.topics()
    topic, output = options.topic, options.output
    if topic is None:
        found = [(name, f"{name}-{kind}") for name in names for kind in KINDS if f"{name}-{kind}" in names]
        if len(found) != 1:
            there = ", ".join(printable(name) for name, _ in found[:20])
            raise ConfigError(
                f"topic: which one? --topic NAME; these have forecasts or labels: {there}"
                if found
                else "topic: --topic NAME says which one; none of the log's has a topic -forecasts or -labels beside it"
            )
        ((topic, beside),) = found
        output = output or beside
        logger.info(f"{topic}, the only topic with forecasts or labels; --topic takes another")
    if output is None:
        output = (
            f"{topic}-labels"
            if f"{topic}-labels" in names and f"{topic}-forecasts" not in names
            else f"{topic}-forecasts"
        )
    group = options.group or find_group(names, topic, options.model)
    return Topics(
        input=topic, output=output, group=group, features=options.features, paths=decode_paths(options.bootstrap)
    )


def find_group(names: Sequence[str], topic: str, model: str | None) -> str | None:
    """The group of the service: as it is called by default, or the only one whose topics there are."""
    if model:
        return group_name(topic, model)
    found = [
        name.removesuffix("-state")
        for name in names
        if name.endswith("-state") and f"{name.removesuffix('-state')}-dead-letters" in names
    ]
    prefix = f"tidecast-{topic}"
    ours = [name for name in found if name == prefix or name.startswith(f"{prefix}-")]
    chosen = ours or found
    if len(chosen) == 1:
        return chosen[0]
    if len(chosen) > 1:
        there = ", ".join(map(printable, chosen[:20]))
        logger.info(f"of several groups none is shown: --group NAME takes one of {there}")
    return None


__all__ = ["Options", "dashboard", "signal"]
