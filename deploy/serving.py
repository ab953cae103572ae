"""`tidecast serve`: a service with its log, its model and who follows that, until it is told to stop."""

import signal
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from threading import Event as Flag

from deploy.config import Device, ServeConfig, open_log
from deploy.console import say
from deploy.follow import Follower
from deploy.predictor import Predictor, fetch
from deploy.service import Service
from deploy.tasks import task_of


def serve(config: ServeConfig, model: str, device: Device, bootstrap: str, tracking_uri: str) -> dict[str, object]:
    """`tidecast serve`: run until SIGTERM or Ctrl-C; what was done."""
    stop = _stop_on_signals()
    with ExitStack() as stack:
        service = _service(fetch(model, tracking_uri, device), model, config, device, bootstrap, tracking_uri, stack)
        totals = service.run(stop)
    called, served = service.called, service.serving
    unused = f", {totals.late:,} late and {totals.duplicate:,} duplicate events not used"
    say(f"stopped: {totals.in_words(called)}{unused if called == 'forecasts' else ''}")
    return {"model": served.label, "device": served.device, "output": service.output, **asdict(totals)}


def _service(
    predictor: Predictor,
    model: str,
    config: ServeConfig,
    device: Device,
    bootstrap: str,
    tracking_uri: str,
    stack: ExitStack,
) -> Service:
    """A service on a log; what it leaves open is closed by the stack. Nothing else keeps its first model."""
    log = stack.enter_context(closing(open_log(bootstrap)))
    task = task_of(predictor, config)
    config = replace(config, output=config.output or f"{config.topic}-{task.called}")
    follower = None
    if "/" not in model and not model.endswith(".onnx"):
        follower = Follower(model, tracking_uri, device, predictor, config.follow_s, say)
        stack.callback(follower.close)
    service = Service(log, predictor, task, config, say, follower)
    say(f"{config.topic} -> {config.output} as {config.group}/{config.instance}, on {log.label}")
    say(f"{predictor.label} on {predictor.device}: {predictor.because}")
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
