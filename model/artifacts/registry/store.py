"""A connection to an MLflow store: a server, or a local SQLite file; and the mapping of MLflow's errors."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from tidecast.errors import (
    FORBIDDEN,
    NotPermitted,
    RegistryError,
    RegistryUnavailable,
    TidecastError,
    UnknownModel,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_FORBIDDEN = re.compile(r"failed with error code 40[13]\b")
"""In MLflow's words for a server's answer without an error code of its own, such as a proxy's."""
_WRONG = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST")
"""MLflow's codes for what it would refuse again: a name or an alias that it does not take, for example."""
_VARIABLE = re.compile(r"Failed to convert .* for MLFLOW_")
"""In MLflow's words for a variable of its own that has a wrong value."""
_UNKNOWN = re.compile(r"(?:Registered Model with name=(.+)|Model Version \(name=(.+), version=(\d+)\)) not found")
"""In MLflow's words for a model, or a version of one, that is not there."""
_LISTED = 10
_CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
_ANSWERS = {
    401: f"the server does not know the user: {_CREDENTIALS}",
    403: f"the server does not let the user do this: {_CREDENTIALS}",
    404: "what answers there is no MLflow server: give the address of its API",
    413: "the server, or a proxy before it, takes no file as large as this: raise its limit",
    429: "the server is asked too often: try again",
    502: "a proxy answers there, and no MLflow server behind it",
    503: "the server is not up yet: try again",
    504: "a proxy answers there, and the MLflow server behind it does not in time",
}
"""What HTTP's status codes mean here."""
TIMEOUT_S = 3
"""Of each of the two tries of an HTTP request, unless the environment has an MLFLOW_HTTP_REQUEST_TIMEOUT."""


