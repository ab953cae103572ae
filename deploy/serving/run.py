"""`tidecast serve`: connects a service to its log, registry, model and shadow, and runs it until a signal."""

import gc
import logging
import signal
import threading
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from deploy.logs import show_timestamps
from deploy.models.admission import Admission
from deploy.models.updates import ModelUpdater
from deploy.serving.identity import fenced, instance_name
from deploy.serving.loop import Service
from deploy.serving.monitoring.group_offsets import OffsetWatch
from deploy.serving.shadow import Shadow
from deploy.serving.tasks import task_for
from deploy.serving.webhook import Webhook, parse_target
from deploy.settings.files import another_connection, open_log
from deploy.settings.serve import ServeConfig
from deploy.settings.values import Device
from deploy.web import Listener
from pipeline.log import EventLog
from tidecast.errors import ConfigError, ConsumerFenced

if TYPE_CHECKING:
    from deploy.serving.monitoring.http import HttpServer

logger = logging.getLogger(__name__)

COLLECT_EVERY = 20_000
"""Objects between two of Python's collections, which look at those of a whole batch, nearly all in use: a record makes
about twenty, and hardly one is part of a cycle.
"""
ASKED_WITHIN_S = 5.0
"""How long the broker may take to say where the group stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """The models and systems that a service is connected to."""

    model: str
    """NAME or NAME@ALIAS, which is followed; NAME/VERSION or a file.onnx, which is not."""
    shadow: str | None = None
    """A second model on the same windows, as NAME@ALIAS or NAME/VERSION."""
    alert_webhook: str | None = field(default=None, repr=False)
    """Where alerts are posted; it may have secrets in it."""
    http: Listener | None = None
    """Where health and metrics can be asked for."""
    device: Device = "auto"
    bootstrap: str
    tracking_uri: str

    def __post_init__(self) -> None:
        if self.shadow and self.shadow.endswith(".onnx"):
            raise ConfigError("shadow: give NAME@ALIAS or NAME/VERSION of the registry")
        if self.alert_webhook:
            parse_target(self.alert_webhook)

    def check_alerts(self, config: ServeConfig) -> None:
        """Raises ConfigError if alerts are to be posted and there are none."""
        if self.alert_webhook and not config.alerts_topic:
            raise ConfigError("alert-webhook: a model of texts has no alerts")


def serve(config: ServeConfig, connections: Connections) -> dict[str, object]:
    """`tidecast serve`: run until SIGTERM or Ctrl-C; a summary."""
    stop = _stop_on_signals()
    with ExitStack() as stack:
        http = _http(connections.http, stack)
        log, service = _connect(config, connections, stack)
        if http:
            http.attach(service.stats, lambda: service.watchdog.alive)
            stack.enter_context(closing(_offset_watch(connections.bootstrap, service)))
        show_timestamps()
        gc.set_threshold(COLLECT_EVERY)
        gc.freeze()  # otherwise a full collection, of all imported modules too, delays forecasts by a tenth of a second
        try:
            stats = service.run(stop)
        except ConsumerFenced as error:
            raise fenced(error, log, service.config) from error
    unused = f", {stats.late_events:,} late and {stats.duplicate_events:,} duplicate events not used"
    logger.info(f"stopped: {stats.counts_line()}{unused if stats.output_kind == 'forecasts' else ''}")
    return {"output": service.config.output, **stats.summary()}


def _connect(config: ServeConfig, connections: Connections, stack: ExitStack) -> tuple[EventLog, Service]:
    """A log, and a service on it; the stack closes what it opens.

    Only the service refers to its model, so that a swap frees it.
    """
    admission = Admission(connections.tracking_uri, connections.device, config.group)
    predictor = admission.start(connections.model)
    log = stack.enter_context(closing(open_log(connections.bootstrap)))
    task = task_for(predictor, config)
    instance = config.instance or stack.enter_context(instance_name(config.group))
    config = replace(config, instance=instance).with_outputs(task.output_kind, shadow=bool(connections.shadow))
    connections.check_alerts(config)

    def follow(reference: str, *, empty: bool = False, log_prefix: str = "") -> ModelUpdater:
        updater = ModelUpdater(reference, admission, predictor, config.follow_s, empty=empty, log_prefix=log_prefix)
        stack.callback(updater.close)
        return updater

    pinned = "/" in connections.model or connections.model.endswith(".onnx")
    model_updater = None if pinned else follow(connections.model)
    shadow = None
    if connections.shadow:
        shadow = Shadow(follow(connections.shadow, empty=True, log_prefix="shadow: "), config)
    webhook = None
    if connections.alert_webhook:
        webhook = stack.enter_context(closing(Webhook(connections.alert_webhook, config.alerts_topic)))
    service = Service(log, predictor, task, config, model_updater, shadow, webhook)
    logger.info(f"{config.topic} -> {config.output} as {config.group}/{config.instance}, on {log.label}")
    logger.info(f"{predictor.label} on {predictor.device}: {predictor.device_reason}")
    return log, service


def _http(listener: Listener | None, stack: ExitStack) -> "HttpServer | None":
    if listener is None:
        return None
    from deploy.serving.monitoring.http import HttpServer

    return stack.enter_context(closing(HttpServer(listener)))


def _offset_watch(bootstrap: str, service: Service) -> OffsetWatch:
    config = service.config
    return OffsetWatch(
        lambda: another_connection(bootstrap, ASKED_WITHIN_S), config.group, config.topic, service.stats.offsets
    )


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set; a second Ctrl-C ends the process at once."""
    stop = threading.Event()

    def handle(number: int, _: object) -> None:
        stop.set()
        if number == signal.SIGINT:  # a supervisor may well send SIGTERM twice
            signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop
