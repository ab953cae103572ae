"""Following an alias: new versions are loaded and checked in the background, then swapped in between micro-batches.

A thread resolves the alias periodically. A new version is downloaded, compared with its registered sha256, run in a
canary process, loaded, and warmed up before the service gets it. If anything is wrong with it or with the registry,
the current model keeps serving, and a warning says why.
"""

import logging
import threading
from queue import Empty, SimpleQueue

from deploy.models.canary import SyntheticInput, rejection_reason
from deploy.models.loading import load_onnx
from deploy.models.predictor import Predictor
from deploy.settings.locations import MODELS
from deploy.settings.serve import window_config
from deploy.settings.values import Device
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from model.card import AnyCard, Card
from tidecast.errors import ModelRejected, RegistryError, RegistryUnavailable

logger = logging.getLogger(__name__)


class ModelUpdater:
    """Provides each new version that an alias resolves to, checked and ready to serve."""

    def __init__(
        self,
        reference: str,
        tracking_uri: str,
        device: Device,
        serving: Predictor,
        max_delay_s: float,
        *,
        empty: bool = False,
        log_prefix: str = "",
    ) -> None:
        """`reference` is NAME or NAME@ALIAS; it is resolved twice per `max_delay_s`, so an update takes no longer.

        New versions must be compatible with `serving`, the model that the reference resolves to now. With `empty` it
        is only a model to be compatible with, and the reference may not resolve to anything yet.
        """
        self._reference, self._device, self._max_delay_s = reference, device, max_delay_s
        self._log_prefix = log_prefix
        self._registry = Registry(tracking_uri)
        self._label, self._card, self._path = "" if empty else serving.label, serving.card, serving.path
        self._last_problem, self._registry_down = "", False
        self._passed = {serving.sha256}
        self._ready: SimpleQueue[Predictor] = SimpleQueue()
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="model-updater", daemon=True).start()

    def take(self) -> Predictor | None:
        """The new model to switch to, if there is one; never blocks."""
        try:
            return self._ready.get_nowait()
        except Empty:
            return None

    def close(self) -> None:
        """Stop resolving the alias."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(self._max_delay_s / 2):
            try:
                self._check_alias()
            except RegistryUnavailable as error:
                if not self._registry_down:
                    self._warn(f"the registry is unavailable: {error}")
                self._registry_down = True
            except RegistryError as error:
                self._warn_once(str(error), str(error))
            except Exception as error:  # no failure of a model or a disk may stop the service
                self._warn_once(str(error), f"{type(error).__name__}: {error}")

    def _check_alias(self) -> None:
        version = self._registry.resolve(self._reference)
        if self._registry_down:
            self._registry_down = False
            logger.info(
                f"{self._log_prefix}the registry is available again; {self._reference} resolves to {version.label}"
            )
        if version.label == self._label:
            self._last_problem = ""
        elif version.label != self._last_problem:
            self._prepare(version)

    def _prepare(self, version: Version) -> None:
        try:
            predictor = self._load_checked(version)
        except Exception as error:
            self._warn_once(version.label, f"{version.label} is rejected: {error}")
            return
        self._label, self._card, self._path = predictor.label, predictor.card, predictor.path
        self._last_problem = ""
        while self.take() is not None:  # an older update that the service has not picked up is obsolete
            pass
        self._ready.put(predictor)

    def _load_checked(self, version: Version) -> Predictor:
        path = self._registry.download(version, MODELS)
        if version.sha256 not in self._passed and (reason := rejection_reason(path, self._path)):
            raise ModelRejected(reason)
        predictor = load_onnx(path, version.label, self._device)
        if reason := incompatibility(predictor.card, self._card):
            raise ModelRejected(f"{reason}; switching to it takes a restart")
        list(predictor.predict(SyntheticInput(predictor)))
        self._passed.add(predictor.sha256)
        return predictor

    def _warn_once(self, problem: str, message: str) -> None:
        """Log a warning, but not again and again for the same problem."""
        if self._last_problem != problem:
            self._warn(message)
        self._last_problem = problem

    def _warn(self, message: str) -> None:
        status = f"still serving {self._label}" if self._label else "no model yet"
        logger.warning(f"{self._log_prefix}{status}: {message}")


def incompatibility(card: AnyCard, current: AnyCard) -> str:
    """Why a model can't predict the current model's windows; empty if it can."""
    if type(card) is not type(current):
        return f"its task is {card.task}, not {current.task}"
    if isinstance(card, Card) and isinstance(current, Card):
        if window_config(card.input) != window_config(current.input):
            return f"its windows ({card.input.seq_len} steps of {card.input.freq}) differ from the current ones"
        if (card.output.horizon, card.output.targets) != (current.output.horizon, current.output.targets):
            return f"it forecasts {card.output.horizon} steps of {', '.join(card.output.targets)}"
    return ""
