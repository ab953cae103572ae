"""Where models are kept: runs, versions and aliases in MLflow. The only importer of mlflow, and lazily so.

Whatever goes wrong is a RegistryError (tidecast.errors).
Look-ups work with mlflow-skinny against a server; a local SQLite store needs the full mlflow.
"""

import hashlib
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from model.card import MODEL_FILE
from tidecast.errors import (
    CorruptModel,
    PromotionConflict,
    RegistryError,
    RegistryUnavailable,
    TrainingConfigError,
    UnknownModel,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
JOB = "tidecast.job"
"""The tag by which a run and a version tell which job made them."""
PROMOTED = "tidecast.promoted"
"""The tag of a version that has become champion by `promote`: when, in epoch milliseconds."""
_EARLIER = "tidecast.champions"
"""The tag of a model that remembers its earlier champions, the last one last."""
_REMEMBERED = 50
_SQLITE = "sqlite:///"
_NAME = r"[^/@:]+"
_METRICS_A_CALL = 1000


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version of a model."""

    name: str
    number: str
    run_id: str
    sha256: str
    """Of the ONNX file, in hex."""
    tags: dict[str, str]
    aliases: tuple[str, ...] = field(default=(), compare=False)
    """Where a list of versions was asked for."""
    created: int = field(default=0, compare=False)
    """Epoch milliseconds."""

    @property
    def label(self) -> str:
        """`name/number`, as forecasts carry it."""
        return f"{self.name}/{self.number}"


class Registry:
    """The models of one MLflow store: `http://host:port`, or `sqlite:///path` with its artifacts beside it.

    `timeout_s` bounds each of the two tries of an HTTP request. MLflow knows it for a whole process only: the user's
    MLFLOW_HTTP_REQUEST_TIMEOUT decides, else the first registry in use.
    """

    def __init__(self, tracking_uri: str, timeout_s: int = 3) -> None:
        self.tracking_uri = tracking_uri
        self._timeout_s = timeout_s

    def record(
        self,
        name: str,
        folder: Path,
        *,
        params: Mapping[str, object],
        history: Sequence[Mapping[str, float]],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        reached: Callable[[str], None] = lambda _: None,
    ) -> Version:
        """Logs a training run and registers its model as a new version, the champion if there is none.

        `folder` holds model.onnx and whatever else belongs to the run (weights, card, plot); `history` has the metrics
        of each epoch, from 1. The version has all its tags, and the file's sha256 among them, from its creation on, and
        the alias that it is given.
        `reached` is told of the steps: uploaded, registered. If the tags have a JOB, what an earlier attempt at the
        same job left behind is removed, and if that came as far as a version, it is the one.
        """
        check_name(name)
        tags = {**tags, "sha256": sha256(folder / MODEL_FILE)}
        with self._mapped_errors():
            with _unless_it_exists():
                self._client.create_registered_model(name)
            experiment, job = self._experiment(name), tags.get(JOB)
            if job and (made := self.of_job(name, job)):
                return made
            if job:
                self._forget_runs(experiment, job)
            run = self._client.create_run(experiment, tags={JOB: job} if job else None)
            self._log(run.info.run_id, params, history, metrics)
            self._client.log_artifacts(run.info.run_id, str(folder))
            self._client.set_terminated(run.info.run_id)
            reached("uploaded")
            source = f"{run.info.artifact_uri}/{MODEL_FILE}"
            found = self._client.create_model_version(name, source, run.info.run_id, tags, await_creation_for=0)
            reached("registered")
            if CHAMPION in self._client.get_registered_model(name).aliases:
                return self._version(found)
            self._client.set_registered_model_alias(name, CHAMPION, str(found.version))
            return self._version(found, (CHAMPION,))

    def of_job(self, name: str, job: str) -> Version | None:
        """The version that a job of this fingerprint has made, if there is one."""
        return next((version for version in self.versions(name) if version.tags.get(JOB) == job), None)

    def versions(self, name: str) -> list[Version]:
        """All versions of a name that tidecast registered, the newest first, with their aliases."""
        with self._mapped_errors():
            names: dict[str, list[str]] = {}
            for alias, number in self._client.get_registered_model(name).aliases.items():
                names.setdefault(str(number), []).append(alias)
            found, token = [], None
            while token != "":
                page = self._client.search_model_versions(f"name={_quoted(name)}", page_token=token)
                found += [each for each in page if each.run_id and "sha256" in each.tags]
                token = page.token or ""
        ours = (self._version(each, tuple(names.get(str(each.version), ()))) for each in found)
        return sorted(ours, key=lambda version: -int(version.number))

    def names(self) -> list[str]:
        """All registered models."""
        with self._mapped_errors():
            found, token = [], None
            while token != "":
                page = self._client.search_registered_models(page_token=token)
                found += [model.name for model in page]
                token = page.token or ""
        return sorted(found)

    def call(self, version: Version, alias: str) -> None:
        """Give a version an alias, whoever had it."""
        with self._mapped_errors():
            self._client.set_registered_model_alias(version.name, alias, version.number)

    def promote(self, version: Version, instead_of: str | None = None) -> bool:
        """Make a version the champion, and say whether it was not; which one it replaces is remembered, for `rollback`.

        `instead_of` is the number of the version that it was judged against. Raises PromotionConflict if another one
        serves.
        """
        with self._mapped_errors():
            model = self._client.get_registered_model(version.name)
            serving = str(model.aliases.get(CHAMPION, ""))
            if serving == version.number:
                return False
            if instead_of is not None and serving != instead_of:
                raise PromotionConflict(
                    f"{version.label} was judged against {version.name}/{instead_of}; {serving} serves now"
                )
            earlier = [*_numbers(model.tags.get(_EARLIER, "")), *filter(None, [serving])]
            self._client.set_registered_model_tag(version.name, _EARLIER, ",".join(earlier[-_REMEMBERED:]))
            self._client.set_registered_model_alias(version.name, CHAMPION, version.number)
            self._client.set_model_version_tag(version.name, version.number, PROMOTED, str(int(time.time() * 1000)))
        return True

    def rollback(self, name: str) -> Version:
        """Make the champion before this one the champion again. Raises UnknownModel if there was none."""
        with self._mapped_errors():
            model = self._client.get_registered_model(name)
            serving, earlier = str(model.aliases.get(CHAMPION, "")), _numbers(model.tags.get(_EARLIER, ""))
            there = {version.number: version for version in self.versions(name)}
            while earlier and (earlier[-1] == serving or earlier[-1] not in there):
                earlier.pop()
            if not earlier:
                raise UnknownModel(f"{self.shown}: {name!r} has had no champion before this one")
            before = there[earlier.pop()]
            self._client.set_registered_model_alias(name, CHAMPION, before.number)
            self._client.set_registered_model_tag(name, _EARLIER, ",".join(earlier))
        return before

    def resolve(self, reference: str) -> Version:
        """The version that `name`, `name@alias` or `name/7` means now; a bare name means its champion."""
        name, number, alias = _parse(reference)
        with self._mapped_errors():
            if number:
                return self._version(self._client.get_model_version(name, number))
            aliases = self._client.get_registered_model(name).aliases
            if alias not in aliases:
                raise UnknownModel(f"{self.shown}: the model {name!r} has no {alias!r}")
            return self._version(self._client.get_model_version(name, str(aliases[alias])))

    def download(self, version: Version, folder: Path) -> Path:
        """The version's ONNX file, in a folder that keeps it for the next time; its digest is checked either way."""
        path = folder / f"{version.name}-{version.number}.onnx"
        if path.exists() and sha256(path) == version.sha256:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as temporary:
            try:
                with self._mapped_errors():
                    fetched = Path(self._client.download_artifacts(version.run_id, MODEL_FILE, temporary))
            except UnknownModel:
                raise CorruptModel(f"{version.label}: its run holds no {MODEL_FILE}") from None
            if sha256(fetched) != version.sha256:
                raise CorruptModel(f"{version.label}: its file's sha256 is not the one it was registered with")
            fetched.replace(path)
        return path

    def artifacts(self, version: Version, folder: Path) -> Path:
        """All that the version's run has kept, as files in a folder. Nothing of it is checked, nor executed."""
        with self._mapped_errors():
            return Path(self._client.download_artifacts(version.run_id, "", str(folder)))

    @cached_property
    def _client(self) -> "MlflowClient":
        for variable, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(self._timeout_s),
            "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        }.items():
            os.environ.setdefault(variable, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at its import: about its own dependencies
            from mlflow import MlflowClient
        for logger in ("mlflow", "alembic"):
            logging.getLogger(logger).setLevel(logging.ERROR)
        if not _is_url(self.tracking_uri):
            raise RegistryError(f"tracking-uri: {self.shown!r} is no URL: http://HOST:PORT or sqlite:///PATH")
        if not self._database:
            return MlflowClient(self.tracking_uri, self.tracking_uri)
        self._database.parent.mkdir(parents=True, exist_ok=True)
        # Processes that make the tables of a fresh file at once destroy each other's work.
        with FileLock(f"{self._database}.lock"):
            client = MlflowClient(self.tracking_uri, self.tracking_uri)
            client.search_registered_models(max_results=1)
        return client

    @property
    def absent(self) -> bool:
        """Whether it is a local store that is still to be made, as it is by the first question asked of it."""
        return self._database is not None and not self._database.exists()

    @cached_property
    def _database(self) -> Path | None:
        if not self.tracking_uri.startswith(_SQLITE):
            return None
        return Path(self.tracking_uri.removeprefix(_SQLITE)).resolve()

    @property
    def shown(self) -> str:
        """The tracking URI for people: without a user's name and password."""
        return self._without_user(self.tracking_uri)

    def _without_user(self, text: str) -> str:
        user = re.match(r"(?:[^:/]+://)?(.*@)", self.tracking_uri)
        return text if user is None or self.tracking_uri.startswith(_SQLITE) else text.replace(user[1], "")

    def _forget_runs(self, experiment: str, job: str) -> None:
        for run in self._client.search_runs([experiment], f"tags.`{JOB}` = '{job}'"):
            self._client.delete_run(run.info.run_id)

    def _experiment(self, name: str) -> str:
        location = (self._database.parent / "artifacts").as_uri() if self._database else None
        with _unless_it_exists():
            return self._client.create_experiment(name, location)
        return str(self._client.get_experiment_by_name(name).experiment_id)

    def _log(
        self,
        run_id: str,
        params: Mapping[str, object],
        history: Sequence[Mapping[str, float]],
        metrics: Mapping[str, float],
    ) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        points = [
            Metric(key, value, now, step) for step, epoch in enumerate(history, 1) for key, value in epoch.items()
        ]
        points += [Metric(key, value, now, 0) for key, value in metrics.items()]
        self._client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
        for start in range(0, len(points), _METRICS_A_CALL):
            self._client.log_batch(run_id, metrics=points[start : start + _METRICS_A_CALL])

    def _version(self, found: "ModelVersion", aliases: tuple[str, ...] = ()) -> Version:
        label = f"{found.name}/{found.version}"
        if not found.run_id or "sha256" not in found.tags:
            raise CorruptModel(f"{label}: it has no run or no sha256, so it was not registered by tidecast")
        tags, created = dict(found.tags), found.creation_timestamp
        return Version(found.name, str(found.version), found.run_id, tags["sha256"], tags, aliases, created)

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except _library_errors() as error:
            unknown = getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"
            raise (UnknownModel if unknown else RegistryUnavailable)(f"{self.shown}: {self._line(error)}") from error

    def _line(self, error: Exception) -> str:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        if self._database and "unsupported URI" in line:
            return "a SQLite store needs tidecast[train]; serving takes an MLflow server's URL or an .onnx file"
        if "failed with exception HTTP" in line:
            return "no MLflow server answers there"
        return self._without_user(line).removeprefix(f"{getattr(error, 'error_code', '')}: ")


def _library_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:  # mlflow-skinny does without
        return MlflowException, OSError
    return MlflowException, SQLAlchemyError, OSError


@contextmanager
def _unless_it_exists() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _numbers(text: str) -> list[str]:
    return [number for number in text.split(",") if number]


def _is_url(text: str) -> bool:
    try:
        return bool(urlsplit(text).scheme) and "://" in text
    except ValueError:
        return False


def _quoted(name: str) -> str:
    return f'"{name}"' if "'" in name else f"'{name}'"


def check_name(name: str) -> None:
    """Raises TrainingConfigError for a name that no model can have."""
    if not re.fullmatch(_NAME, name):
        raise TrainingConfigError(f"name: {name!r} is empty or has one of / @ :")


def sha256(path: Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(reference: str) -> tuple[str, str, str]:
    """Name, number and alias; one of the last two is empty."""
    parts = re.fullmatch(rf"(?P<name>{_NAME})(/(?P<number>\d+)|@(?P<alias>{_NAME}))?", reference)
    if parts is None:
        raise UnknownModel(f"{reference!r} is not like name, name@champion or name/7")
    number = parts["number"] or ""
    return parts["name"], number, "" if number else parts["alias"] or CHAMPION
