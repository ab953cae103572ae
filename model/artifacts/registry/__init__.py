"""The model registry: runs, versions and aliases in MLflow. The only importer of mlflow, and a lazy one.

All its errors are RegistryErrors (tidecast.errors).
Look-ups work with mlflow-skinny against a server; a local SQLite store needs the full mlflow.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from model.artifacts.registry.runs import Run, open_run
from model.artifacts.registry.store import Store, unless_it_exists
from model.artifacts.versions import CHAMPION, MODEL_FILE, REFUSED, Version, check_name, parse_reference, sha256
from model.card import AnyCard
from tidecast.errors import CorruptModel, ModelUnavailable, PromotionConflict, UnknownModel, unusable

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER = "challenger"
JOB = "tidecast.job"
"""The tag of runs and versions with the fingerprint of the job that created them."""
PROMOTED = "tidecast.promoted"
"""The tag of a promoted version: the time of its promotion, epoch milliseconds."""
_EARLIER = "tidecast.champions"
"""The tag of a registered model with its previous champions, the latest last."""
_REMEMBERED = 50
_GOOD, _GOOD_KEPT = "tidecast.good", 5
"""The tag of a registered model, by alias, with the last versions that served, and their digests; the latest last."""
_LONGEST_TAG = 500


class Registry:
    """The models of one MLflow store: `http://host:port`, or `sqlite:///path` with its artifacts beside it."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self._store = Store(tracking_uri)

    @property
    def absent(self) -> bool:
        """Whether it is a local store that does not exist yet; the first request creates it."""
        return self._store.absent

    @property
    def redacted_uri(self) -> str:
        """The tracking URI without a user's name and password."""
        return self._store.redacted_uri

    @contextmanager
    def run(self, name: str, job: str | None = None) -> Iterator[Run]:
        """A run of a training of this model: FINISHED after the context, FAILED after an exception.

        `job` is the fingerprint of a job that is done once: runs of earlier attempts at it are deleted.
        """
        check_name(name)
        with self._store.mapped_errors():
            experiment = self._experiment(name)
            if job and self.version_of_job(name, job) is None:
                self._delete_runs(experiment, job)
        with open_run(self._store, experiment, name, {JOB: job} if job else {}) as run:
            yield run

    def register(
        self,
        name: str,
        run: Run,
        folder: Path,
        *,
        tags: Mapping[str, str],
        description: str = "",
        card: AnyCard | None = None,
        reached: Callable[[str], None] = lambda _: None,
    ) -> Version:
        """Upload a run's artifacts and register its model as a new version, as champion if there is none.

        `folder` holds model.onnx and the other artifacts (weights, card, plots). The version is created with its tags,
        including the file's sha256. `reached` is called after the steps `uploaded` and `registered`. If the tags have a
        JOB that registered a version already, that is returned instead of a second one.
        """
        tags = {**tags, "sha256": sha256(folder / MODEL_FILE)}
        client = self._store.client
        with self._store.mapped_errors():
            with unless_it_exists():
                client.create_registered_model(name)
            if (job := tags.get(JOB)) and (version := self.version_of_job(name, job)):
                return version
            run.upload(folder, card)
            reached("uploaded")
            found = client.create_model_version(
                name, run.artifacts, run.id, tags, description=description or None, await_creation_for=0
            )
            reached("registered")
            if CHAMPION in client.get_registered_model(name).aliases:
                return self._version(found)
            client.set_registered_model_alias(name, CHAMPION, str(found.version))
            return self._version(found, (CHAMPION,))

    def version_of_job(self, name: str, job: str) -> Version | None:
        """The version registered by the job with this fingerprint, if there is one."""
        with suppress(UnknownModel):
            return next((version for version in self.versions(name) if version.tags.get(JOB) == job), None)
        return None

    def versions(self, name: str) -> list[Version]:
        """All versions of a model registered by tidecast, newest first, with their aliases."""
        with self._store.mapped_errors():
            names: dict[str, list[str]] = {}
            for alias, number in self._store.client.get_registered_model(name).aliases.items():
                names.setdefault(str(number), []).append(alias)
            found, token = [], None
            while token != "":
                page = self._store.client.search_model_versions(f"name={_quoted(name)}", page_token=token)
                found += [each for each in page if each.run_id and "sha256" in each.tags]
                token = page.token or ""
        ours = (self._version(each, tuple(names.get(str(each.version), ()))) for each in found)
        return sorted(ours, key=lambda version: -int(version.number))

    def names(self) -> list[str]:
        """The names of all registered models, sorted."""
        with self._store.mapped_errors():
            return self._store.names()

    def set_alias(self, version: Version, alias: str) -> None:
        """Set an alias to a version, taking it from any other."""
        with self._store.mapped_errors():
            self._store.client.set_registered_model_alias(version.name, alias, version.number)

    def promote(self, version: Version, instead_of: str | None = None) -> bool:
        """Make a version the champion and record the previous one for `rollback`; False if it already was.

        `instead_of` is the number of the champion it was compared against. Raises PromotionConflict if that is no
        longer the champion.
        """
        with self._store.mapped_errors():
            model = self._store.client.get_registered_model(version.name)
            serving = str(model.aliases.get(CHAMPION, ""))
            if serving == version.number:
                return False
            if instead_of is not None and serving != instead_of:
                raise PromotionConflict(
                    f"{version.label} was judged against {version.name}/{instead_of}; {serving} serves now"
                )
            earlier = [*_numbers(model.tags.get(_EARLIER, "")), *filter(None, [serving])]
            self._store.client.set_registered_model_tag(version.name, _EARLIER, ",".join(earlier[-_REMEMBERED:]))
            self._store.client.set_registered_model_alias(version.name, CHAMPION, version.number)
            self._store.client.set_model_version_tag(
                version.name, version.number, PROMOTED, str(int(time.time() * 1000))
            )
        return True

    def rollback(self, name: str) -> Version:
        """Restore the previous champion. Raises UnknownModel if there is none."""
        with self._store.mapped_errors():
            model = self._store.client.get_registered_model(name)
            serving, earlier = str(model.aliases.get(CHAMPION, "")), _numbers(model.tags.get(_EARLIER, ""))
            there = {version.number: version for version in self.versions(name)}
            while earlier and (earlier[-1] == serving or earlier[-1] not in there):
                earlier.pop()
            if not earlier:
                raise UnknownModel(f"{self.redacted_uri}: {name!r} has had no champion before this one")
            before = there[earlier.pop()]
            self._store.client.set_registered_model_alias(name, CHAMPION, before.number)
            self._store.client.set_registered_model_tag(name, _EARLIER, ",".join(earlier))
        return before

    def refuse(self, version: Version, reason: str, group: str = "") -> None:
        """Tag a version as one that must not serve, in any group or in one, until its file is another."""
        with self._store.mapped_errors():
            tag, text = f"{REFUSED}.{group}" if group else REFUSED, f"{version.sha256} {reason}"
            self._store.client.set_model_version_tag(version.name, version.number, tag, text[:_LONGEST_TAG])

    def note_good(self, version: Version, alias: str) -> None:
        """Record that a version serves under an alias, for `good_versions`."""
        with self._store.mapped_errors():
            noted = self._store.client.get_registered_model(version.name).tags.get(f"{_GOOD}.{alias}", "")
            entry = f"{version.number} {version.sha256}"
            entries = [each for each in noted.split(",") if each and each != entry]
            if (text := ",".join([*entries[1 - _GOOD_KEPT :], entry])) != noted:
                self._store.client.set_registered_model_tag(version.name, f"{_GOOD}.{alias}", text)

    def good_versions(self, name: str, alias: str) -> list[Version]:
        """Versions to go back to: those that have served under the alias, then earlier champions; the latest first."""
        with self._store.mapped_errors():
            tags = self._store.client.get_registered_model(name).tags
        there = {version.number: version for version in self.versions(name)}
        served = [entry.partition(" ") for entry in tags.get(f"{_GOOD}.{alias}", "").split(",") if entry]
        numbers = [number for number, _, digest in served if number in there and there[number].sha256 == digest]
        earlier = _numbers(tags.get(_EARLIER, "")) if alias == CHAMPION else []
        return [there[number] for number in dict.fromkeys([*numbers[::-1], *earlier[::-1]]) if number in there]

    def resolve(self, reference: str) -> Version:
        """The version that `name`, `name@alias` or `name/7` means now; a bare name means its champion."""
        name, number, alias = parse_reference(reference)
        with self._store.mapped_errors():
            if number:
                return self._version(self._store.client.get_model_version(name, number))
            aliases = self._store.client.get_registered_model(name).aliases
            if alias not in aliases:
                raise UnknownModel(f"{self.redacted_uri}: the model {name!r} has no {alias!r}")
            return self._version(self._store.client.get_model_version(name, str(aliases[alias])))

    def download(self, version: Version, folder: Path) -> Path:
        """The version's ONNX file, downloaded unless the cache folder has it; its sha256 is checked either way.

        In the cache it is SHA256.onnx, or as earlier versions named it, NAME-NUMBER.onnx. Raises ModelUnavailable,
        NotPermitted if the cache can't be written.
        """
        path = folder / f"{version.sha256}.onnx"
        for cached in (path, folder / f"{version.name}-{version.number}.onnx"):
            if cached.exists() and sha256(cached) == version.sha256:
                return cached
        try:
            self._fetch(version, path)
        except OSError as error:
            raise unusable(error.filename or folder, error, ModelUnavailable) from error
        return path

    def _fetch(self, version: Version, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True) as temporary:
            try:
                with self._store.mapped_errors():
                    fetched = Path(self._store.client.download_artifacts(version.run_id, MODEL_FILE, temporary))
            except UnknownModel:
                raise CorruptModel(f"{version.label}: its run holds no {MODEL_FILE}") from None
            if sha256(fetched) != version.sha256:
                raise CorruptModel(f"{version.label}: its file's sha256 is not the one it was registered with")
            fetched.replace(path)

    def page(self, version: Version, server: str | None = None) -> str:
        """The page of the run that a version is from, on the registry's server or another one of the same store."""
        with self._store.mapped_errors():
            experiment = self._store.client.get_run(version.run_id).info.experiment_id
        return self._store.page(experiment, version.run_id, server)

    def artifacts(self, version: Version, folder: Path) -> Path:
        """Download all artifacts of the version's run into a folder. They are neither verified nor executed."""
        with self._store.mapped_errors():
            return Path(self._store.client.download_artifacts(version.run_id, "", str(folder)))

    def _delete_runs(self, experiment: str, job: str) -> None:
        for run in self._store.client.search_runs([experiment], f"tags.`{JOB}` = '{job}'"):
            self._store.client.delete_run(run.info.run_id)

    def _experiment(self, name: str) -> str:
        location = (self._store.database.parent / "artifacts").as_uri() if self._store.database else None
        with unless_it_exists():
            return self._store.client.create_experiment(name, location)
        return str(self._store.client.get_experiment_by_name(name).experiment_id)

    def _version(self, found: "ModelVersion", aliases: tuple[str, ...] = ()) -> Version:
        label = f"{found.name}/{found.version}"
        if not found.run_id or "sha256" not in found.tags:
            raise CorruptModel(f"{label}: it has no run or no sha256, so it was not registered by tidecast")
        tags, created = dict(found.tags), found.creation_timestamp
        return Version(found.name, str(found.version), found.run_id, tags["sha256"], tags, aliases, created)


def _numbers(text: str) -> list[str]:
    return [number for number in text.split(",") if number]


def _quoted(name: str) -> str:
    return f'"{name}"' if "'" in name else f"'{name}'"
