"""`tidecast serve`: a service with its log, its model and who follows that, until it is told to stop."""

import gc
import logging
import signal
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from threading import Event as Flag

from deploy.serving.loop import Service
from deploy.serving.model_loading import load_model
from deploy.serving.model_updates import ModelUpdater
from deploy.serving.predictor import Predictor
from deploy.serving.shadow import Shadow
from deploy.serving.tasks import task_of
from deploy.settings.serve import Device, ServeConfig, open_log
from tidecast.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """What a service is connected to."""

    model: str
    """NAME or NAME@ALIAS, which is followed; NAME/VERSION or a file.onnx."""
    shadow: str | None = None
    """A second model on the same windows, as NAME@ALIAS or NAME/VERSION."""
    device: Device = "auto"
    bootstrap: str
    tracking_uri: str

    def __post_init__(self) -> None:
        if self.shadow and self.shadow.endswith(".onnx"):
            raise ConfigError("shadow: give NAME@ALIAS or NAME/VERSION of the registry")


def serve(config: ServeConfig, connections: Connections) -> dict[str, object]:
    """`tidecast serve`: run until SIGTERM or Ctrl-C; what was done."""
    stop = _stop_on_signals()
    with ExitStack() as stack:
        service = _service(
            load_model(connections.model, connections.tracking_uri, connections.device), config, connections, stack
        )
        gc.freeze()  # else a collection, of all that was imported too, holds every answer up for a tenth of a second
        stats = service.run(stop)
    unused = f", {stats.late:,} late and {stats.duplicate:,} duplicate events not used"
    logger.info(f"stopped: {stats.line()}{unused if stats.output_kind == 'forecasts' else ''}")
    return {"output": service.output, **stats.summary()}


def _service(predictor: Predictor, config: ServeConfig, connections: Connections, stack: ExitStack) -> Service:
    """A service on a log; what it leaves open is closed by the stack. Nothing else keeps its first model."""

    def updater(reference: str, *, none: bool = False, prefix: str = "") -> ModelUpdater:
        made = ModelUpdater(
            reference,
            connections.tracking_uri,
            connections.device,
            predictor,
            config.follow_s,
            none=none,
            prefix=prefix,
        )
        stack.callback(made.close)
        return made

    log = stack.enter_context(closing(open_log(connections.bootstrap)))
    task = task_of(predictor, config)
    output = config.output or f"{config.topic}-{task.output_kind}"
    config = replace(config, output=output, shadow_topic=f"{output}-shadow" if connections.shadow else "")
    fixed = "/" in connections.model or connections.model.endswith(".onnx")
    followed = None if fixed else updater(connections.model)
    shadow = None
    if connections.shadow:
        shadow = Shadow(updater(connections.shadow, none=True, prefix="shadow: "), config)
    service = Service(log, predictor, task, config, followed, shadow)
    logger.info(f"{config.topic} -> {config.output} as {config.group}/{config.instance}, on {log.label}")
    logger.info(f"{predictor.label} on {predictor.device}: {predictor.device_reason}")
    return service


def _stop_on_signals() -> Flag:
    """A flag that SIGTERM and Ctrl-C set; a second Ctrl-C ends the process at once."""
    stop = Flag()

    def ask(number: int, _: object) -> None:
        stop.set()
        if number == signal.SIGINT:  # a supervisor may well send SIGTERM twice
            signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop
