"""`tidecast serve`: connects a service to its log, registry, model and shadow, and runs it until a signal."""

import gc
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace

from deploy.logs import show_timestamps
from deploy.models.admission import Admission
from deploy.models.updates import ModelUpdater
from deploy.serving.connections import Connections, stop_on_signals
from deploy.serving.identity import fenced, instance_name
from deploy.serving.loop import Service
from deploy.serving.monitoring.group_offsets import offset_watch
from deploy.serving.monitoring.report import ServiceReport
from deploy.serving.shadow import Shadow
from deploy.serving.tasks import task_for
from deploy.serving.webhook import Webhook
from deploy.settings.files import open_log
from deploy.settings.serve import ServeConfig
from deploy.web import Listener
from pipeline.log import EventLog
from tidecast.errors import ConsumerFenced, LogError

logger = logging.getLogger(__name__)

COLLECT_EVERY = 20_000
"""Objects between two of Python's collections, which look at those of a whole batch, nearly all in use: a record makes
about twenty, and hardly one is part of a cycle.
"""


def serve(config: ServeConfig, connections: Connections) -> dict[str, object]:
    """`tidecast serve`: run until SIGTERM or Ctrl-C; a summary."""
    stop = stop_on_signals()
    with ExitStack() as stack:
        report = stack.enter_context(_told(connections.http)) if connections.http else None
        service = run(config, connections, stop, report, watched=report is not None)
    return {"output": service.config.output, **service.stats.summary()}


def run(
    config: ServeConfig,
    connections: Connections,
    stop: threading.Event,
    report: ServiceReport | None,
    *,
    watched: bool,
    predecessor: bool = False,
) -> Service:
    """Serve until `stop` is set; the service, of which the report tells.

    `watched`: it asks where its group stands. `predecessor`: a dead process of this instance leaves the group first.
    """
    with ExitStack() as stack:
        log, service = _connect(config, connections, stack, predecessor=predecessor)
        if report:
            report.attach(service.stats, lambda: service.watchdog.alive)
        if watched:
            stack.enter_context(closing(offset_watch(connections.bootstrap, service.config, service.stats.offsets)))
        show_timestamps()
        gc.set_threshold(COLLECT_EVERY)
        gc.freeze()  # otherwise a full collection, of all imported modules too, delays forecasts by a tenth of a second
        try:
            stats = service.run(stop)
        except ConsumerFenced as error:
            raise fenced(error, log, service.config) from error
    unused = f", {stats.late_events:,} late and {stats.duplicate_events:,} duplicate events not used"
    logger.info(f"stopped: {stats.counts_line()}{unused if stats.output_kind == 'forecasts' else ''}")
    return service


def _connect(
    config: ServeConfig, connections: Connections, stack: ExitStack, *, predecessor: bool
) -> tuple[EventLog, Service]:
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
    if predecessor:
        with suppress(LogError):  # it leaves by its session timeout
            log.remove_member(config.group, config.instance)
    service = Service(log, predictor, task, config, model_updater, shadow, webhook)
    logger.info(f"{config.topic} -> {config.output} as {config.group}/{config.instance}, on {log.label}")
    logger.info(f"{predictor.label} on {predictor.device}: {predictor.device_reason}")
    return log, service


@contextmanager
def _told(listener: Listener) -> Iterator[ServiceReport]:
    """A report that can be asked for."""
    from deploy.serving.monitoring.http import HttpServer

    report = ServiceReport()
    with closing(HttpServer(listener, report)):
        yield report