class Store:
    """A lazily created MLflow client for a tracking URI."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's own client. Raises RegistryError for an invalid tracking URI."""
        for variable, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT_S),
            "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        }.items():
            os.environ.setdefault(variable, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at its import: about its own dependencies
            from mlflow import MlflowClient
        for logger in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(logger).setLevel(logging.ERROR)
        if not _is_url(self.tracking_uri):
            raise RegistryError(f"tracking-uri: {self.redacted_uri!r} is no URL: http://HOST:PORT or sqlite:///PATH")
        if not self.database:
            return MlflowClient(self.tracking_uri, self.tracking_uri)
        self._check_permission(self.database)
        self.database.parent.mkdir(parents=True, exist_ok=True)
        # Concurrent schema creation in a new SQLite file corrupts it.
        with FileLock(f"{self.database}.lock"):
            client = MlflowClient(self.tracking_uri, self.tracking_uri)
            client.search_registered_models(max_results=1)
        return client

    def _check_permission(self, database: Path) -> None:
        """Raises NotPermitted, RegistryError before MLflow tries for a minute, and calls it the database's failure."""
        there = next(each for each in (database, *database.parents) if os.path.exists(each))
        if there.is_dir() == (there == database):
            kind = "a file" if there.is_dir() else "a folder"
            raise RegistryError(f"tracking-uri: {self.tracking_uri.removeprefix(_SQLITE)}: {there} is not {kind}")
        needed = [(there, os.W_OK | (os.X_OK if there.is_dir() else os.R_OK))]
        needed += [(database.parent, os.W_OK | os.X_OK)] if there == database else []  # for its lock and its journal
        if refused := [path for path, kind in needed if not os.access(path, kind)]:
            raise NotPermitted(
                f"tracking-uri: {self.tracking_uri.removeprefix(_SQLITE)}: no permission to write to {refused[0]}; "
                "--home DIR or --tracking-uri URI names another place"
            )

    @property
    def absent(self) -> bool:
        """Whether it is a local store that does not exist yet; the first request creates it."""
        return self.database is not None and not self.database.exists()

    @cached_property
    def database(self) -> Path | None:
        """The file of a local store; None for a server."""
        if not self.tracking_uri.startswith(_SQLITE):
            return None
        path = Path(self.tracking_uri.removeprefix(_SQLITE))
        try:
            return path.resolve()
        except (RuntimeError, OSError) as error:  # links that lead to themselves, a name that is too long
            raise RegistryError(f"tracking-uri: {path}: {getattr(error, 'strerror', error)}") from None

    @property
    def redacted_uri(self) -> str:
        """The tracking URI for people: without a user's name and password."""
        return self._without_user(self.tracking_uri)

    def page(self, experiment: str, run: str, server: str | None = None) -> str:
        """The address of a run's page on the store's server, or on another; of a local store the command for one."""
        if self.database and server is None:
            return f"mlflow ui --backend-store-uri {self.tracking_uri}"
        return f"{(server or self.redacted_uri).rstrip('/')}/#/experiments/{experiment}/runs/{run}"

    def _without_user(self, text: str) -> str:
        user = re.match(r"(?:[^:/]+://)?(.*@)", self.tracking_uri)
        return text if user is None or self.tracking_uri.startswith(_SQLITE) else text.replace(user[1], "")

    def names(self) -> list[str]:
        """The names of all registered models, sorted. Raises MLflow's errors."""
        found, token = list[str](), None
        while token != "":
            page = self.client.search_registered_models(page_token=token)
            found += [model.name for model in page]
            token = page.token or ""
        return sorted(found)

    @contextmanager
    def mapped_errors(self) -> Iterator[None]:
        """Raise MLflow's errors as RegistryErrors."""
        try:
            yield
        except _library_errors() as error:
            raise _kind(error)(f"{self.redacted_uri}: {self._line(error)}") from error
        except ValueError as error:
            if not _VARIABLE.match(str(error)):
                raise
            raise RegistryError(str(error)) from None

    def _line(self, error: Exception) -> str:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        if self.database and "unsupported URI" in line:
            return "a SQLite store needs tidecast[train]; serving takes an MLflow server's URL or an .onnx file"
        if retried := re.search(r"too many (\d+) error responses", line):
            return _answer(int(retried[1]))
        if "failed with exception HTTP" in line or "failed with timeout exception" in line:
            return "no MLflow server answers there"
        if status := re.search(r"failed with error code (\d+)", line) or re.search(r"^(\d{3}) \w+ Error: ", line):
            return _answer(int(status[1]))
        if "was not in a valid JSON format" in line:
            return "what answers there is no MLflow server: give the address of its API"
        if unknown := _UNKNOWN.search(line):
            with suppress(*_library_errors()):
                return self._unknown(unknown[1] or unknown[2], unknown[3])
        return self._without_user(line).removeprefix(f"{getattr(error, 'error_code', '')}: ")

    def _unknown(self, name: str, number: str | None) -> str:
        names = self.names()
        if number and name in names:
            return f"{name} has no version {number}; tidecast models {name} shows those it has"
        there = ", ".join(names[:_LISTED]) + f" and {len(names) - _LISTED:,} more" * (len(names) > _LISTED)
        return f"no model is called {name}: tidecast train --name {name} trains one; there are: {there or 'none'}"


def _kind(error: Exception) -> type[TidecastError]:
    code = getattr(error, "error_code", "")
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED") or _FORBIDDEN.search(str(error)):
        return NotPermitted
    if isinstance(error, OSError) and error.errno in FORBIDDEN:
        return NotPermitted
    if code == "RESOURCE_DOES_NOT_EXIST":
        return UnknownModel
    return RegistryError if code in _WRONG else RegistryUnavailable


def _answer(status: int) -> str:
    return _ANSWERS.get(status, f"the server answers with {status}: its log says why")


def _library_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:  # mlflow-skinny does without
        return MlflowException, OSError
    return MlflowException, SQLAlchemyError, OSError


@contextmanager
def unless_it_exists() -> Iterator[None]:
    """Ignore MLflow's error that the resource to create already exists."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _is_url(text: str) -> bool:
    try:
        return bool(urlsplit(text).scheme) and "://" in text
    except ValueError:
        return False
