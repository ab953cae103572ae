"""Model versions and references to them; without MLflow."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tidecast.errors import TrainingConfigError, UnknownModel

MODEL_FILE = "model.onnx"
"""The name of the model file, in a folder and among the artifacts of a run."""
CHAMPION = "champion"
"""The alias of the version in production."""
REFUSED = "tidecast.refused"
"""The tag of a version that must not serve: the digest of its file, and why. With `.GROUP` it is about that group."""
_NAME = r"[^/@:\ud800-\udfff]+"


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
    """Filled by `Registry.versions` and `record`."""
    created: int = field(default=0, compare=False)
    """Epoch milliseconds."""

    @property
    def label(self) -> str:
        """`name/number`, as forecasts carry it."""
        return f"{self.name}/{self.number}"

    @property
    def refusals(self) -> dict[str, str]:
        """Why the version must not serve, by consumer group; "" is any group. Those of another file do not count."""
        found = {}
        for tag, text in self.tags.items():
            digest, _, reason = text.partition(" ")
            if tag.startswith(REFUSED) and digest == self.sha256:
                found[tag.removeprefix(REFUSED).removeprefix(".")] = reason
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What a model learned from, as its run records it."""

    name: str
    """The topic's or the file's."""
    kind: str
    """Of its source: kafka, sqlite or file."""
    source: Mapping[str, object]
    """Where it is: a topic and the range of offsets of each partition, or a file."""
    digest: str
    """Of its contents, at most 36 characters."""
    columns: Sequence[str] = ()
    """Its numeric columns."""
    profile: Mapping[str, object] = field(default_factory=dict)
    """Its size and span of time."""


def check_name(name: str) -> None:
    """Raises TrainingConfigError for an invalid model name."""
    if not re.fullmatch(_NAME, name):
        raise TrainingConfigError(f"name: {name!r} is empty, no text, or has one of / @ :")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_reference(reference: str) -> tuple[str, str, str]:
    """Name, version number and alias of a reference; one of the last two is empty. Raises UnknownModel."""
    parts = re.fullmatch(rf"(?P<name>{_NAME})(/(?P<number>[0-9]{{1,18}})|@(?P<alias>{_NAME}))?", reference)
    if parts is None:
        raise UnknownModel(f"{reference!r} is not like name, name@champion or name/7")
    number = parts["number"] or ""
    return parts["name"], number, "" if number else parts["alias"] or CHAMPION
