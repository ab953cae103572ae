"""Following an alias: new versions are admitted in the background, then swapped in between micro-batches.

A thread resolves the alias periodically; a version that it resolves to comes through deploy/models/admission.py. If
something is wrong with it or with the registry, the current model keeps serving, and a warning says why, once. A
rejected version is left alone; trouble with the registry, the disk or the machine is waited out, longer each time.
"""

import logging
import random
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.models.admission import Admission, Current
from deploy.models.predictor import Predictor, first_line
from model.artifacts.versions import Version
from tidecast.errors import CorruptModel, ModelRejected, RegistryUnavailable

logger = logging.getLogger(__name__)

REGISTRY, EARLIER = "the registry", "an earlier version"
LONGEST_WAIT_S = 30.0
"""Between two tries while there is trouble."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What the serving model did wrong, and input on which it did; as a ModelInput, its rows are all of that."""

    sha256: str
    reason: str
    inputs: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.inputs["x"])

    def arrays(self, start: int, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """The rows from start to stop."""
        return {name: array[start:stop] for name, array in self.inputs.items()}


@dataclass(slots=True)
class Following:
    """How it stands with an alias that is followed."""

    checked: float = 0.0
    """When the registry last said what it resolves to, in epoch seconds; 0 if it has not yet."""
    reachable: bool = True
    """Whether the registry answered the last time that it was asked."""
    up_to_date: bool = True
    """Whether what it resolved to then is taken."""
    refused: int = 0
    """Counter: versions that were refused, at once or for what they did."""


class ModelUpdater:
    """Provides each new version that an alias resolves to, checked and ready to serve."""

    def __init__(
        self,
        reference: str,
        admission: Admission,
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
        self._reference, self._admission, self._usual_wait_s = reference, admission, max_delay_s / 2
        self._log_prefix = log_prefix
        self.following, self._refused = Following(), set[str]()
        self._label, self._sha256 = ("", "") if empty else (serving.label, serving.sha256)
        self._current, self._serving = Current(serving.card, serving.data), serving.version
        self._said, self._trouble = "", ""
        self._tries = 0
        self._ready: SimpleQueue[Predictor] = SimpleQueue()
        self._requests: SimpleQueue[Complaint | None] = SimpleQueue()
        self._complaint: Complaint | None = None
        threading.Thread(target=self._run, name="model-updater", daemon=True).start()

    def take(self) -> Predictor | None:
        """The new model to switch to, if there is one; never blocks."""
        try:
            return self._ready.get_nowait()
        except Empty:
            return None

    def complain(self, complaint: Complaint) -> None:
        """Have the serving model refused, and replaced by the last version that does better on the complaint's input.

        If none does, it stays: then the input is to blame.
        """
        self._requests.put(complaint)

    def close(self) -> None:
        """Stop resolving the alias."""
        self._requests.put(None)

    def _run(self) -> None:
        while True:
            with suppress(Empty):
                self._complaint = self._requests.get(timeout=self._wait_s())
                if self._complaint is None:
                    return
            self._try()

    def _wait_s(self) -> float:
        """The usual time; with trouble more each time, by chance less, so that members do not come all at once."""
        if not self._tries:
            return self._usual_wait_s
        longest = max(LONGEST_WAIT_S, self._usual_wait_s)
        wait: float = min(longest, self._usual_wait_s * 2 ** min(self._tries, 10))
        return wait * random.uniform(0.5, 1)  # noqa: S311

    def _try(self) -> None:
        """Follow a complaint if there is one, else the alias; after trouble the next try does so again."""
        try:
            if self._complaint:
                self._go_back(self._complaint)
                self._complaint, self._tries = None, 0
            else:
                self._check_alias()
        except RegistryUnavailable as error:
            self.following.reachable = False
            self._have_trouble(REGISTRY, f"the registry is unavailable: {error}")
        except Exception as error:  # no failure of a model, a disk or a store may stop the service
            if self._complaint:
                self._have_trouble(EARLIER, f"no earlier version can be taken now: {first_line(error)}")
            else:
                self._tries = 0
                self._warn_once(str(error), first_line(error))

    def _check_alias(self) -> None:
        version = self._admission.registry.resolve(self._reference)
        self._over(REGISTRY, version)
        following = self.following
        following.reachable, following.checked = True, time.time()
        following.up_to_date = (version.label, version.sha256) == (self._label, self._sha256)
        if following.up_to_date:
            self._said = ""
        else:
            try:
                self._offer(self._admission.admit(version, self._current), version)
                following.up_to_date = True
            except ModelRejected as error:
                problem = f"{version.label} {version.sha256}"
                self._count_refusal(version.sha256)
                self._warn_once(problem, str(error))
            except Exception as error:
                verdict = "is rejected" if isinstance(error, CorruptModel) else "can't be taken now"
                self._have_trouble(version.label, f"{version.label} {verdict}: {first_line(error)}")
                return
        self._over(self._trouble, version)
        self._tries = 0

    def _go_back(self, complaint: Complaint) -> None:
        """Replace the serving model by the last good version that has finite outputs for the complaint's input."""
        bad = self._serving
        if bad is None or complaint.sha256 != self._sha256:
            return
        for earlier in self._admission.good_versions(self._reference):
            if earlier.sha256 == complaint.sha256:
                continue
            with suppress(ModelRejected, CorruptModel):
                predictor = self._admission.admit(earlier, self._current)
                if does_better(predictor, complaint):
                    self._admission.refuse(bad, complaint.reason)
                    self._count_refusal(bad.sha256)
                    self._warn(f"{bad.label} is rejected: {complaint.reason}; going back to {earlier.label}")
                    self._offer(predictor, earlier)
                    return
        self._warn_once(complaint.reason, f"{complaint.reason}; no earlier version does better, so it stays")

    def _count_refusal(self, sha256: str) -> None:
        self._refused.add(sha256)
        self.following.refused = len(self._refused)

    def _offer(self, predictor: Predictor, version: Version) -> None:
        self._label, self._sha256, self._serving = version.label, version.sha256, version
        self._current = Current(predictor.card, predictor.data)
        self._said = ""
        while self.take() is not None:  # an older update that the service has not picked up is obsolete
            pass
        self._ready.put(predictor)
        self._admission.note_good(self._reference, version)

    def _have_trouble(self, what: str, message: str) -> None:
        """Warn, but not again until it is over, and wait for longer."""
        self._tries += 1
        if self._trouble != what:
            self._warn(message)
        self._trouble = what

    def _over(self, what: str, version: Version) -> None:
        if self._trouble and self._trouble == what:
            again = f"{what} is available again; {self._reference} resolves to {version.label}"
            logger.info(f"{self._log_prefix}{again}")
            self._trouble = ""

    def _warn_once(self, problem: str, message: str) -> None:
        """Log a warning, but not again and again for the same problem."""
        if self._said != problem:
            self._warn(message)
        self._said = problem

    def _warn(self, message: str) -> None:
        status = f"still serving {self._label}" if self._label else "no model yet"
        logger.warning(f"{self._log_prefix}{status}: {message}")


def does_better(predictor: Predictor, complaint: Complaint) -> bool:
    """Whether a model has finite outputs where the complaint's model had none."""
    failed: dict[int, str] = {}
    return all(bool(np.isfinite(outputs).all()) for outputs in predictor.predict(complaint, failed)) and not failed
