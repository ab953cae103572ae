"""The one door for models: whatever a service takes, at a start, a swap, a rollback or as a shadow, comes through it.

Refused before? -> the file, by its digest -> canary, in a process of its own: allowlist, card, outputs, speed -> loaded
on the service's device -> the same windows as now -> warm-up. A model that fails is refused until its file is another
(deploy/models/verdicts.py); trouble on the way, with the registry, the disk or the machine, says nothing about a model.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from deploy.models.canary import rejection_reason, wrong_outputs
from deploy.models.loading import last_served, load_bytes, note_served, read_file
from deploy.models.predictor import Predictor, first_line
from deploy.models.verdicts import Verdicts
from deploy.settings.locations import models
from deploy.settings.serve import window_config
from deploy.settings.values import Device
from model.artifacts.allowlist import check_model
from model.artifacts.registry import Registry
from model.artifacts.versions import Version, parse_reference
from model.card import AnyCard, Card
from tidecast.errors import (
    ConfigError,
    CorruptModel,
    DataError,
    ModelRejected,
    ModelUnavailable,
    NotPermitted,
    RegistryError,
    RegistryUnavailable,
    ShapeError,
    TidecastError,
    UnsafeModel,
    unusable,
)

logger = logging.getLogger(__name__)


class Current(NamedTuple):
    """The model that serves, as far as another one is measured against it."""

    card: AnyCard
    data: bytes


class Admission:
    """Takes models for one consumer group: on its device, from its registry."""

    def __init__(self, tracking_uri: str, device: Device, group: str) -> None:
        self.registry = Registry(tracking_uri)
        self._device = device
        self._verdicts = Verdicts(models() / "verdicts", self.registry, group)

    def start(self, reference: str) -> Predictor:
        """The model to start with: a file, or what NAME@ALIAS or NAME/VERSION means now.

        If that is refused or out of reach, a name's last good version takes its place, which a warning says. If there
        is none, raises ModelRejected, ModelUnavailable or RegistryError; ConfigError for a file that is no model.
        """
        if reference.endswith(".onnx"):
            return self._admit_file(Path(reference))
        try:
            version = self.registry.resolve(reference)
            predictor = self.admit(version)
        except (ModelRejected, CorruptModel, ModelUnavailable, NotPermitted, RegistryUnavailable) as error:
            pinned = bool(parse_reference(reference)[1])
            if pinned and not isinstance(error, RegistryUnavailable):
                raise
            return self._last_good(reference, error)
        self.note_good(reference, version)
        return predictor

    def admit(self, version: Version, current: Current | None = None) -> Predictor:
        """A registered version, checked and warm.

        Raises ModelRejected if it is refused, now or before; CorruptModel, ModelUnavailable, RegistryUnavailable if it
        can't be had or tried now.
        """
        if reason := self._verdicts.refusal(version.sha256, version):
            raise _rejected(version, reason)
        try:
            data = self.registry.download(version, models()).read_bytes()
        except OSError as error:
            raise unusable(error.filename or models(), error, ModelUnavailable) from error
        if sha256(data).hexdigest() != version.sha256:
            raise ModelUnavailable(f"{version.label}: its file was changed while it was read")
        try:
            return self._checked(data, version.label, version, current)
        except ModelRejected as error:
            raise _rejected(version, str(error)) from None

    def foreseen_refusal(self, predictor: Predictor, serving: AnyCard | None = None) -> str:
        """Why a loaded model would be refused, now or before, as far as is known without a canary; empty if not.

        With `serving` it is to predict that model's windows. Writes nothing.
        """
        if known := self._verdicts.known(predictor.sha256, predictor.version):
            return known
        try:
            reason = wrong_outputs(predictor)
        except Exception as error:  # anything may go wrong with an untested model
            reason = first_line(error)
        return reason or (incompatibility(predictor.card, serving) if serving else "")

    def refuse(self, version: Version, reason: str) -> None:
        """Refuse a version for what it did after it was taken."""
        self._verdicts.refuse(version.sha256, version.label, reason, version)

    def _admit_file(self, path: Path) -> Predictor:
        try:
            data = read_file(path)
            check_model(data)
        except UnsafeModel as error:
            raise ConfigError(f"{path}: {error}") from None
        try:
            if reason := self._verdicts.refusal(sha256(data).hexdigest()):
                raise ModelRejected(reason)
            return self._checked(data, path.name, None, None)
        except ModelRejected as error:
            raise ModelRejected(f"{path} is rejected: {error}") from None

    def _checked(self, data: bytes, label: str, version: Version | None, current: Current | None) -> Predictor:
        digest = sha256(data).hexdigest()

        def refused(reason: str, *, fit: bool = False) -> ModelRejected:
            self._verdicts.refuse(digest, label, reason, version, fit=fit)
            return ModelRejected(reason)

        if reason := self._found_by_canary(data, digest, label, version, current):
            raise ModelRejected(reason)
        try:
            predictor = load_bytes(data, label, self._device)
        except (ShapeError, DataError) as error:
            raise refused(str(error)) from None
        except UnsafeModel as error:
            if error.__cause__ is None:
                raise refused(str(error)) from None
            raise ModelUnavailable(f"{label}: {error}") from error
        if current and (reason := incompatibility(predictor.card, current.card)):
            raise refused(f"{reason}; switching to it takes a restart, with another group", fit=True)
        try:
            finite = predictor.warm_up()
        except Exception as error:  # it worked in the canary process: this is the device's trouble
            raise ModelUnavailable(f"{label} can't be tried on {predictor.device}: {error}") from error
        if not finite:
            raise refused(f"on {predictor.device} its output is not finite")
        return replace(predictor, version=version)

    def _found_by_canary(
        self, data: bytes, digest: str, label: str, version: Version | None, current: Current | None
    ) -> str:
        """Why a file must not serve, by a canary of this process or of another one; empty if it may."""
        with self._verdicts.trial(digest):
            if self._verdicts.has_passed(digest):
                return ""
            if reason := self._verdicts.known(digest, version):
                return reason
            if reason := rejection_reason(data, current.data if current else None):
                self._verdicts.refuse(digest, label, reason, version)
            else:
                self._verdicts.note_pass(digest, label)
            return reason

    def note_good(self, reference: str, version: Version) -> None:
        """Remember, here and in the registry, that a version serves by a name: a later start may need it."""
        note_served(reference, self.registry, version)
        if alias := parse_reference(reference)[2]:
            with suppress(RegistryError):
                self.registry.note_good(version, alias)

    def good_versions(self, reference: str) -> Iterator[Version]:
        """The versions to go back to, the last good one first. Raises RegistryError."""
        if served := last_served(reference, self.registry):
            yield served
        name, _, alias = parse_reference(reference)
        if alias:
            yield from self.registry.good_versions(name, alias)

    def _last_good(self, reference: str, trouble: TidecastError) -> Predictor:
        with suppress(RegistryError):
            for version in self.good_versions(reference):
                with suppress(ModelRejected, ModelUnavailable, NotPermitted, RegistryError):
                    predictor = self.admit(version)
                    problem = "the registry is unavailable: " * isinstance(trouble, RegistryUnavailable)
                    logger.warning(f"{problem}{trouble}; using {version.label}, the last good one of {reference}")
                    return predictor
        raise trouble


def _rejected(version: Version, reason: str) -> ModelRejected:
    return ModelRejected(f"{version.label} is rejected: {reason}")


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
