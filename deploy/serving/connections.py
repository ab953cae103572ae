"""What a service is connected to, and what stops it."""

import signal
import threading
from dataclasses import dataclass, field

from deploy.serving.webhook import parse_target
from deploy.settings.serve import ServeConfig
from deploy.settings.values import Device
from deploy.web import Listener
from tidecast.errors import ConfigError


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


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set; a second Ctrl-C ends the process at once."""
    stop = threading.Event()

    def handle(number: int, _: object) -> None:
        stop.set()
        if number == signal.SIGINT:  # a supervisor may well send SIGTERM twice
            signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop
