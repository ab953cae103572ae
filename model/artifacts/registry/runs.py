"""A training's run in MLflow: begun before the training, logged while it goes on, and ended as it ends."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from model.artifacts.registry.store import Store
from model.artifacts.versions import MODEL_FILE, Dataset
from model.card import AnyCard, Arrays
from tidecast.errors import TidecastError

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

_METRICS_PER_CALL = 1000
MODEL_DESCRIPTION = "MLmodel"
"""The file by which MLflow knows a model's inputs and outputs, and loads it."""


class Point(NamedTuple):
    """A metric's value at a step, from 1."""

    metric: str
    value: float
    step: int


@dataclass(frozen=True, slots=True)
class Run:
    """A run of an MLflow store."""

    id: str
    artifacts: str
    """The URI of its artifacts."""
    url: str
    """Its page; of a local store the command that shows it."""
    store: Store

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters, each once a run. Raises RegistryUnavailable, as all of a run's methods."""
        from mlflow.entities import Param

        with self.store.mapped_errors():
            self.store.client.log_batch(self.id, params=[Param(key, str(value)) for key, value in params.items()])

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Log values of metrics; the one of the last step is the run's value in MLflow's tables."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self.store.mapped_errors():
            for start in range(0, len(points), _METRICS_PER_CALL):
                part = points[start : start + _METRICS_PER_CALL]
                metrics = [Metric(point.metric, float(point.value), now, point.step) for point in part]
                self.store.client.log_batch(self.id, metrics=metrics)

    def log_dataset(self, dataset: Dataset) -> None:
        """Log what the model learns from."""
        from mlflow.entities import Dataset as MlflowDataset
        from mlflow.entities import DatasetInput, InputTag

        columns = [{"type": "double", "name": name, "required": True} for name in dataset.columns]
        source, profile = (msgspec.json.encode(each).decode() for each in (dataset.source, dataset.profile))
        schema = msgspec.json.encode({"mlflow_colspec": columns}).decode()
        logged = MlflowDataset(dataset.name, dataset.digest, dataset.kind, source, schema, profile)
        with self.store.mapped_errors():
            tags = [InputTag("mlflow.data.context", "training")]
            self.store.client.log_inputs(self.id, [DatasetInput(logged, tags)])

    def describe(self, text: str, tags: Mapping[str, str]) -> None:
        """Set the description on the run's page, in Markdown, and tags."""
        with self.store.mapped_errors():
            for key, value in {"mlflow.note.content": text, **tags}.items():
                self.store.client.set_tag(self.id, key, value)

    def upload(self, folder: Path, card: AnyCard | None = None) -> None:
        """Upload a folder of artifacts; with a card, its model.onnx as a model that MLflow can show and load."""
        if card is not None:
            _write_model_description(folder, self.id, card)
        with self.store.mapped_errors():
            self.store.client.log_artifacts(self.id, str(folder))

    def picture(self, name: str) -> str:
        """An artifact as a picture in a description."""
        return f"![{name}](get-artifact?path={name}&run_uuid={self.id})"


@contextmanager
def open_run(store: Store, experiment: str, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
    """A new run: RUNNING inside the context, then FINISHED; FAILED after an exception, KILLED after Ctrl-C."""
    with store.mapped_errors():
        title = f"{name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        info = store.client.create_run(experiment, tags=dict(tags), run_name=title).info
    run = Run(info.run_id, info.artifact_uri, store.page(experiment, info.run_id), store)
    try:
        yield run
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with suppress(TidecastError), store.mapped_errors():
            store.client.set_terminated(run.id, status)
        raise
    with store.mapped_errors():
        store.client.set_terminated(run.id)


def _write_model_description(folder: Path, run_id: str, card: AnyCard) -> None:
    import onnx
    from mlflow.models import Model

    model = Model(artifact_path="", run_id=run_id, signature=_signature(card))
    model.add_flavor("onnx", onnx_version=onnx.__version__, data=MODEL_FILE, providers=["CPUExecutionProvider"])
    model.add_flavor("python_function", loader_module="mlflow.onnx", data=MODEL_FILE)
    model.save(str(folder / MODEL_DESCRIPTION))


def _signature(card: AnyCard) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from numpy import dtype

    def schema(arrays: Arrays) -> Schema:
        return Schema(
            [
                TensorSpec(dtype(each.dtype), tuple(-1 if isinstance(size, str) else size for size in each.shape), name)
                for name, each in arrays.items()
            ]
        )

    return ModelSignature(schema(card.inputs), schema(card.outputs))
