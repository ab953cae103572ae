"""Which model serves: the one that an alias means, and soon the one that it means then.

The alias is looked up in a thread of its own. What it means anew is downloaded, compared with its digest, checked,
tried in a process of its own and warmed up; only then may serving take it, between two micro-batches. Whatever is wrong
with it, or with the registry, the old one goes on, and a line says why.
"""

import logging
import threading
from queue import Empty, SimpleQueue

from deploy.serving.canary import SyntheticInput, refusal
from deploy.serving.model_loading import load_onnx
from deploy.serving.predictor import Predictor
from deploy.settings.serve import MODELS, Device, window_config
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from model.card import AnyCard, Card
from tidecast.errors import ModelRejected, RegistryError, RegistryUnavailable

logger = logging.getLogger(__name__)


class ModelUpdater:
    """Brings the versions that an alias comes to mean."""

    def __init__(
        self,
        reference: str,
        tracking_uri: str,
        device: Device,
        serving: Predictor,
        every_s: float,
        *,
        none: bool = False,
        prefix: str = "",
    ) -> None:
        """`reference` is NAME or NAME@ALIAS; what it comes to mean takes over within `every_s`, for which it is looked
        up twice in that time. `serving` is what it means now, or where there is `none` yet, what its models must
        fit. `prefix` begins each of its log lines.
        """
        self._reference, self._device, self._every_s, self._prefix = reference, device, every_s, prefix
        self._registry = Registry(tracking_uri)
        self._label, self._card, self._path = "" if none else serving.label, serving.card, serving.path
        self._rejected, self._lost = "", False
        self._tried = {serving.sha256}
        self._ready: SimpleQueue[Predictor] = SimpleQueue()
        self._closed = threading.Event()
        threading.Thread(target=self._follow, name="model-updater", daemon=True).start()

    def take(self) -> Predictor | None:
        """The model to go on with, if it is another one; never waits."""
        try:
            return self._ready.get_nowait()
        except Empty:
            return None

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _follow(self) -> None:
        while not self._closed.wait(self._every_s / 2):
            try:
                self._look()
            except RegistryUnavailable as error:
                if not self._lost:
                    self._warn(f"the registry is unavailable: {error}")
                self._lost = True
            except RegistryError as error:
                self._alert(str(error), str(error))
            except Exception as error:  # no mistake of a model or a disk may end serving
                self._alert(str(error), f"{type(error).__name__}: {error}")

    def _look(self) -> None:
        version = self._registry.resolve(self._reference)
        if self._lost:
            self._lost = False
            logger.info(f"{self._prefix}the registry is available again; {self._reference} is {version.label}")
        if version.label == self._label:
            self._rejected = ""
        elif version.label != self._rejected:
            self._take_up(version)

    def _take_up(self, version: Version) -> None:
        try:
            made = self._checked(version)
        except Exception as error:
            self._alert(version.label, f"{version.label} is rejected: {error}")
            return
        self._label, self._card, self._path, self._rejected = made.label, made.card, made.path, ""
        while self.take() is not None:  # serving has not come to take that one: it is two behind
            pass
        self._ready.put(made)

    def _checked(self, version: Version) -> Predictor:
        path = self._registry.download(version, MODELS)
        if version.sha256 not in self._tried and (reason := refusal(path, self._path)):
            raise ModelRejected(reason)
        made = load_onnx(path, version.label, self._device)
        if reason := incompatibility(made.card, self._card):
            raise ModelRejected(f"{reason}: that takes a restart")
        list(made.predict(SyntheticInput(made)))
        self._tried.add(made.sha256)
        return made

    def _alert(self, about: str, line: str) -> None:
        if self._rejected != about:
            self._warn(line)
        self._rejected = about

    def _warn(self, line: str) -> None:
        serving = f"still serving {self._label}" if self._label else "no model yet"
        logger.warning(f"{self._prefix}{serving}: {line}")


def incompatibility(card: AnyCard, before: AnyCard) -> str:
    """What keeps a model from answering the windows of the one before it; empty if nothing does."""
    if type(card) is not type(before):
        return f"its task is {card.task}, not {before.task}"
    if isinstance(card, Card) and isinstance(before, Card):
        if window_config(card.input) != window_config(before.input):
            return f"its windows are {card.input.seq_len} steps of {card.input.freq}, not the same as those at work"
        if (card.output.horizon, card.output.targets) != (before.output.horizon, before.output.targets):
            return f"it forecasts {card.output.horizon} steps of {', '.join(card.output.targets)}"
    return ""
